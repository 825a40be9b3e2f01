from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from perfkit.clock import FakeClock
from perfkit.resilience import Allowance


def test_extra_requests_are_a_share_of_the_regular_ones() -> None:
    allowance = Allowance(0.02, most=10, start=0, clock=FakeClock())
    extra = 0
    for _ in range(10_000):
        allowance.earn()
        extra += allowance.spend()
    assert 199 <= extra <= 200


def test_some_are_earned_each_second_and_savings_are_bounded() -> None:
    clock = FakeClock()
    allowance = Allowance(0.2, per_second=10, most=100, clock=clock)
    assert sum(allowance.spend() for _ in range(500)) == 100
    clock.advance(1)
    assert sum(allowance.spend() for _ in range(500)) == 10
    clock.advance(3600)
    assert sum(allowance.spend() for _ in range(500)) == 100


def test_it_is_exact_under_threads() -> None:
    allowance = Allowance(0.0, most=50, clock=FakeClock())
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(lambda _: allowance.spend(), range(2000))) == 50
    assert repr(allowance) == "<Allowance 0.0 of 50>"


def test_some_may_be_left_for_those_who_need_it_more() -> None:
    allowance = Allowance(0.5, most=4.0, start=2.5, clock=FakeClock())
    assert not allowance.spend(leaving=2.0)
    assert allowance.spend()
    allowance.earn()
    allowance.earn()
    assert not allowance.spend(leaving=2.0)
    allowance.earn()
    assert allowance.spend(leaving=2.0)
