from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit._settings import GCSettings
from perfkit.memory.steering import Steering

MB = 2**20


def steering(**settings: float) -> Steering:
    made = Steering(GCSettings(**settings), ("young", "old", "deep"), deep_age=600.0)  # type: ignore[arg-type]
    made.start(0.0, 100 * MB)
    return made


def test_nothing_is_due_before_the_interval() -> None:
    assert steering().choose(0.05, 100 * MB, 0, idle=True) is None
    assert steering().choose(0.1, 100 * MB, 0, idle=True) == "young"


def test_young_passes_wait_longer_while_requests_run() -> None:
    assert steering().choose(0.14, 100 * MB, 0, idle=False) is None
    assert steering().choose(0.16, 100 * MB, 0, idle=False) == "young"


@pytest.mark.parametrize(("moment", "patience"), [({"lull": True}, 1.0), ({"idle": True}, 1.5), ({"idle": False}, 2.0)])
def test_a_deep_pass_waits_for_a_lull_but_not_for_ever(moment: dict[str, bool], patience: float) -> None:
    assert steering().choose(600 * patience - 1, 100 * MB, 0, **moment) == "young"
    assert steering().choose(600 * patience, 100 * MB, 0, **moment) == "deep"
    allowed = int(patience * 92 * MB)  # six tenths, and 32 MB
    assert steering().choose(0.01, 99 * MB + allowed, 0, **moment) is None
    assert steering().choose(0.01, 100 * MB + allowed, 0, **moment) == "deep"


def test_a_crowd_of_new_objects_does_not_wait() -> None:
    assert steering().choose(0.02, 100 * MB, 20_000, idle=True) == "young"
    assert steering().choose(0.01, 100 * MB, 20_000, idle=True) is None


def test_what_is_not_among_the_passes_is_not_chosen() -> None:
    made = Steering(GCSettings(), ("old", "deep"), deep_age=600.0)
    made.start(0.0, None)
    assert made.choose(599, None, 10**6, lull=True) is None
    assert made.choose(600, None, 0, lull=True) == "deep"


def test_without_deep_passes_nothing_more_is_frozen_and_growth_calls_for_a_look_at_the_unfrozen() -> None:
    made = Steering(GCSettings(), ("young", "old"), deep_age=600.0)
    made.start(0.0, 100 * MB)
    assert not made.freezes("young", 10_000, idle=True)
    assert made.choose(10_000, 100 * MB, 0, idle=True) == "young"
    assert made.choose(10_000, 131 * MB, 0, idle=False) == "old"


def test_the_interval_follows_the_cost() -> None:
    made = steering()
    for n in range(20):  # objects come at a steady rate: a collection costs in proportion to the interval
        made.done("young", n, 0.01 * made.interval, 0, None)
    assert made.interval == pytest.approx(0.2)
    made.done("young", 21, 0.0, 0, None)
    assert made.interval == pytest.approx(0.4)


@given(st.lists(st.floats(0, 10), max_size=50))
def test_the_interval_stays_within_bounds(costs: list[float]) -> None:
    made = steering()
    for cost in costs:
        made.done("young", 0.0, cost, 0, None)
        assert 0.02 <= made.interval <= 1.0


def test_much_garbage_ends_refreezing_and_little_begins_it_again() -> None:
    made = steering(much_garbage=100)
    made.resident = 1000
    assert made.freezes("young", 0.0, idle=True)
    made.done("deep", 1.0, 0.0, 101, 100 * MB, 1500)
    assert not made.freezes("young", 9.0, idle=True)
    assert made.freezes("deep", 9.0, idle=True)
    assert made.choose(1.01, 200 * MB, 0, idle=True) == "old"
    made.done("old", 2.0, 0.0, 60, 100 * MB)
    made.done("deep", 3.0, 0.0, 41, 100 * MB)
    assert not made.refreeze  # 60 and 41 are too many together
    made.done("deep", 4.0, 0.0, 100, 100 * MB)
    assert made.refreeze


def test_what_dies_in_cycles_is_looked_at_when_survivors_come_to_half_of_what_is_kept() -> None:
    made = steering(much_garbage=100)
    made.done("deep", 1.0, 5.0, 101, 100 * MB)  # on a slow machine: 50 s of rest would fill the memory
    assert made.choose(1.01, 100 * MB, 49_999, idle=True) is None
    assert made.choose(1.01, 100 * MB, 50_000, idle=False) == "old"
    made.done("old", 2.0, 5.0, 30_000, 100 * MB, 400_000)
    made.done("young", 3.0, 0.0, 0, 100 * MB, 150_000)
    assert made.choose(3.01, 100 * MB, 49_999, idle=True) != "old"
    assert made.choose(3.01, 100 * MB, 50_000, idle=True) == "old"
    made.froze(3.01)
    assert made.choose(3.01, 100 * MB, 49_999, idle=True) != "old"


def test_a_deep_pass_leaves_thawed_what_is_less_than_what_dies() -> None:
    made = steering(much_garbage=100)
    made.resident = 1000
    made.done("deep", 1.0, 0.0, 101, 100 * MB, 3000)
    assert not made.freezes("deep", 1.0, idle=True)
    made.done("deep", 2.0, 0.0, 100, 100 * MB)
    assert made.freezes("deep", 2.0, idle=True)


def test_growth_that_was_garbage_is_not_got_used_to() -> None:
    made = steering(much_garbage=100)
    made.done("deep", 1.0, 0.0, 101, 140 * MB)  # found much, but the allocator kept it
    assert made.choose(1.0, 140 * MB, 0, idle=True) == "old"
    made.done("old", 1.0, 0.0, 100, 140 * MB)  # found little: it is in use
    assert made.choose(1.0, 140 * MB, 0, idle=True) is None


def test_survivors_are_not_frozen_while_requests_run_unless_it_lasts() -> None:
    made = steering()
    assert not made.freezes("young", 0.9, idle=False)
    assert made.freezes("young", 1.0, idle=False)


def test_passes_over_old_objects_take_a_tenth_of_the_time_at_most() -> None:
    made = steering()
    made.done("deep", 1.0, 0.3, 0, 100 * MB)
    assert made.choose(3.9, 900 * MB, 0, idle=True) == "young"
    assert made.choose(4.1, 900 * MB, 0, idle=True) == "deep"


def test_growth_that_is_known_to_be_garbage_counts_threefold() -> None:
    made = steering()
    made.done("deep", 21.0, 0.2, 50_000, 200 * MB)
    assert made.choose(23.1, 130 * MB, 0, idle=True) == "young"
    assert made.choose(23.1, 131 * MB, 0, idle=True) == "old"
