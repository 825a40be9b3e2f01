"""Count what the smart cache policy would not keep for everybody, and time its reading.

    python benchmarks/cache_policy.py [--banking77 train.csv] [--clinc150 data.json] [--json]

Banking77 is a CSV file with the columns text and category, CLINC150 a JSON object of lists of [text, intent]. All
questions are asked at temperature 0 without a user, so whatever is refused is taken for personal. Of CLINC150 the
intents whose answer is somebody's own state are counted apart: there a high share is wanted, elsewhere a low one. The
lists of the tests come first; "veiled" are personal questions of which most name no owner, "mixed" were written without
a look at the rules or the weights, and every other one of both was never fitted to. Times are the best of fifteen runs
over texts that were never seen, in microseconds.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from statistics import fmean
from timeit import repeat

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.caching import CachePolicy, decide, read_traits
from perfkit.values import ChatRequest

ROOT = Path(__file__).resolve().parent.parent
Labelled = list[tuple[str, str]]

SMART = CachePolicy.of("smart")
# Intents of CLINC150 whose answer is somebody's own state.
BANK = {"account_blocked", "application_status", "apr", "credit_score", "spending_history", "taxes"}
STATES = BANK | {"find_phone", "flight_status", "payday", "pto_balance", "pto_request_status", "share_location"}
PLAIN = """Photosynthesis is the process by which green plants, algae and some bacteria turn the light of the sun into
chemical energy. Experiments showed that plants give off oxygen only in light; the work of others, from Senebier to
Calvin, led to the cycle taught in schools. """
SHORT = "How do I reset my password?"
TELLING = "I would like to know how I can sort a list, and what I should do if it does not fit into memory. "


def kept(text: str) -> bool:
    request = ChatRequest([{"role": "user", "content": text}], "m", temperature=0)
    return decide(request, read_traits(request), SMART).keep


def refused(texts: list[str]) -> float:
    """Return the share not kept, in percent."""
    return 100 * fmean(not kept(text) for text in texts)


def banking77(path: Path) -> Labelled:
    with path.open(encoding="utf-8", newline="") as lines:
        return [(row["text"], row["category"]) for row in csv.DictReader(lines)]


def clinc150(path: Path) -> Labelled:
    splits = json.loads(path.read_text(encoding="utf-8"))
    return [(text, intent) for split in splits.values() for text, intent in split]


def shares(options: argparse.Namespace) -> dict[str, float]:
    """Return, by set of questions, the percent refused."""
    own = {name: ROOT / f"tests/data/{name}_prompts.txt" for name in ("personal", "ordinary", "current", "general")}
    found = {name: refused(path.read_text(encoding="utf-8").splitlines()) for name, path in own.items()}
    for name in ("veiled", "mixed_personal", "mixed_public"):
        asked = (ROOT / f"tests/data/{name}_prompts.txt").read_text(encoding="utf-8").splitlines()
        found |= {f"{name}, fitted to": refused(asked[::2]), f"{name}, held out": refused(asked[1::2])}
    if options.banking77 is not None:
        found["banking77"] = refused([text for text, _ in banking77(options.banking77)])
    if options.clinc150 is not None:
        utterances = clinc150(options.clinc150)
        found["clinc150"] = refused([text for text, _ in utterances])
        found["clinc150, own state"] = refused([text for text, intent in utterances if intent in STATES])
        found["clinc150, the rest"] = refused([text for text, intent in utterances if intent not in STATES])
    return found


def microseconds(text: str) -> float:
    """Return the time to read a text for the first time: more of them follow each other than are remembered."""
    asked = [[{"role": "user", "content": f"{text} {n}"}] for n in range(600)]
    requests = [ChatRequest(messages, "m", temperature=0) for messages in asked]
    return min(repeat(lambda: [read_traits(request) for request in requests], number=1, repeat=15)) / 600 * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--banking77", type=Path, help="CSV with text and category")
    parser.add_argument("--clinc150", type=Path, help="JSON object of lists of [text, intent]")
    parser.add_argument("--quick", action="store_true", help="the same: it takes a few seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    found = {
        "refused_percent": shares(options),
        "read_traits_us": {
            "one question": microseconds(SHORT),
            "plain, 1 KB": microseconds((PLAIN * 4)[:1000]),
            "in the first person, 1 KB": microseconds((TELLING * 11)[:1000]),
        },
    }
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    for group, rows in found.items():
        for name, value in rows.items():
            print(f"{group:16} {name:26} {value:7.1f}")


if __name__ == "__main__":
    main()
