"""The statistics of A/B tests, simulated: how often they are wrong when somebody looks all the time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.routing.sequential import Comparison, Moments, compare

ALPHA = 0.05
Draw = Callable[[random.Random], float]


def normal(source: random.Random) -> float:
    return source.gauss(1.0, 0.3)


def skewed(source: random.Random) -> float:
    return source.lognormvariate(0.0, 1.0)


def event(source: random.Random) -> float:
    return float(source.random() < 0.1)


def looked_at_all_the_time(
    first: Draw, second: Draw, seed: int, *, says: Callable[[Moments, Moments], bool], most: int = 1500
) -> int | None:
    """Return after how many observations of each arm a difference was first seen; a look after every tenth."""
    source, a, b = random.Random(seed), Moments(), Moments()
    for number in range(1, most + 1):
        a.add(first(source))
        b.add(second(source))
        if number % 10 == 0 and says(a, b):
            return number
    return None


def sequential(a: Moments, b: Moments) -> bool:
    return compare(a, b, alpha=ALPHA).is_real


def of_events(a: Moments, b: Moments) -> bool:
    return compare(a, b, alpha=ALPHA, events=True).is_real


def plain_test(a: Moments, b: Moments) -> bool:
    """Say yes as a t-test does that is made for one look."""
    error = a.variance / a.count + b.variance / b.count
    return a.count >= 50 and abs(a.mean - b.mean) > 1.96 * math.sqrt(error)


@pytest.mark.parametrize(("draw", "says"), [(normal, sequential), (skewed, sequential), (event, of_events)])
def test_no_difference_is_seen_where_there_is_none_however_often_one_looks(
    draw: Draw, says: Callable[[Moments, Moments], bool]
) -> None:
    wrong = sum(looked_at_all_the_time(draw, draw, seed, says=says) is not None for seed in range(200))
    assert wrong <= ALPHA * 200


def test_the_plain_test_is_wrong_far_more_often_with_the_same_looks() -> None:
    wrong = sum(
        looked_at_all_the_time(normal, normal, seed, says=plain_test, most=800) is not None for seed in range(60)
    )
    assert wrong > 4 * ALPHA * 60


def test_a_real_difference_is_found_soon() -> None:
    found = [
        looked_at_all_the_time(normal, lambda source: source.gauss(1.15, 0.3), seed, says=sequential)
        for seed in range(50)
    ]
    assert all(number is not None for number in found)
    assert sorted(number or 0 for number in found)[25] < 300


def test_the_interval_holds_the_truth_at_all_looks_together() -> None:
    missed = 0
    for seed in range(100):
        source, a, b = random.Random(seed), Moments(), Moments()
        always = True
        for number in range(1, 801):
            a.add(normal(source))
            b.add(source.gauss(1.1, 0.3))
            bounds = compare(a, b, alpha=ALPHA).interval if number % 20 == 0 else None
            always = always and (bounds is None or bounds[0] <= 0.1 <= bounds[1])
        missed += not always
    assert missed <= ALPHA * 100


def test_too_little_says_nothing() -> None:
    few, many = Moments(), Moments()
    for number in range(100):
        many.add(float(number))
        if number < 49:
            few.add(1000.0 + number)
    assert compare(few, many, alpha=ALPHA) == Comparison(many.mean - few.mean, None, 1.0, is_real=False)
    assert few.interval(ALPHA) is None
    never = Moments()
    for _ in range(1000):
        never.add(0.0)
    assert compare(never, never, alpha=ALPHA, events=True).p_value == 1.0


def test_the_interval_excludes_nothing_exactly_when_the_test_says_so() -> None:
    for seed in range(30):
        source, a, b = random.Random(seed), Moments(), Moments()
        for _ in range(200):
            a.add(normal(source))
            b.add(source.gauss(1.07, 0.3))
        told = compare(a, b, alpha=ALPHA)
        assert told.interval is not None
        assert told.is_real == (not told.interval[0] <= 0 <= told.interval[1])


@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_merged_is_as_if_observed_at_one_place(here: list[float], there: list[float]) -> None:
    one, other, all_of_it = Moments(), Moments(), Moments()
    for value in here:
        one.add(value)
    for value in there:
        other.add(value)
    for value in here + there:
        all_of_it.add(value)
    one.merge(other)
    assert one.count == all_of_it.count
    assert one.mean == pytest.approx(all_of_it.mean, abs=1e-6)
    assert one.squares == pytest.approx(all_of_it.squares, rel=1e-6, abs=1e-3)
