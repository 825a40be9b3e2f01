from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.metrics.sketch import QUANTILES, ZERO, Sketch

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUND = 0.00542  # of scale 6: (2**(1/64) - 1) / (2**(1/64) + 1)


def sketch_of(values: Sequence[float], batch: int = 256) -> Sketch:
    sketch = Sketch()
    for start in range(0, len(values), batch):
        sketch.add(values[start : start + batch])
    return sketch


def union(*parts: Sketch) -> Sketch:
    result = Sketch()
    for part in parts:
        result.merge(part)
    return result


def state(sketch: Sketch) -> Any:
    data = sketch.dump()
    return {key: sorted(value) if isinstance(value, list) else value for key, value in data.items()}


def nearest_rank(values: Sequence[float], per_mille: int) -> float:
    return sorted(values)[max(1, math.ceil(per_mille * len(values) / 1000)) - 1]


def lognormal(n: int) -> list[float]:
    """Latencies of LLM calls: median 1.35 s, a long tail."""
    source = random.Random(7)
    return [source.lognormvariate(0.3, 0.9) for _ in range(n)]


def gap(n: int, low_share: float) -> list[float]:
    """Cache hits at 2 ms and calls at 2.5 s in one series, nothing between."""
    source = random.Random(8)
    return [source.gauss(0.002, 0.0002) if source.random() < low_share else source.gauss(2.5, 0.4) for _ in range(n)]


DISTRIBUTIONS = {
    "lognormal": lognormal(100_000),
    "bimodal": gap(100_000, 0.3),
    "median at the edge of the gap": gap(100_000, 0.495),
    "uniform and tiny": [1e-9 * i for i in range(1, 5000)],
    "huge": [1e300 * i for i in range(1, 5000)],
    "denormal": [5e-320 * i for i in range(1, 500)],
    "negative too": [float(i) for i in range(-3000, 5000)],
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_quantile_is_within_the_bound(name: str) -> None:
    values = DISTRIBUTIONS[name]
    per_mille = range(1, 1001)
    found = sketch_of(values).quantiles(per_mille)
    ordered = sorted(values)
    worst = 0.0
    for p, estimate in zip(per_mille, found, strict=True):
        exact = ordered[max(1, -(-p * len(values) // 1000)) - 1]
        worst = max(worst, abs(estimate - exact) / abs(exact) if exact else abs(estimate))
    assert worst <= (0.1 if name == "denormal" else BOUND)  # below 2.2e-308 floats themselves are coarser
    assert worst > 0.0


def test_count_sum_minimum_and_maximum_are_exact() -> None:
    values = [float(value) for value in random.Random(3).choices(range(-1000, 10_000), k=5000)]
    stats = sketch_of(values).stats()
    assert (stats["count"], stats["sum"], stats["min"], stats["max"]) == (
        5000,
        sum(values),
        min(values),
        max(values),
    )
    assert stats["avg"] == sum(values) / 5000


@pytest.mark.parametrize("n", [1, 2, 3, 10, 19, 20, 21, 63, 64])
def test_small_counts_are_exact_by_nearest_rank(n: int) -> None:
    values = random.Random(n).sample([0.1 * i for i in range(1000)], n)
    stats = sketch_of(values, batch=7).stats()
    assert {name: stats[name] for name in QUANTILES} == {
        name: nearest_rank(values, per_mille) for name, per_mille in QUANTILES.items()
    }


def test_ranks_suffer_no_rounding() -> None:
    """In floats 0.07 * 100 is 7.000000000000001, whose ceiling would be one too many."""
    assert Sketch().quantiles([]) == []
    hundred = sketch_of([float(i) for i in range(1, 51)])
    assert hundred.quantiles(range(20, 1001, 20)) == [float(i) for i in range(1, 51)]


def test_first_and_last_rank_are_exact_for_any_count() -> None:
    values = lognormal(500)
    low, high = sketch_of(values).quantiles([1, 999])
    assert (low, high) == (min(values), max(values))


def test_no_estimate_lies_outside_the_values() -> None:
    assert set(sketch_of([1.5] * 100).quantiles(range(1, 1001, 10))) == {1.5}


def test_no_values_no_statistics() -> None:
    assert Sketch().stats() == {}


def test_buckets_are_those_of_opentelemetry_at_scale_6() -> None:
    """Their index is ours less one: values in (2**(i/64), 2**((i+1)/64)] have index i."""
    sketch = sketch_of([2.0, 1.0, 1.5, 0.3] * 20)
    indices = dict(sketch.dump()["buckets"])
    assert indices == {64: 20, 0: 20, math.ceil(64 * math.log2(1.5)): 20, math.ceil(64 * math.log2(0.3)): 20}


integers = st.lists(st.integers(-(10**6), 10**6).map(float), max_size=150)  # their sums are exact in floats


@given(integers, integers)
def test_merge_is_commutative(a: list[float], b: list[float]) -> None:
    assert state(union(sketch_of(a), sketch_of(b))) == state(union(sketch_of(b), sketch_of(a))) if a or b else True


@given(integers, integers, integers)
def test_merge_is_associative(a: list[float], b: list[float], c: list[float]) -> None:
    x, y, z = sketch_of(a), sketch_of(b), sketch_of(c)
    assert state(union(union(x, y), z)) == state(union(x, union(y, z)))


@given(st.lists(integers, max_size=5))
def test_merge_equals_the_sketch_of_the_union(parts: list[list[float]]) -> None:
    merged = union(*map(sketch_of, parts))
    whole = sketch_of([value for part in parts for value in part])
    assert state(merged) == state(whole)
    assert merged.stats() == whole.stats()


finite = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=150)


@given(finite)
def test_any_finite_floats_are_counted_and_estimated_between_the_extremes(values: list[float]) -> None:
    sketch = sketch_of(values, batch=50)
    assert (sketch.count, sketch.minimum, sketch.maximum) == (len(values), min(values), max(values))
    assert all(min(values) <= estimate <= max(values) for estimate in sketch.quantiles(range(1, 1001, 37)))


@given(finite)
def test_packed_and_dumped_sketches_are_the_same(values: list[float]) -> None:
    sketch = sketch_of(values)
    before = state(sketch)
    sketch.pack()
    assert state(sketch) == before
    loaded = Sketch.load(json.loads(json.dumps(sketch.dump())))
    assert state(loaded) == before
    loaded.add([1.0])
    sketch.add([1.0])
    assert state(loaded) == state(sketch)


def test_packing_saves_memory() -> None:
    sketch = sketch_of(lognormal(5000))
    before = sketch.nbytes
    sketch.pack()
    assert sketch.nbytes < before / 5


@given(
    st.lists(
        st.sampled_from([1e-9, 0.25, 1.0, 1.001, 1.003, 1.02, 2.0, 2.0 + 2**-51, 1e300]), min_size=65, max_size=600
    )
)
def test_counting_runs_equals_counting_values(values: list[float]) -> None:
    together, single = Sketch(), Sketch()
    together.add(values)
    for value in values:
        single.add([value])
    assert together.buckets() == single.buckets()


def test_values_of_few_buckets_are_counted_by_run_and_of_many_one_by_one() -> None:
    source = random.Random(3)
    for width in (0.001, 0.1, 1.0, 10.0):
        values = [math.exp(source.gauss(0, width)) for _ in range(512)]
        together, single = Sketch(), Sketch()
        together.add(values)
        for value in values:
            single.add([value])
        assert together.buckets() == single.buckets()


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200))
def test_encoded_sketches_are_the_same(values: list[float]) -> None:
    sketch = Sketch()
    sketch.add(values)
    for packed in (False, True):
        if packed:
            sketch.pack()
        data = b"xyz" + sketch.encode() + b"more"
        found, end = Sketch.decode(data, 3)
        assert data[end:] == b"more"
        assert (found.stats(), found.buckets()) == (sketch.stats(), sketch.buckets())
        found.add([1.0])  # it can go on counting
        assert found.count == len(values) + 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_counts_up_to_a_bound_are_right_but_for_half_a_bucket(values: list[float], bounds: list[float]) -> None:
    sketch = Sketch()
    sketch.add(values)
    for bound, n in zip(bounds, sketch.at_most(bounds), strict=True):
        near = abs(bound) * 0.011 + 1e-300
        assert sum(v <= bound - near for v in values) <= n <= sum(v <= bound + near for v in values)
    assert sketch.at_most([math.inf, -math.inf]) == [len(values), 0]


def test_buckets_count_zero_and_negatives_too() -> None:
    sketch = Sketch()
    sketch.add([-1.0, -1.0, 0.0, 1.0, 2.0])
    indices, counts = zip(*sketch.buckets(), strict=True)
    assert counts == (2, 1, 1, 1)
    assert indices[1:] == (ZERO, 0, 64)
