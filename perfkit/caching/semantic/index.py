"""Nearest vectors: all of them in one array, compared at once, and beyond 100,000 of them a graph.

A search works on what was there when it began and holds no lock: rows are only added, and never changed in place.

What a search of many rows costs is reading them. So each row is kept a second time in 96 numbers, its products with
random directions, whose cosines are those of the rows within (1 - c^2) / sqrt(96) (Johnson and Lindenstrauss): these
are compared first, and only rows that come within four times that error of what is looked for are compared themselves.
"""

from __future__ import annotations

import importlib.util
import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

__all__ = ["BRUTE_FORCE_LIMIT", "BruteForce", "Graph", "Near", "VectorIndex", "unit"]

BRUTE_FORCE_LIMIT = 100_000  # vectors: some 2 ms of comparing with 384 dimensions
_FIRST_ROWS = 16
_SKETCH = 96  # numbers of a sketch: 100,000 are read in 2 ms, where 384 take 5 to 13
_FEW = 2048  # rows that are compared at once without
_ERRORS = 4.0  # standard errors of a sketch's cosine: one in 30,000 of the rows at the very threshold is overlooked
_SHARE = 32  # at most one in so many rows is compared after the sketches, those with the best


class Near(NamedTuple):
    """A row that is near, with its cosine."""

    row: int
    similarity: float


class VectorIndex(Protocol):
    """Rows of unit vectors, numbered from 0 in the order they were added."""

    dimensions: int

    def __len__(self) -> int: ...
    def row(self, number: int) -> Vector:
        """Return a row."""
        ...

    def add(self, vector: Vector) -> int:
        """Add a row and return its number; callers see to it that one thread does so at a time."""
        ...

    def near(self, vector: Vector, least: float, most: int) -> list[Near]:
        """Return up to `most` rows with a cosine of at least `least`, the nearest first."""
        ...


def unit(vector: object, dimensions: int | None = None) -> Vector:
    """Return an embedder's vector with length 1.

    Raises:
        ValueError: it is no vector of finite numbers, has another number of dimensions, or no direction.
    """
    found: Vector = np.asarray(vector, dtype=np.float32)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError(f"an embedding must be one list of finite numbers, not of shape {found.shape}")
    if dimensions is not None and len(found) != dimensions:
        raise ValueError(f"the embedder returned {len(found)} dimensions, and {dimensions} before")
    length = float(np.linalg.norm(found))
    if length == 0:
        raise ValueError("an embedding of zeros has no direction")
    return found / np.float32(length)


@lru_cache(maxsize=8)
def _directions(dimensions: int) -> NDArray[np.float32]:
    """Return the random directions of sketches: the same each time."""
    return np.random.default_rng(0).standard_normal((dimensions, _SKETCH), dtype=np.float32)


def _sketch(vector: Vector) -> Vector:
    product: Vector = vector @ _directions(len(vector))
    length = np.linalg.norm(product)
    return product / length if length else product


class _Rows:
    """An array that rows are added to; a full one is copied into one of twice its size, so searches keep theirs."""

    def __init__(self, width: int) -> None:
        self._rows: NDArray[np.float32] = np.empty((_FIRST_ROWS, width), dtype=np.float32)

    def put(self, number: int, row: Vector) -> None:
        if number == len(self._rows):
            grown = np.empty((2 * number, self._rows.shape[1]), dtype=np.float32)
            grown[:number] = self._rows
            self._rows = grown
        self._rows[number] = row

    def first(self, count: int) -> NDArray[np.float32]:
        return self._rows[:count]


class BruteForce:
    """Every row is compared, of many their sketches first."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._rows = _Rows(dimensions)
        self._sketches = _Rows(_SKETCH) if dimensions > 2 * _SKETCH else None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def row(self, number: int) -> Vector:
        """Return a row."""
        row: Vector = self._rows.first(number + 1)[number]
        return row

    def add(self, vector: Vector) -> int:
        """Add a row."""
        self._rows.put(self._count, vector)
        if self._sketches is not None:
            self._sketches.put(self._count, _sketch(vector))
        self._count += 1
        return self._count - 1

    def near(self, vector: Vector, least: float, most: int) -> list[Near]:
        """Return up to `most` rows with a cosine of at least `least`, the nearest first."""
        count = self._count  # before the arrays: they may be replaced by larger ones, never by smaller
        found = self._rows.first(count)
        some = None
        if self._sketches is not None and count > _FEW:
            some = _promising(self._sketches.first(count), _sketch(vector), least)
        similarities = (found if some is None else found[some]) @ vector
        rows = np.flatnonzero(similarities >= least)
        if len(rows) > most:
            rows = rows[np.argpartition(-similarities[rows], most - 1)[:most]]
        ordered = rows[np.argsort(-similarities[rows])]
        return [Near(int(row if some is None else some[row]), float(similarities[row])) for row in ordered]


def _promising(sketches: NDArray[np.float32], sketch: Vector, least: float) -> NDArray[np.intp]:
    """Return the rows whose sketches say that they may be near enough."""
    similarities, most = sketches @ sketch, len(sketches) // _SHARE
    rows = np.flatnonzero(similarities >= least - _ERRORS * (1 - min(1.0, least) ** 2) / math.sqrt(_SKETCH))
    return rows if len(rows) <= most else rows[np.argpartition(-similarities[rows], most)[:most]]


class Graph:
    """An approximate index of usearch (HNSW), for more vectors than can be compared in a few milliseconds.

    Raises:
        ConfigError: usearch is not installed.
    """

    def __init__(self, dimensions: int) -> None:
        if importlib.util.find_spec("usearch") is None:
            raise ConfigError(
                f"more than {BRUTE_FORCE_LIMIT} vectors need usearch: pip install 'perfkit[semantic-large]', or lower "
                "[semantic] max_entries",
                key="semantic.max_entries",
            )
        from usearch.index import Index

        self.dimensions = dimensions
        self._index = Index(ndim=dimensions, metric="ip", dtype="f32")
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def row(self, number: int) -> Vector:
        """Return a row."""
        return np.asarray(self._index.get(number), dtype=np.float32)

    def add(self, vector: Vector) -> int:
        """Add a row."""
        self._index.add(self._count, vector)
        self._count += 1
        return self._count - 1

    def near(self, vector: Vector, least: float, most: int) -> list[Near]:
        """Return up to `most` rows with a cosine of at least `least`, the nearest first."""
        found = self._index.search(vector, most)
        near = [Near(int(row), 1.0 - float(gap)) for row, gap in zip(found.keys, found.distances, strict=True)]
        return [one for one in near if one.similarity >= least]
