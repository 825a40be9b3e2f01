from __future__ import annotations

import pickle
from typing import Any

import pytest

from perfkit import NoAvailableProviderError, NoModelFitsError
from perfkit.tokens.constraints import Choice, Constraints, select

FAST = Choice("fast", 0.01, 0.3, 0.6, 0.001, provider="a")
GOOD = Choice("good", 0.20, 2.0, 0.95, 0.02, provider="b")
CHEAP = Choice("cheap", 0.001, 1.0, 0.7, 0.0001, provider="c")
UNKNOWN = Choice("unknown", provider="d")
ALL = (FAST, GOOD, CHEAP, UNKNOWN)


@pytest.mark.parametrize(
    ("constraints", "chosen"),
    [
        ({"max_latency": 5.0}, FAST),
        ({"min_quality": 0.65}, CHEAP),
        ({"min_quality": 65}, CHEAP),
        ({"min_quality": 0.9, "max_latency": 5.0}, GOOD),
        ({"max_cost_per_1k": 0.0005}, CHEAP),
        ({"budget": 1.0}, GOOD),
        ({"budget": 0.05}, CHEAP),
    ],
)
def test_the_best_under_a_budget_else_the_fastest_of_those_that_meet_all_is_chosen(
    constraints: dict[str, float], chosen: Choice
) -> None:
    assert select(ALL, Constraints.of(**constraints)) is chosen


@pytest.mark.parametrize("value", [-1, float("nan"), "cheap"])
def test_a_constraint_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="budget"):
        Constraints.of(budget=value)


def test_what_is_not_known_meets_no_constraint() -> None:
    with pytest.raises(NoModelFitsError, match="latency is unknown of all"):
        select([UNKNOWN], Constraints(max_latency=100.0))


def test_the_constraint_that_binds_is_named_with_who_is_nearest() -> None:
    with pytest.raises(NoModelFitsError) as caught:
        select(ALL, Constraints(max_latency=0.1, min_quality=0.5))
    error = caught.value
    told = "no model meets the constraints: max_latency=0.1 keeps them out, nearest is a/fast with 0.3"
    assert str(error).startswith(told)
    assert error.binding == ["max_latency"]
    assert error.reasons["d/unknown"] == "latency is unknown, quality is unknown"


def test_two_constraints_may_bind_together() -> None:
    with pytest.raises(NoModelFitsError) as caught:
        select([FAST, GOOD], Constraints(max_latency=0.5, min_quality=0.9))
    assert caught.value.binding == ["max_latency", "min_quality"]


def test_the_error_is_both_doors_kin_and_survives_pickling() -> None:
    with pytest.raises(NoModelFitsError, match="no model to choose from") as caught:
        select([], Constraints(max_latency=1.0))
    assert isinstance(caught.value, NoAvailableProviderError)
    assert isinstance(caught.value, ValueError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
