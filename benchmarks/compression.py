"""Measure what compression saves, what it costs in time, and the curve of the lossy compressor.

    python benchmarks/compression.py [--questions banking77.csv] [--quick] [--json]

Tokens are exact where tiktoken and its vocabulary are on this machine (TIKTOKEN_CACHE_DIR), else estimated; the report
says which. The lossy compressor is judged by whether it keeps the one sentence of a document that a question is about:
with a CSV of utterances and their intents, question and sentence are two utterances of one intent; without, the
question is every other word of the sentence.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import uuid
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from timeit import repeat
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.compression import extractive
from perfkit.tokens.compression.steps import STEPS
from perfkit.tokens.counting import load_exact

CORPUS = (Path(__file__).resolve().parent.parent / "perfkit/testing/corpus.txt").read_text()
SENTENCES = [s.strip() + "." for s in CORPUS.replace("\n", " ").split(".") if len(s) > 20]
MODEL = "gpt-5"
CITIES = ["Zürich", "Köln", "東京", "São Paulo", "Москва", "Paris"]


def record(rng: random.Random, *, uuids: int = 0) -> dict[str, Any]:
    made: dict[str, Any] = {f"ref_{n}": str(uuid.UUID(int=rng.getrandbits(128))) for n in range(uuids)}
    if uuids:
        return made | {"state": rng.choice(["open", "paid", "sent"])}
    return made | {
        "order": rng.randrange(10**6),
        "customer": rng.choice(["Anna", "Ben", "Carla", "Dora"]),
        "total": round(rng.random() * 1000, 2),
        "paid": rng.random() < 0.5,
        "state": rng.choice(["open", "paid", "sent"]),
    }


def nested(rng: random.Random) -> dict[str, Any]:
    """Return an answer of the usual shape of an API: objects in objects, lists of unlike things."""
    return {
        "id": rng.randrange(10**6),
        "customer": {"name": "Anna Smith", "address": {"city": "Paris", "street": "Rue 5", "zip": "75001"}},
        "items": [{"sku": "A1", "count": 2}, {"sku": "B2", "note": "a gift", "price": {"net": 12.5, "tax": 2.1}}],
        "tags": ["new", "vip", None],
        "note": rng.choice(SENTENCES),
    }


def payloads(rng: random.Random) -> dict[str, list[str]]:
    """Return texts by kind."""
    chunks = [" ".join(SENTENCES[n : n + 6]).replace(". ", ".\n") for n in range(0, 60, 2)]
    page = "".join(f"<div class='row x-{n}'><p style='margin:0'>{s}</p></div>" for n, s in enumerate(SENTENCES[:40]))
    return {
        "JSON, default dumps": [json.dumps(nested(rng)) for _ in range(40)],
        "JSON, indented": [json.dumps(nested(rng), indent=2) for _ in range(40)],
        "uniform list, default dumps": [json.dumps([record(rng) for _ in range(50)]) for _ in range(10)],
        "UUID-heavy list": [json.dumps([record(rng, uuids=3) for _ in range(30)]) for _ in range(10)],
        "JSON, not ASCII": [json.dumps([{"city": c, "n": n} for n, c in enumerate(CITIES * 3)]) for _ in range(3)],
        "overlapping chunks": ["\n".join(chunks)],
        "HTML": [f"<html><head><style>p{{}}</style></head><body>{page}</body></html>"],
    }


def savings(optimizer: TokenOptimizer) -> dict[str, float]:
    found = {}
    for kind, texts in payloads(random.Random(3)).items():
        before = sum(optimizer.count_tokens(text, MODEL) for text in texts)
        after = before - sum(optimizer.compress(text, model=MODEL, steps=STEPS).saved_tokens for text in texts)
        found[kind] = 100 * (1 - after / before)
    return found


def pairs(path: Path | None, number: int, rng: random.Random) -> list[tuple[list[str], str, str]]:
    """Return documents of 40 sentences, one of which the question is about, with both."""
    if path is None:
        made = []
        for _ in range(number):
            document = rng.sample(SENTENCES, 40)
            needle = rng.choice(document)
            made.append((document, needle, " ".join(needle.split()[::2])))
        return made
    by_intent: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            by_intent[row["category"]].append(" ".join(row["text"].split()).rstrip(".?!") + ".")
    intents, made = [intent for intent, texts in by_intent.items() if len(texts) > 1], []
    for _ in range(number):
        chosen = rng.sample(intents, 40)
        needle, question = rng.sample(by_intent[chosen[0]], 2)
        document = [needle, *(rng.choice(by_intent[intent]) for intent in chosen[1:])]
        rng.shuffle(document)
        made.append((document, needle, question))
    return made


def curve(path: Path | None, number: int) -> dict[str, float]:
    """Return, by the share of characters kept, in how many documents of 100 the sentence asked for is kept."""
    made = pairs(path, number, random.Random(5))
    found = {}
    for share in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7):
        kept = [needle in extractive(share, question=question)(" ".join(texts)) for texts, needle, question in made]
        found[f"{share:.2f}"] = 100 * fmean(kept)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--questions", type=Path, help="CSV with the columns text and category")
    parser.add_argument("--quick", action="store_true", help="fewer documents")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    optimizer = TokenOptimizer(tracker=PerformanceTracker())
    text = json.dumps([record(random.Random(1)) for _ in range(1000)])
    seconds = min(repeat(lambda: optimizer.compress(text, model=MODEL), number=1, repeat=3))
    found = {
        "counted": "exactly" if load_exact("o200k") is not None else "by estimate",
        "saved_percent": savings(optimizer),
        "us_per_kb": seconds * 1e6 / (len(text) / 1000),
        "needle_kept_percent_by_share": curve(options.questions, 100 if options.quick else 400),
    }
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    print(f"tokens saved, counted {found['counted']}:")
    for kind, percent in savings(optimizer).items():
        print(f"  {kind:28} {percent:5.1f} %")
    print(f"time: {found['us_per_kb']:.0f} us/KB")
    print("lossy: share of text kept, and documents of 100 that keep the sentence asked for:")
    print("  ", found["needle_kept_percent_by_share"])


if __name__ == "__main__":
    main()
