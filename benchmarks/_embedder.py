"""A stand-in for a neural embedder on labelled questions: its vectors are made up, how often it errs is not.

A question's vector is its intent's direction with noise of its own, a third of it by its words. Some questions lie
between two intents, or with the wrong one. How near and how often wrong the nearest of other questions is on banking77
was fitted to what a small neural model (MiniLM-L6) shows there: at a cosine of 0.85, 0.90 and 0.95 it finds one for 78,
60 and 31 % of the questions, of another intent in 4.3, 3.6 and 2.5 % of these.

What cannot be known without the model is whether its errors can be told beforehand, and that decides how much may be
served. So there are three: PAIRS errs that often between a third of the intents only, where neighbours disagree, which
is the favourable case; ANYWHERE errs that often too, but nothing foretells where; and SELDOM errs anywhere as well, but
only about as often as a `max_error_rate` of 0.01 allows, which is the hardest case for the promise and is not fitted to
any model.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

from perfkit.caching.semantic import HashedNgrams

__all__ = ["ANYWHERE", "PAIRS", "SELDOM", "Errors", "nearest", "simulated_vectors"]

DIMENSIONS = 384
NOISE, SPREAD = 0.43, 0.5  # the length of the noise beside the intent's, and how much it differs
WORDS = 0.35  # of the noise that is of the words
Rows = list[tuple[str, str]]  # question, intent
Vectors = dict[str, Any]


class Errors(NamedTuple):
    """Which questions lie between two intents."""

    share: float  # of the intents that have one they are taken for
    often: float  # of their questions
    near: float  # cosine of two such intents
    far: float  # how far over to the other: exponent of a uniform number


PAIRS = Errors(share=0.3, often=0.25, near=0.5, far=0.7)
ANYWHERE = Errors(share=1.0, often=0.08, near=0.2, far=0.7)
SELDOM = ANYWHERE._replace(often=0.03)


def simulated_vectors(rows: Rows, errors: Errors, *, seed: int) -> Vectors:
    """Return a vector for each question."""
    rng, hashed = np.random.default_rng(seed), HashedNgrams()
    intents = {intent: number for number, intent in enumerate(sorted({intent for _, intent in rows}))}
    centres, partners = _centres(len(intents), errors, rng)
    made: Vectors = {}
    for text, intent in rows:
        own = np.random.default_rng(zlib.crc32(text.encode()) + seed)
        at = intents[intent]
        over = own.random() ** errors.far if own.random() < errors.often and at in partners else 0.0
        centre = _unit((1 - over) * centres[at] + over * centres[partners.get(at, at)])
        noise = np.exp(np.log(NOISE) + SPREAD * own.normal())
        words = np.sqrt(1 - WORDS) * _unit(own.normal(size=DIMENSIONS)) + np.sqrt(WORDS) * _unit(hashed([text])[0])
        made[text] = _unit(centre + noise * words).astype(np.float32)
    return made


def _centres(count: int, errors: Errors, rng: Any) -> tuple[Any, dict[int, int]]:
    centres = rng.normal(size=(count, DIMENSIONS))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    order, partners = rng.permutation(count), {}
    for at in range(0, int(errors.share * (count - 1)), 2):
        one, other = int(order[at]), int(order[at + 1])
        partners[one], partners[other] = other, one
        between = _unit(rng.normal(size=DIMENSIONS))
        for each in (one, other):
            centres[each] = _unit(np.sqrt(errors.near) * between + np.sqrt(1 - errors.near) * centres[each])
    return centres, partners


def _unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


def nearest(
    rows: Rows, vectors: Vectors, *, thresholds: tuple[float, ...] = (0.85, 0.9, 0.95)
) -> dict[str, list[float]]:
    """Return for each threshold how many percent of the questions have a neighbour, and of these have a wrong one."""
    matrix = np.array([vectors[text] for text, _ in rows])
    labels = np.array([intent for _, intent in rows])
    found: dict[str, list[float]] = {}
    best, cosines = [], []
    for at in range(0, len(rows), 500):
        products = matrix[at : at + 500] @ matrix.T
        products[np.arange(len(products)), np.arange(at, at + len(products))] = -1.0
        best.append(products.argmax(axis=1))
        cosines.append(products.max(axis=1))
    wrong, cosine = labels[np.concatenate(best)] != labels, np.concatenate(cosines)
    for threshold in thresholds:
        near = cosine >= threshold
        found[f"{threshold}"] = [100 * float(near.mean()), 100 * float(wrong[near].mean()) if near.any() else 0.0]
    return found
