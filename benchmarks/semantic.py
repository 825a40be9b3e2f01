"""Serve streams of real questions through the semantic cache, and count what was wrong.

    python benchmarks/semantic.py [--data DIR] [--vectors FILE.npz] [--tuned] [--quick] [--json]

DIR holds banking77_train.csv (text, category) and clinc150_dev.json (lists of [text, intent]); a question has the same
answer as another when its intent is the same. Nothing was tuned on the intents that are streamed (see _streams.py);
with --tuned it is the other ones, those the bound's prior and levels were chosen on. The embedders are one learned from
texts of the other intents, and stand-ins whose errors are known (see _embedder.py); FILE.npz holds `texts` and
`vectors` of another. Without DIR only simulated streams run: points around the centres of topics, some near each other.

Streams, each question three times in other words: each set alone; both mixed; drift, one set and then the other; and
hard, with pairs made to differ in a number, a date, a name, a negation or who does what. "Once" is a set as it stands,
each question asked one time only: no match is in the same words. Each is served under
max_error_rate 0.01, judged by the intents. `bare` is a threshold alone, without guards: at 0.95, and the one of several
that served most on this very stream while it was not wrong more often than we were (of those that were wrong at most
1 % where we were not at all). "late" is the last half of a stream, when most was learned.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded

import numpy as np
from _pairs import CLASSES, pairs

from benchmarks._embedder import ANYWHERE, PAIRS, SELDOM, Asked, Learned, nearest, simulated_vectors
from benchmarks._streams import Stream, chosen, sets, streams
from perfkit.caching.semantic import HashedNgrams, SemanticCache, disagreement, upper_bound
from perfkit.caching.semantic.index import BruteForce
from perfkit.metrics import PerformanceTracker
from perfkit.values import ChatResponse, Usage

RATE = 0.01
TIMES = 3  # that a question is asked
THRESHOLDS = (0.90, 0.93, 0.95, 0.96, 0.97, 0.98, 0.99)
AT_ONCE = 256  # questions compared with all before them
FEW = ("banking77", "clinc150")
ONCE = ("banking77 once", "clinc150 once")
MOST = (*FEW, "mixed", "drift to clinc150", "hard")
# Which streams of an embedder are run.
STREAMS_OF = {
    "learned": (*MOST, *ONCE),
    "hashed n-grams": FEW[:1],
    "errors in pairs": (*MOST, *ONCE),
    "errors anywhere": FEW,
    "errors anywhere, seldom": FEW,
}
Vectors = dict[str, Any]


def simulated(count: int, *, drift: bool, apart: float) -> tuple[dict[str, Stream], Vectors]:
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
        rows.append(Asked(text, str(topic), text))
    return {f"simulated{' drift' if drift else ''}, twins {apart} apart": rows}, vectors


def answer(intent: str) -> ChatResponse:
    return ChatResponse(text=intent, usage=Usage(1, 1), model="m", provider="p", cost=0.001)


def served(stream: Stream, vectors: Vectors, *, seed: int) -> dict[str, float]:
    """Return what happened to a stream."""
    made = SemanticCache(
        embed=lambda texts: [vectors[text] for text in texts],
        judge=lambda cached, fresh: cached.text == fresh.text,
        tracker=PerformanceTracker(),
        rng=random.Random(seed),
        max_error_rate=RATE,
    )
    answers: dict[str, str] = {}
    hits, late, wrong = 0, 0, 0
    for number, (text, intent, _) in enumerate(stream):
        question = made.ask("partition", "route", text)
        assert question is not None
        found = made.search(question)
        if found is not None and found.action == "serve":
            hits += 1
            late += number >= len(stream) // 2
            wrong += answers[found.key] != intent
            continue
        like = None
        if found is not None and made.learn(question, found, answer(answers[found.key]), answer(intent)):
            like = found
        answers[str(number)] = intent
        made.add(question, str(number), like=like)
    return {
        "questions": len(stream),
        "hits": hits,
        "hit_percent": 100 * hits / len(stream),
        "late_hit_percent": 200 * late / len(stream),
        "wrong": wrong,
        **wrongness(wrong, hits),
        "asked_again_percent": 100 * made.stats()["verified"] / len(stream),
    }


def wrongness(wrong: int, hits: int) -> dict[str, float]:
    return {
        "wrong_percent": 100 * wrong / hits if hits else 0.0,
        "wrong_percent_upper_95": 100 * upper_bound(wrong, hits, confidence=0.95),
    }


def bare(stream: Stream, vectors: Vectors) -> list[tuple[float, int, int, int]]:
    """Return for each threshold alone how many were served, how many of them late, and how many of them wrong."""
    matrix = np.array([vectors[row.text] for row in stream], dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    kept = np.zeros((len(THRESHOLDS), len(stream)), dtype=bool)
    hits, late, wrong = ([0] * len(THRESHOLDS) for _ in range(3))
    for at in range(len(stream)):
        if at % AT_ONCE == 0:
            cosines = matrix[at : at + AT_ONCE] @ matrix[: at + AT_ONCE].T
        near = cosines[at % AT_ONCE, :at]
        rows = np.flatnonzero(near >= THRESHOLDS[0])
        rows = rows[np.argsort(-near[rows])]
        for number, threshold in enumerate(THRESHOLDS):
            found = rows[kept[number, rows] & (near[rows] >= threshold)]
            if len(found):
                hits[number] += 1
                late[number] += at >= len(stream) // 2
                wrong[number] += stream[int(found[0])].answer != stream[at].answer
            else:
                kept[number, at] = True
    return list(zip(THRESHOLDS, hits, late, wrong, strict=True))


def compared(stream: Stream, vectors: Vectors, *, seed: int) -> dict[str, float]:
    ours, rows, count = served(stream, vectors, seed=seed), bare(stream, vectors), len(stream)
    _, hits, _, wrong = rows[THRESHOLDS.index(0.95)]
    allowed = ours["wrong_percent"] / 100 if ours["wrong"] else RATE
    nothing = (1.0, 0, 0, 0)
    equal = max((row for row in rows if row[3] <= allowed * row[1]), key=lambda row: row[1], default=nothing)
    return {
        **ours,
        "bare_95_hit_percent": 100 * hits / count,
        "bare_95_wrong_percent": wrongness(wrong, hits)["wrong_percent"],
        "bare_equal_threshold": equal[0],
        "bare_equal_hit_percent": 100 * equal[1] / count,
        "bare_equal_wrong_percent": wrongness(equal[3], equal[1])["wrong_percent"],
        "bare_equal_late_hit_percent": 200 * equal[2] / count,
    }


def pooled(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return what became of several streams as if they were one."""
    hits, wrong, questions = (int(sum(row[key] for row in rows)) for key in ("hits", "wrong", "questions"))
    return {"questions": questions, "hit_percent": 100 * hits / questions, "wrong": wrong, **wrongness(wrong, hits)}


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
    """Return what became of the streams of the two sets, and how the embedders err."""
    known = sets(options.data)
    held = {name: chosen(rows, (0,) if options.tuned else (1,)) for name, rows in known.items()}
    rows = streams(held, times=TIMES, seed=9 if options.tuned else 10)
    every = list({row.text: row for stream in rows.values() for row in stream}.values())
    found: dict[str, Any] = {"streams": {}, "pooled": {}, "embedders": {}}
    for of, vectors in embedders(known, every, options):
        found["embedders"][of] = {name: nearest(rows, vectors) for name, rows in held.items()}
        made = []
        for name in STREAMS_OF.get(of, tuple(rows)):
            if options.stream in (None, name):
                made.append(compared(rows[name], vectors, seed=1))
                found["streams"][f"{name}, {of}"] = made[-1]
                print(f"{name}, {of}:", json.dumps(made[-1]), file=sys.stderr)
        if made:
            found["pooled"][of] = pooled(made)
    return found


def embedders(known: dict[str, Stream], every: Stream, options: argparse.Namespace) -> Iterator[tuple[str, Vectors]]:
    """Yield the name of each embedder and its vectors of `every` question."""
    texts, hashed = [row.text for row in every], HashedNgrams()
    if options.vectors is not None:
        with np.load(options.vectors) as kept:
            yield options.vectors.stem, dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))
        return
    others = [row for rows in known.values() for row in chosen(rows, (1,) if options.tuned else (0,))]
    yield "learned", Learned(others).vectors(texts)
    yield (
        "hashed n-grams",
        {text: vector / np.linalg.norm(vector) for text, vector in zip(texts, hashed(texts), strict=True)},
    )
    for name, errors in (
        ("errors in pairs", PAIRS),
        ("errors anywhere", ANYWHERE),
        ("errors anywhere, seldom", SELDOM),
    ):
        made: Vectors = {row.text: hashed([row.text])[0] for row in every if row.answer.startswith("pair ")}
        for number, kind in enumerate(("bank ", "clinc ")):
            of = [row for row in every if row.answer.startswith(kind)]
            made |= simulated_vectors(of, errors, seed=(21 if options.tuned else 101) + number)
        yield name, made


def measured(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"streams": {}}
    if options.data is not None:
        found = on_real_texts(options)
    for drift, apart in ((False, 0.8), (True, 0.8), (False, 0.45)):
        made, vectors = simulated(3000 if options.quick else 8000, drift=drift, apart=apart)
        for name, stream in made.items():
            if options.stream in (None, name):
                found["streams"][name] = compared(stream, vectors, seed=2)
    found["pairs_refused_percent"] = refused_pairs()
    found["look_up"] = look_up(10_000 if options.quick else 100_000)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="directory of banking77_train.csv and clinc150_dev.json")
    parser.add_argument("--vectors", type=Path, help="npz of texts and vectors")
    parser.add_argument("--tuned", action="store_true", help="the intents that were tuned on")
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
    for name, row in found.get("pooled", {}).items():
        print("all streams,", name, " ".join(f"{key}={value:.2f}" for key, value in row.items()))
    print("pairs refused, percent:", " ".join(f"{k}={v:.1f}" for k, v in found["pairs_refused_percent"].items()))
    print("look-up:", " ".join(f"{key}={value:.2f}" for key, value in found["look_up"].items()))


if __name__ == "__main__":
    main()
