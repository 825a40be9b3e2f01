"""Streams of real questions whose intents are known, apart by what may be tuned on and what is held out.

Intents are numbered by name: the even ones are for tuning, of whatever there is to tune, and the odd ones are streamed
for the report. A question is asked as it stands and then in other words: politely, in lower case, with a typo.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

from _pairs import CLASSES, pairs

from benchmarks._embedder import Asked

__all__ = ["Stream", "chosen", "sets", "streams"]

Stream = list[Asked]
BEGINNINGS = (
    "",
    "",
    "Hi, ",
    "Hello, ",
    "Please tell me: ",
    "Could you help me? ",
    "Okay, so ",
    "I wonder: ",
    "Thanks! ",
)
ENDINGS = ("", "", "", " Thanks!", " please", " Thank you very much", ", please help")
TYPO = 0.3  # of those in other words have one
LONG = 5  # letters of a word that may have one


def sets(folder: Path) -> dict[str, Stream]:
    """Return the questions of banking77 and CLINC150."""
    with (folder / "banking77_train.csv").open(encoding="utf-8", newline="") as lines:
        bank = [(row["text"], "bank " + row["category"]) for row in csv.DictReader(lines)]
    splits = json.loads((folder / "clinc150_dev.json").read_text(encoding="utf-8"))
    clinc = [(text, "clinc " + intent) for split in splits.values() for text, intent in split]
    return {
        name: [Asked(text, intent, text) for text, intent in dict(rows).items()]
        for name, rows in (("banking77", bank), ("clinc150", clinc))
    }


def chosen(rows: Stream, numbers: tuple[int, ...], of: int = 2) -> Stream:
    """Return the questions of the intents whose number, divided by `of`, leaves one of `numbers`."""
    order = {intent: number for number, intent in enumerate(sorted({row.answer for row in rows}))}
    return [row for row in rows if order[row.answer] % of in numbers]


def reworded(text: str, rng: random.Random) -> str:
    """Return a question as somebody else may put it."""
    said = text.rstrip("?!. ")
    said = said.lower() if rng.random() < 0.5 else said
    words = said.split(" ")
    long = [at for at, word in enumerate(words) if len(word) >= LONG and word.isalpha()]
    if long and rng.random() < TYPO:
        at = rng.choice(long)
        cut = rng.randrange(1, len(words[at]) - 2)
        words[at] = words[at][:cut] + words[at][cut + 1] + words[at][cut] + words[at][cut + 2 :]
    return rng.choice(BEGINNINGS) + " ".join(words) + rng.choice(("?", "", "")) + rng.choice(ENDINGS)


def _asked(rows: Stream, times: int, rng: random.Random) -> Stream:
    """Return each question so many times, no two in the same words, shuffled."""
    made = {row.text: row for row in rows}
    for row in rows:
        for _ in range(times - 1):
            text = reworded(row.text, rng)
            made.setdefault(text, row._replace(text=text))
    return rng.sample(list(made.values()), len(made))


def _with_pairs(rows: Stream, rng: random.Random) -> Stream:
    made = [Asked(text, "pair " + text, text) for kind in CLASSES for pair in pairs(kind) for text in pair]
    mixed = rows + rng.sample(made, min(len(made), len(rows) // 4))
    return rng.sample(mixed, len(mixed))


def streams(known: dict[str, Stream], *, times: int, seed: int) -> dict[str, Stream]:
    """Return the streams of some questions: each set alone, mixed, one after the other, with hard pairs, and once."""
    rng = random.Random(seed)
    bank, clinc = (_asked(known[name], times, rng) for name in ("banking77", "clinc150"))
    return {
        "banking77": bank,
        "clinc150": clinc,
        "mixed": rng.sample(bank + clinc, len(bank) + len(clinc)),
        "drift to banking77": clinc + bank,
        "drift to clinc150": bank + clinc,
        "hard": _with_pairs(clinc, rng),
        **{f"{name} once": rng.sample(rows, len(rows)) for name, rows in known.items()},
    }
