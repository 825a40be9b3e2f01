from __future__ import annotations

import copy
import functools
import json
import random

import pytest

from perfkit.metrics.sketch import Sketch
from perfkit.metrics.window import DAY, TIERS, Window

START = 1_700_000_100.0  # a multiple of 15 minutes
UNLIMITED = 10**9


def count(window: Window, since: float, until: float = float("inf")) -> int:
    result = Sketch()
    window.collect(result, since, until)
    return result.count


def filled(seconds: int, every: int = 10) -> Window:
    """A value in every slot from START on, aged as time goes by."""
    window = Window()
    for at in range(0, seconds, every):
        window.add(START + at, [1.0])
        window.age(START + at, UNLIMITED)
    return window


@functools.cache
def _long() -> Window:
    return filled(90_000)


def long() -> Window:
    """More than a day, with a value in every slot."""
    return copy.deepcopy(_long())


def test_a_range_takes_every_slot_it_touches() -> None:
    window = filled(60)
    assert count(window, START) == 6
    assert count(window, START + 20) == 4
    assert count(window, START + 25) == 4  # in the middle of the third slot
    assert count(window, START + 20, START + 40) == 2
    assert count(window, START + 20, START + 41) == 3
    assert count(window, START + 60) == 0
    assert count(window, START - 60, START) == 0


@pytest.mark.parametrize(("age", "width"), [(590, 10), (700, 60), (7100, 60), (9000, 900), (80_000, 900)])
def test_resolution_follows_age(age: int, width: int) -> None:
    """A range that ends at a slot's start leaves the slot out; one that ends just inside takes all of it."""
    window = long()
    now = START + 90_000
    edge = (now - age) // width * width
    assert count(window, 0, edge + 0.5) - count(window, 0, edge) == width // 10


def test_ageing_loses_no_value_for_a_day() -> None:
    window = filled(int(DAY), every=60)
    assert count(window, 0) == DAY / 60


def test_values_older_than_a_day_are_forgotten() -> None:
    window = filled(int(2 * DAY), every=60)
    assert DAY / 60 <= count(window, 0) <= (DAY + 2 * TIERS[-1][0]) / 60
    window.age(START + 4 * DAY, UNLIMITED)
    assert count(window, 0) == 0


def test_slots_stay_within_the_tiers() -> None:
    window = long()
    assert all(0 < len(slots) <= keep + 1 for slots, (_, keep) in zip(window._tiers, TIERS, strict=True))


def test_a_long_silence_ages_like_many_short_steps() -> None:
    window = filled(600)
    window.age(START + 3 * 3600, UNLIMITED)
    assert [len(slots) for slots in window._tiers] == [0, 0, 1]
    assert count(window, 0) == 60


def test_the_oldest_slots_go_when_memory_is_short() -> None:
    source = random.Random(1)
    window = Window()
    for at in range(0, 600, 10):
        window.add(START + at, [source.lognormvariate(0, 1) for _ in range(500)])
        window.age(START + at, 20_000)
    held = sum(slot.nbytes for slots in window._tiers for slot in slots.values())
    assert 10_000 < held <= 20_000 - window._total.nbytes
    assert count(window, 0, START + 300) == 0
    assert count(window, START + 590) == 500
    window.age(START + 590, 0)
    assert count(window, 0) == 500  # the newest slot stays whatever the budget


def test_of_all_tiers_the_oldest_slots_go_first() -> None:
    window = long()
    window.age(START + 90_000, 200 * 310)
    assert [len(slots) > 100 for slots in window._tiers] == [False, True, False]
    assert len(window._tiers[0]) == 60
    assert 0 < len(window._tiers[2]) < 40
    assert count(window, 0, START + 90_000 - 10 * 3600) == 0


def test_slots_that_are_over_are_packed() -> None:
    window = Window()
    for at in range(0, 1200, 10):
        window.add(START + at, [1.01**i for i in range(500)])
        window.age(START + at, UNLIMITED)
    closed = [slot.nbytes for slots in window._tiers for slot in slots.values()]
    assert max(closed) < window._open.nbytes / 5


def test_a_dump_loaded_elsewhere_doubles_every_slot() -> None:
    window = long()
    window.load(json.loads(json.dumps(window.dump())))
    assert count(window, 0) == 2 * count(long(), 0)
    assert count(window, START + 89_950, START + 89_960) == 2
    assert window.newest == START + 89_990


def test_a_dump_keeps_the_slots_times() -> None:
    window = Window()
    window.load(filled(60).dump())
    assert count(window, START + 20, START + 40) == 2
    assert window.newest == START + 50
