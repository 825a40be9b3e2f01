"""Nearest vectors, by comparing all and by a graph."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import pytest
from _parts import needs_module

from perfkit.caching.semantic.index import BruteForce, Graph, unit
from perfkit.errors import ConfigError


def made(kind: Any, count: int = 200, dimensions: int = 32) -> tuple[Any, Any]:
    if kind is Graph:
        needs_module("usearch")
    rows = np.random.default_rng(0).normal(size=(count, dimensions)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = kind(dimensions)
    assert [index.add(row) for row in rows] == list(range(count))
    return index, rows


@pytest.mark.parametrize("kind", [BruteForce, Graph])
def test_the_nearest_come_first_and_none_below_the_least(kind: Any) -> None:
    index, rows = made(kind)
    near = index.near(rows[7], 0.2, 5)
    cosines = rows @ rows[7]
    assert near[0].row == 7
    assert near[0].similarity == pytest.approx(1, abs=1e-3)
    assert [one.similarity for one in near] == pytest.approx(
        sorted(cosines[cosines >= 0.2], reverse=True)[:5], abs=1e-3
    )
    assert [one.row for one in index.near(rows[7], 0.99, 5)] == [7]
    assert len(index) == len(rows)
    assert index.row(3) == pytest.approx(rows[3])


@pytest.mark.parametrize("kind", [BruteForce, Graph])
def test_an_empty_index_finds_nothing(kind: Any) -> None:
    index, _ = made(kind, count=0)
    assert index.near(unit([1.0] * 32), 0.5, 5) == []


@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_of_many_rows_those_near_are_found_by_their_sketches(alike: float) -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(2600, 256)) + alike * rng.normal(size=256)  # half of what rows say is common to all
    rows[2000:2300] = rows[:300] + rng.normal(size=(300, 256)) * rng.uniform(0.05, 0.7, size=(300, 1))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index = BruteForce(256)
    for vector in vectors:
        index.add(vector)
    for least in (0.8, 0.95):
        for number in range(0, 300, 20):
            cosines = vectors @ vectors[number]
            wanted = [int(row) for row in np.argsort(-cosines) if cosines[row] >= least]
            assert [one.row for one in index.near(vectors[number], least, 56)] == wanted


def test_rows_are_found_while_others_are_added() -> None:
    index, rows = made(BruteForce, count=20)
    failures: list[object] = []

    def look() -> None:
        for _ in range(300):
            failures.extend(near for near in index.near(rows[3], 0.999, 1) if near.row != 3)

    reader = threading.Thread(target=look)
    reader.start()
    for row in np.random.default_rng(1).normal(size=(2000, 32)).astype(np.float32):
        index.add(row / 100)
    reader.join()
    assert not failures


def test_without_usearch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"perfkit\[semantic-large\]"):
        Graph(4)


@pytest.mark.parametrize(
    ("vector", "dimensions", "why"),
    [
        ([0.0, 0.0], None, "no direction"),
        ([float("nan"), 1.0], None, "finite"),
        ([[1.0], [2.0]], None, "shape"),
        ([1.0, 2.0], 3, "2 dimensions, and 3 before"),
    ],
)
def test_what_is_no_vector_is_refused(vector: Any, dimensions: int | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        unit(vector, dimensions)


def test_importing_perfkit_imports_no_numpy() -> None:
    import subprocess

    code = "import sys, perfkit; perfkit.chat; print([m for m in sys.modules if m.startswith(('numpy', 'usearch'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
