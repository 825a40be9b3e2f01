"""Cases that other pools' suites have (Ruby's connection_pool, psycopg_pool) and ours did not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from _servers import polled
from agents.workshop import Agent, Workshop, borrowed, joined, now, started, sweep, waiting

from perfkit.agents import AgentPool
from perfkit.clock import FakeClock
from perfkit.errors import PoolTimeout


def test_a_caller_that_gave_up_gets_nothing_and_nothing_is_lost(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=2)
    got: list[Any] = []
    with pool.get_agent("a"), pool.get_agent("a"):
        patient = waiting(pool, *[borrowed(pool, got)] * 2)
        hasty = waiting(pool, borrowed(pool, got, 2.0))  # by then the next two are in line
        later = waiting(pool, *[borrowed(pool, got)] * 2)
        joined(hasty)
        assert [type(one) for one in got] == [PoolTimeout]
    joined(patient + later)
    assert set(got[1:]) <= {0, 1}
    assert len(got) == 5
    assert now(pool, "idle", "in_use", "waiters", "created") == (2, 0, 0, 2)


def test_a_caller_may_wait_for_longer_than_its_type_says(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, timeout=0.01)
    got: list[Any] = []
    with pool.get_agent("a"):
        threads = waiting(pool, borrowed(pool, got, 20))
        with pytest.raises(PoolTimeout):
            pool.get_agent("a").__enter__()
    joined(threads)
    assert got == [0]


def test_a_block_that_is_left_in_any_way_gives_back(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, timeout=0, close=shop.close)

    def returned() -> int:
        with pool.get_agent("a") as agent:
            return int(agent.number)

    assert returned() == 0
    for _ in range(3):
        with pool.get_agent("a"):
            continue
    while True:
        with pool.get_agent("a"):
            break
    assert now(pool, "idle", "in_use", "created") == (1, 0, 1)
    assert shop.closed == []


def test_a_loan_that_has_ended_cannot_be_ended_again(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, close=shop.close)
    loan = pool.get_agent("a")
    loan.discard()
    with loan:
        pass
    loan.__exit__(None, None, None)
    loan.discard()
    assert now(pool, "idle", "in_use", "discarded") == (1, 0, 0)
    assert shop.closed == []


def test_closing_all_goes_on_past_one_that_cannot_be_closed(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    def close(agent: Agent) -> None:
        shop.close(agent)
        if agent.number % 3 == 0:
            raise OSError("cannot close")

    pool.register("a", shop.make, size=3, close=close, max_idle=60)
    pool.warm_up("a", 3)
    clock.advance(61)
    sweep(pool)
    assert sorted(shop.closed) == [0, 1, 2]
    pool.warm_up("a", 3)
    assert pool.shutdown(timeout=0)
    assert sorted(shop.closed) == [0, 1, 2, 3, 4, 5]


def test_after_a_shutdown_the_sweep_makes_and_closes_nothing(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    pool.register("a", shop.make, size=3, min_idle=2, close=shop.close)
    pool.warm_up("a", 2)
    assert pool.shutdown(timeout=0)
    clock.advance(10_000)
    sweep(pool)
    assert pool.warm_up("a", 2) == 0
    assert (len(shop.made), sorted(shop.closed)) == (2, [0, 1])


def test_min_idle_is_filled_at_a_later_sweep_when_nothing_could_be_made(
    pool: AgentPool, shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    pool.register("a", shop.make, min_idle=2)
    shop.broken = True
    sweep(pool)
    polled(lambda: now(pool, "failed") == (2,))
    polled(lambda: "making idle agents" in caplog.text)
    shop.broken = False
    with pool.get_agent("a"):  # no place is lost meanwhile
        pass
    sweep(pool)
    polled(lambda: now(pool, "idle") == (2,))


def test_a_validation_that_always_fails_costs_one_new_agent_a_loan(
    pool: AgentPool, shop: Workshop, clock: FakeClock
) -> None:
    pool.register("a", shop.make, size=1, validate=lambda _: False, close=shop.close)
    for number in range(4):
        with pool.get_agent("a") as agent:
            assert agent.number == number
        clock.advance(60)
    assert shop.closed == [0, 1, 2]


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_a_size_that_cannot_be_changes_nothing(pool: AgentPool, shop: Workshop, size: Any) -> None:
    pool.register("a", shop.make, size=2)
    pool.warm_up("a", 2)
    with pytest.raises((TypeError, ValueError), match="size"):
        pool.resize("a", size)
    assert now(pool, "size", "idle") == (2, 2)


def test_a_spike_is_served_by_few_when_making_takes_longer_than_using(pool: AgentPool, shop: Workshop) -> None:
    made = itertools.count()

    def make() -> Agent:
        if next(made) >= 2:
            polled(lambda: len(got) >= 40)  # these come when nearly all is over
        return shop.make()

    got: list[Any] = []
    pool.register("a", make, size=10)
    pool.warm_up("a", 2)
    joined(started(*[borrowed(pool, got)] * 50))
    assert len(got) == 50
    assert now(pool, "in_use", "waiters", "timeouts") == (0, 0, 0)
    assert len(shop.made) <= 10
