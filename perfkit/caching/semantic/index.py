"""Nearest vectors: all of them in one array, compared at once, and beyond 100,000 of them a graph.

A search works on what was there when it began and holds no lock: rows are only added, and never changed in place.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

__all__ = ["BRUTE_FORCE_LIMIT", "BruteForce", "Graph", "Near", "VectorIndex", "unit"]

BRUTE_FORCE_LIMIT = 100_000  # vectors: 5 ms of comparing with 384 dimensions
_FIRST_ROWS = 16


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


class BruteForce:
    """Every row is compared."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._rows: NDArray[np.float32] = np.empty((_FIRST_ROWS, dimensions), dtype=np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def row(self, number: int) -> Vector:
        """Return a row."""
        row: Vector = self._rows[number]
        return row

    def add(self, vector: Vector) -> int:
        """Add a row; a full array is copied into one of twice its size, so that searches under way keep theirs."""
        if self._count == len(self._rows):
            grown = np.empty((2 * self._count, self._rows.shape[1]), dtype=np.float32)
            grown[: self._count] = self._rows
            self._rows = grown
        self._rows[self._count] = vector
        self._count += 1
        return self._count - 1

    def near(self, vector: Vector, least: float, most: int) -> list[Near]:
        """Return up to `most` rows with a cosine of at least `least`, the nearest first."""
        count = self._count  # before the array: it may be replaced by a larger one, never by a smaller
        similarities = self._rows[:count] @ vector
        rows = np.flatnonzero(similarities >= least)
        if len(rows) > most:
            rows = rows[np.argpartition(-similarities[rows], most - 1)[:most]]
        ordered = rows[np.argsort(-similarities[rows])]
        return [Near(int(row), float(similarities[row])) for row in ordered]


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
