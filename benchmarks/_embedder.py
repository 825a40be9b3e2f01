"""Embedders that need no download, for labelled questions: one learned from texts, and stand-ins that err as told.

`Learned` is real, and small: hashed words and runs of letters, weighted by how rare they are, brought to 128 dimensions
and stretched where the questions of one intent do not differ. It learns from the intents that are tuned on and is asked
about others, so where it errs on these is its own doing.

`Simulated` makes its vectors up, but how often they err is known. A question's vector is its intent's direction with
noise of its own, a third of it by its words. Some questions lie between two intents, or with the wrong one, however
they are put. How near and how often wrong the nearest of other questions is on banking77 was fitted to what a small
neural model (MiniLM-L6) shows there: at a cosine of 0.85, 0.90 and 0.95 it finds one for 78, 60 and 31 % of the
questions, of another intent in 4.3, 3.6 and 2.5 % of these. What cannot be known without the model is whether its
errors can be told beforehand, and that decides how much may be served. PAIRS errs between a third of the intents only,
where neighbours disagree: of MiniLM's own errors, those looked at are of this kind. ANYWHERE errs that often too, but
nothing foretells where, and SELDOM likewise, about as often as a `max_error_rate` of 0.01 allows: the hardest case.
"""

from __future__ import annotations

import re
import zlib
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from perfkit.caching.semantic import HashedNgrams

__all__ = ["ANYWHERE", "PAIRS", "SELDOM", "Asked", "Errors", "Learned", "nearest", "simulated_vectors"]

DIMENSIONS = 384
NOISE, SPREAD = 0.43, 0.5  # the length of the noise beside the intent's, and how much it differs
WORDS = 0.35  # of the noise that is of the words
PLACES = 4096  # that words are hashed to, and as many for runs of letters
KEPT = 128  # dimensions of what is learned
AT_ONCE = 1000  # texts
WORD = re.compile(r"\w+")
Vectors = dict[str, Any]


class Asked(NamedTuple):
    """A question as it was put."""

    text: str
    answer: str  # its intent
    origin: str  # the question it puts in other words, or itself


class Learned:
    """Vectors learned from the intents of some questions.

    Args:
        rows: the questions.
    """

    def __init__(self, rows: list[Asked]) -> None:
        found = _counted([row.text for row in rows])
        intents = np.unique([row.answer for row in rows], return_inverse=True)[1]
        often = (found > 0).sum(axis=0)
        self._rarity = (np.log((1 + len(rows)) / (1 + often)) * (often > 1)).astype(np.float32)
        found = self._weighted(found)
        self._axes = _main_axes(found)
        placed = _units(found @ self._axes)
        centres = np.stack([placed[intents == intent].mean(axis=0) for intent in range(intents.max() + 1)])
        within = np.cov((placed - centres[intents]).T, bias=True)
        self._stretch = np.linalg.inv(0.9 * within + 0.1 * np.trace(within) / KEPT * np.eye(KEPT))
        self._middle = (placed @ self._stretch).mean(axis=0)

    def _weighted(self, found: Any) -> Any:
        found *= self._rarity
        for half in (slice(0, PLACES), slice(PLACES, None)):
            found[:, half] /= np.linalg.norm(found[:, half], axis=1, keepdims=True) + 1e-9
        return found

    def vectors(self, texts: list[str]) -> Vectors:
        """Return a vector for each text."""
        made: Vectors = {}
        for at in range(0, len(texts), AT_ONCE):
            some = texts[at : at + AT_ONCE]
            placed = _units(self._weighted(_counted(some)) @ self._axes)
            made |= zip(some, _units(placed @ self._stretch - self._middle).astype(np.float32), strict=True)
        return made


def _counted(texts: list[str]) -> Any:
    """Return which words, beginnings of words, pairs of them and runs of letters each text has."""
    found = np.zeros((len(texts), 2 * PLACES), dtype=np.float32)
    for row, text in zip(found, texts, strict=True):
        words = WORD.findall(text.lower())
        stems = [word[:5] for word in words]
        whole = [f"w {word}" for word in words] + [f"s {stem}" for stem in stems]
        whole += [f"p {one} {other}" for one, other in pairwise(stems)]
        padded = f" {' '.join(words)} "
        runs = [padded[at : at + size] for size in (3, 4, 5) for at in range(len(padded) - size + 1)]
        row[[zlib.crc32(token.encode()) % PLACES for token in whole]] = 1
        row[[PLACES + zlib.crc32(run.encode()) % PLACES for run in runs]] = 1
    return found


def _main_axes(rows: Any) -> Any:
    """Return the directions in which rows differ most, nearly (a randomised singular value decomposition)."""
    axes = np.random.default_rng(0).normal(size=(rows.shape[1], KEPT + 32)).astype(np.float32)
    for _ in range(3):
        axes, _ = np.linalg.qr(rows.T @ (rows @ axes))
    return (axes @ np.linalg.svd(rows @ axes, full_matrices=False)[2].T)[:, :KEPT]


def _units(rows: Any) -> Any:
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)


class Errors(NamedTuple):
    """Which questions lie between two intents."""

    share: float  # of the intents that have one they are taken for
    often: float  # of their questions
    near: float  # cosine of two such intents
    far: float  # how far over to the other: exponent of a uniform number


PAIRS = Errors(share=0.3, often=0.25, near=0.5, far=0.7)
ANYWHERE = Errors(share=1.0, often=0.08, near=0.2, far=0.7)
SELDOM = ANYWHERE._replace(often=0.03)


def simulated_vectors(rows: list[Asked], errors: Errors, *, seed: int) -> Vectors:
    """Return a made-up vector for each question."""
    rng, hashed = np.random.default_rng(seed), HashedNgrams()
    intents = {intent: number for number, intent in enumerate(sorted({row.answer for row in rows}))}
    centres, partners = _centres(len(intents), errors, rng)
    made: Vectors = {}
    for text, intent, origin in rows:
        leaning, own = (np.random.default_rng(zlib.crc32(said.encode()) + seed) for said in (origin, "of " + text))
        at = intents[intent]
        strays = leaning.random() < errors.often and at in partners
        over = leaning.random() ** errors.far if strays else 0.0
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
    rows: list[Asked], vectors: Vectors, *, thresholds: tuple[float, ...] = (0.85, 0.9, 0.95)
) -> dict[str, list[float]]:
    """Return for each threshold how many percent of the questions have a neighbour, and of these have a wrong one."""
    matrix = np.array([vectors[row.text] for row in rows])
    labels = np.array([row.answer for row in rows])
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
