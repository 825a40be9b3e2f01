"""Serve streams of real questions through the semantic cache, and count what was wrong.

    python benchmarks/semantic.py [--data DIR] [--vectors FILE.npz] [--quick] [--json]

DIR holds banking77_train.csv (text, category) and clinc150_dev.json (lists of [text, intent]); a question has the same
answer as another when its intent is the same. Half of each is held out by a fixed shuffle: what the error bound knows
beforehand was fitted on the other halves, and only the held-out ones are streamed here. FILE.npz holds `texts` and
`vectors` of a real embedding model; without it stand-ins for one are used (see _embedder.py for what they show and what
they cannot), and hashed n-grams on banking77. How strongly the bound's prior holds was chosen on these very streams.
Without DIR only simulated streams run: points around the centres of topics, some of them near each other.

Streams: each set alone; both mixed; drift, one set and then the other; and hard, where one in five questions is of a
pair made to differ in a number, a date, a name, a negation or who does what. Each is served under max_error_rate 0.01,
judged by the intents; one in ten servable answers is asked again. `static` is a bare threshold on the same stream: at
0.95, and the lowest one above it that is not wrong more often than we were.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded

import numpy as np  # noqa: E402
from _pairs import CLASSES, pairs  # noqa: E402

from benchmarks._embedder import ANYWHERE, PAIRS, SELDOM, nearest, simulated_vectors  # noqa: E402
from perfkit.caching.semantic import HashedNgrams, SemanticCache, disagreement, upper_bound  # noqa: E402
from perfkit.caching.semantic.index import BruteForce  # noqa: E402
from perfkit.metrics import PerformanceTracker  # noqa: E402
from perfkit.values import ChatResponse, Usage  # noqa: E402

RATE = 0.01
# What is run beside the streams of the first stand-in: where it tells most, as each takes 5 s.
STREAMS_OF = {
    "hashed n-grams": ("banking77",),
    "errors anywhere": ("banking77",),
    "errors anywhere, seldom": ("banking77", "clinc150", "drift to clinc150", "hard"),
}
Stream = list[tuple[str, str]]  # question, answer
Embed = Callable[[str], Any]


def banking77(path: Path) -> Stream:
    with path.open(encoding="utf-8", newline="") as lines:
        return [(row["text"], "bank " + row["category"]) for row in csv.DictReader(lines)]


def clinc150(path: Path) -> Stream:
    splits = json.loads(path.read_text(encoding="utf-8"))
    return [(text, "clinc " + intent) for split in splits.values() for text, intent in split]


def halves(rows: Stream) -> tuple[Stream, Stream]:
    """Return what may be tuned on, and what is held out."""
    shuffled = random.Random(77).sample(rows, len(rows))
    return shuffled[: len(rows) // 2], shuffled[len(rows) // 2 :]


def with_pairs(rows: Stream, chosen: random.Random) -> Stream:
    made = [(text, "pair " + text) for kind in CLASSES for pair in pairs(kind) for text in pair]
    chosen.shuffle(made)
    mixed = rows + made[: len(rows) // 4]
    chosen.shuffle(mixed)
    return mixed


def real_streams(folder: Path) -> dict[str, Stream]:
    chosen = random.Random(5)
    bank, clinc = (
        halves(banking77(folder / "banking77_train.csv"))[1],
        halves(clinc150(folder / "clinc150_dev.json"))[1],
    )
    mixed = bank + clinc
    return {
        "banking77": bank,
        "clinc150": clinc,
        "mixed": chosen.sample(mixed, len(mixed)),
        "drift to banking77": clinc + bank,
        "drift to clinc150": bank + clinc,
        "hard": with_pairs(clinc, chosen),
    }


def simulated(count: int, *, drift: bool, apart: float) -> tuple[dict[str, Stream], dict[str, Any]]:
    """Return a stream of points around 60 topics and their twins: one question in ten, after a drift eight in ten."""
    made = np.random.default_rng(3)
    vectors, rows = {}, []
    centres = made.normal(size=(120, 64))
    centres[60:] = centres[:60] + apart * made.normal(size=(60, 64))
    for number in range(count):
        twins = made.random() < (0.8 if drift and number > count // 2 else 0.1)
        topic = int(made.integers(60)) + (60 if twins and made.random() < 0.5 else 0)
        text = "x" * (number + 1)  # words that no guard can read
        vectors[text] = centres[topic] + 0.25 * made.normal(size=64)
        rows.append((text, str(topic)))
    return {f"simulated{' drift' if drift else ''}, twins {apart} apart": rows}, vectors


def answer(intent: str) -> ChatResponse:
    return ChatResponse(text=intent, usage=Usage(1, 1), model="m", provider="p", cost=0.001)


def served(stream: Stream, embed: Embed, *, seed: int) -> dict[str, float]:
    """Return what happened to a stream."""
    made = SemanticCache(
        embed=lambda texts: [embed(text) for text in texts],
        judge=lambda cached, fresh: cached.text == fresh.text,
        tracker=PerformanceTracker(),
        rng=random.Random(seed),
        max_error_rate=RATE,
    )
    answers: dict[str, str] = {}
    hits = wrong = 0
    for number, (text, intent) in enumerate(stream):
        question = made.ask("partition", "route", text)
        assert question is not None
        found = made.search(question)
        if found is not None and found.action == "serve":
            hits += 1
            wrong += answers[found.key] != intent
            continue
        like = None
        if found is not None and made.learn(question, found, answer(answers[found.key]), answer(intent)):
            like = found
        answers[str(number)] = intent
        made.add(question, str(number), like=like)
    stats = made.stats()
    return {
        "questions": len(stream),
        "hit_percent": 100 * hits / len(stream),
        "wrong": wrong,
        "wrong_percent": 100 * wrong / hits if hits else 0.0,
        "wrong_percent_upper_95": 100 * upper_bound(wrong, hits, confidence=0.95),
        "asked_again_percent": 100 * stats["verified"] / len(stream),
        "own_estimate_percent": 100 * (stats["wrong_rate"] or 0.0),
    }


def static(stream: Stream, embed: Embed, thresholds: list[float]) -> list[tuple[float, int, int]]:
    """Return for each bare threshold how many were served, and how many of them wrong."""
    vectors = np.array([embed(text) for text, _ in stream], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = np.zeros((len(thresholds), len(stream)), dtype=bool)
    hits, wrong = [0] * len(thresholds), [0] * len(thresholds)
    for at, vector in enumerate(vectors):
        near = vectors[:at] @ vector
        rows = np.flatnonzero(near >= thresholds[0])
        rows = rows[np.argsort(-near[rows])]
        for number, threshold in enumerate(thresholds):
            found = rows[kept[number, rows] & (near[rows] >= threshold)]
            if len(found):
                hits[number] += 1
                wrong[number] += stream[int(found[0])][1] != stream[at][1]
            else:
                kept[number, at] = True
    return list(zip(thresholds, hits, wrong, strict=True))


def compared(stream: Stream, embed: Embed, *, seed: int) -> dict[str, float]:
    ours = served(stream, embed, seed=seed)
    bare = static(stream, embed, [0.95, 0.96, 0.97, 0.98, 0.99])
    at_95 = bare[0]
    not_worse = [row for row in bare if row[1] and 100 * row[2] / row[1] <= max(ours["wrong_percent"], 1e-9)]
    hits = 100 * max((row[1] for row in not_worse), default=0) / len(stream)
    return {
        **ours,
        "static_95_hit_percent": 100 * at_95[1] / len(stream),
        "static_95_wrong_percent": 100 * at_95[2] / at_95[1] if at_95[1] else 0.0,
        "static_at_our_error_hit_percent": hits,
        **({"hits_to_static": ours["hit_percent"] / hits} if hits else {}),
    }


def embedder(path: Path | None) -> Embed:
    hashed = HashedNgrams()
    if path is None:
        return lambda text: hashed([text])[0]
    with np.load(path) as kept:
        known = dict(zip(kept["texts"].tolist(), kept["vectors"].astype(np.float32), strict=True))
    return lambda text: known[text]


def refused_pairs() -> dict[str, float]:
    return {
        kind: 100 * sum(disagreement(a, b) is not None for a, b in pairs(kind)) / len(pairs(kind)) for kind in CLASSES
    }


def look_up(count: int, dimensions: int = 384) -> dict[str, float]:
    """Return the milliseconds of processor time of one look-up among `count` vectors, and of comparing them alone."""
    rows = np.random.default_rng(1).normal(size=(count, dimensions)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    made = SemanticCache(
        embed=lambda texts: [rows[int(text)] for text in texts], tracker=PerformanceTracker(), max_entries=count + 1
    )
    for number in range(count):
        question = made.ask("p", "r", str(number))
        assert question is not None
        made.add(question, str(number))
    wanted = [question for number in range(20) if (question := made.ask("p", "r", str(number * 7))) is not None]
    whole, bare = [], []
    matrix = BruteForce(dimensions)
    for row in rows:
        matrix.add(row)
    for question in wanted:
        begun = time.process_time()
        assert made.search(question) is not None
        whole.append(time.process_time() - begun)
        begun = time.process_time()
        matrix.near(question.vector, 0.95, 7)
        bare.append(time.process_time() - begun)
    return {"entries": count, "search_ms": 1e3 * sorted(whole)[10], "bare_product_ms": 1e3 * sorted(bare)[10]}


def on_real_texts(options: argparse.Namespace) -> dict[str, Any]:
    """Return what became of the streams of the two sets, and how the stand-ins for a neural embedder err."""
    folder, found = options.data, {}
    embedders = {options.vectors.stem if options.vectors else "hashed n-grams": embedder(options.vectors)}
    errors: dict[str, Any] = {}
    if options.vectors is None:
        bank, clinc = banking77(folder / "banking77_train.csv"), clinc150(folder / "clinc150_dev.json")
        for name, kind in (
            ("errors in pairs", PAIRS),
            ("errors anywhere", ANYWHERE),
            ("errors anywhere, seldom", SELDOM),
        ):
            known = simulated_vectors(bank, kind, seed=1) | simulated_vectors(clinc, kind, seed=2)
            errors[name] = nearest(bank, known)
            embedders[name] = _known_or_hashed(known)
    for name, stream in real_streams(folder).items():
        for of, embed in embedders.items():
            if options.stream in (None, name) and name in STREAMS_OF.get(of, (name,)):
                found[f"{name}, {of}"] = compared(stream, embed, seed=1)
    return {"streams": found, "simulated_embedder": errors}


def _known_or_hashed(known: dict[str, Any]) -> Embed:
    hashed = embedder(None)
    return lambda text: known[text] if text in known else hashed(text)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"streams": {}}
    if options.data is not None:
        found = on_real_texts(options)
    for drift, apart in ((False, 0.8), (True, 0.8), (False, 0.45)):
        made, vectors = simulated(3000 if options.quick else 8000, drift=drift, apart=apart)
        for name, stream in made.items():
            if options.stream in (None, name):
                found["streams"][name] = compared(stream, vectors.__getitem__, seed=2)
    found["pairs_refused_percent"] = refused_pairs()
    found["look_up"] = look_up(10_000 if options.quick else 100_000)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="directory of banking77_train.csv and clinc150_dev.json")
    parser.add_argument("--vectors", type=Path, help="npz of texts and vectors")
    parser.add_argument("--stream", help="only this one")
    parser.add_argument("--quick", action="store_true", help="shorter simulated streams, 10,000 entries")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    found = measured(options)
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    for name, row in found["streams"].items():
        print(name, " ".join(f"{key}={value:.2f}" for key, value in row.items()), flush=True)
    print("pairs refused, percent:", " ".join(f"{k}={v:.1f}" for k, v in found["pairs_refused_percent"].items()))
    print("look-up:", " ".join(f"{key}={value:.2f}" for key, value in found["look_up"].items()))


if __name__ == "__main__":
    main()
