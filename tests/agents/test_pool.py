"""The pool of agents: lending, and the hooks of what is lent; cases of connection_pool (Ruby) and psycopg_pool."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from agents.workshop import (
    Agent,
    Workshop,
    borrowed,
    joined,
    now,
    started,
    waiting,
)

from perfkit.agents import AgentPool
from perfkit.clock import FakeClock
from perfkit.errors import PoolTimeout, UnknownNameError

# --- lending ---------------------------------------------------------------------------------------------------------


def test_agents_are_made_on_demand_and_used_again_most_recent_first(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make)
    assert shop.made == []
    with pool.get_agent("a") as first, pool.get_agent("a") as second:
        assert (first.number, second.number) == (0, 1)
    with pool.get_agent("a") as again:
        assert again is first  # it came back last
    assert now(pool, "created", "lent", "idle", "in_use") == (2, 3, 2, 0)


def test_an_unknown_type_is_a_key_error_that_names_the_known_ones(pool: AgentPool) -> None:
    pool.register("customer_support", object)
    for ask in (pool.get_agent, pool.warm_up, pool.reload):
        with pytest.raises(KeyError, match="known: customer_support; did you mean 'customer_support'"):
            ask("customer_suport")
    with pytest.raises(UnknownNameError):
        pool.get_agent([])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"size": 0}, ValueError),
        ({"size": 1.5}, TypeError),
        ({"min_idle": 4}, ValueError),
        ({"max_waiting": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"max_idle": 0}, ValueError),
        ({"max_lifetime": -1}, ValueError),
        ({"reset": "reset"}, TypeError),
    ],
)
def test_a_wrong_setting_is_refused_at_registration(
    pool: AgentPool, wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        pool.register("a", object, **wrong)
    assert pool.stats() == {}


def test_an_exhausted_pool_says_who_how_many_and_what_to_do(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, timeout=0.01)
    with pool.get_agent("a"):
        for timeout in (None, 0):
            with pytest.raises(PoolTimeout, match=r"no agent 'a': all 1 are in use.*raise size=") as caught:
                pool.get_agent("a", timeout).__enter__()
            assert caught.value.reason == "late"  # type: ignore[attr-defined]
    assert now(pool, "timeouts", "waiters", "idle") == (2, 0, 1)


def test_one_caller_too_many_is_turned_away_at_once(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, max_waiting=2)
    got: list[Any] = []
    with pool.get_agent("a"):
        threads = waiting(pool, *[borrowed(pool, got)] * 2)
        with pytest.raises(PoolTimeout, match="2 callers wait already, which is max_waiting") as caught:
            pool.get_agent("a").__enter__()
        assert caught.value.reason == "shed"  # type: ignore[attr-defined]
    joined(threads)
    assert got == [0, 0]
    assert now(pool, "shed", "timeouts") == (1, 0)


def test_a_loan_cannot_be_entered_twice_at_a_time(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make)
    loan = pool.get_agent("a")
    with loan:
        with pytest.raises(RuntimeError, match="in use"):
            loan.__enter__()
        loan.__exit__(None, None, None)
    assert now(pool, "idle", "in_use") == (1, 0)
    with loan as again:
        assert again.number == 0


# --- hooks -----------------------------------------------------------------------------------------------------------


def test_a_conversation_is_forgotten_on_return_not_on_the_next_loan(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, reset=lambda agent: agent.conversation.clear())
    with pool.get_agent("a") as agent:
        agent.conversation.append("my account is 4711")
    assert agent.conversation == []


def test_an_agent_that_cannot_be_reset_is_closed_and_its_place_is_free(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, reset=lambda agent: agent.conversation.remove("never said"), close=shop.close)
    with pool.get_agent("a"):
        pass
    assert shop.closed == [0]
    with pool.get_agent("a", 0) as agent:
        assert agent.number == 1
    assert now(pool, "broken") == (2,)


def test_an_interrupt_during_reset_reaches_its_caller_and_costs_no_place(pool: AgentPool, shop: Workshop) -> None:
    def reset(_: Agent) -> None:
        raise KeyboardInterrupt

    pool.register("a", shop.make, size=1, reset=reset, close=shop.close)
    with pytest.raises(KeyboardInterrupt), pool.get_agent("a"):
        pass
    assert shop.closed == [0]
    assert now(pool, "broken", "in_use", "idle") == (1, 0, 0)


def test_a_failed_creation_reaches_its_caller_and_keeps_the_slot(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1)
    shop.broken = True
    for _ in range(3):
        with pytest.raises(ConnectionError, match="no agent today"):
            pool.get_agent("a", 0).__enter__()
    shop.broken = False
    with pool.get_agent("a", 0) as agent:
        assert agent.number == 0
    assert now(pool, "failed", "created") == (3, 1)


def test_who_waits_makes_an_agent_when_another_ones_creation_fails(pool: AgentPool, shop: Workshop) -> None:
    entered, go = threading.Event(), threading.Event()
    got: list[Any] = []

    def make() -> Agent:
        if not entered.is_set():
            entered.set()
            go.wait(20)
            raise ConnectionError("not the first")
        return shop.make()

    def first() -> None:
        with pytest.raises(ConnectionError):
            pool.get_agent("a").__enter__()

    pool.register("a", make, size=1)
    threads = started(first)
    entered.wait(20)
    threads += waiting(pool, borrowed(pool, got))
    go.set()
    joined(threads)
    assert got == [0]


def test_creations_run_side_by_side_outside_the_lock(pool: AgentPool, shop: Workshop) -> None:
    together = threading.Barrier(3)

    def make() -> Agent:
        together.wait(20)
        return shop.make()

    got: list[Any] = []
    pool.register("a", make, size=3)
    joined(started(*[borrowed(pool, got)] * 3))
    assert len(got) == 3
    assert together.broken is False


def test_a_dead_agent_is_found_after_a_while_and_replaced(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    pool.register("a", shop.make, validate=shop.valid, close=shop.close)
    pool.warm_up("a", 3)
    shop.dead = [0, 1, 2]
    clock.advance(1)
    with pool.get_agent("a") as agent:
        assert agent.number == 3
    assert len(shop.closed) == 1
    assert now(pool, "replaced", "created", "idle") == (1, 4, 3)


def test_an_agent_that_cannot_be_looked_at_is_replaced(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    def valid(_: Agent) -> bool:
        raise ConnectionError("does not answer")

    pool.register("a", shop.make, validate=valid, close=shop.close)
    pool.warm_up("a", 1)
    clock.advance(1)
    with pool.get_agent("a") as agent:
        assert agent.number == 1
    assert shop.closed == [0]


def test_an_agent_just_returned_is_lent_without_asking(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    asked: list[int] = []

    def valid(agent: Agent) -> bool:
        asked.append(agent.number)
        return True

    pool.register("a", shop.make, validate=valid)
    for _ in range(3):
        with pool.get_agent("a"):
            pass
        clock.advance(0.4)
    assert asked == []
    pool.configure(validate_after=0.1)
    with pool.get_agent("a"):
        assert asked == [0]


def test_after_a_failed_block_the_agent_is_looked_at(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, validate=shop.valid, close=shop.close)
    for dead in ([], [0]):
        shop.dead = dead
        with pytest.raises(ValueError, match="of the block"), pool.get_agent("a"):
            raise ValueError("of the block")
        assert shop.closed == dead


def test_a_block_may_discard_its_agent(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, close=shop.close)
    loan = pool.get_agent("a")
    with loan:
        loan.discard()
        loan.discard()
    assert shop.closed == [0]
    assert now(pool, "discarded", "idle", "in_use") == (1, 0, 0)


def test_a_close_that_fails_costs_nobody_a_place(pool: AgentPool, shop: Workshop) -> None:
    def close(_: Agent) -> None:
        raise OSError("cannot close")

    pool.register("a", shop.make, size=2, close=close)
    for _ in range(5):
        with pool.get_agent("a", 0), pool.get_agent("a", 0):
            pass
        pool.reload()
    assert now(pool, "idle", "in_use", "created") == (0, 0, 10)


def test_hooks_run_outside_the_lock(pool: AgentPool, shop: Workshop, clock: FakeClock) -> None:
    seen = []

    def look(_: Any = None) -> bool:
        seen.append(now(pool, "size"))  # takes the lock: would hang if it were held
        return True

    pool.register("a", lambda: look() and shop.make(), reset=look, validate=look, close=look)
    with pool.get_agent("a"):
        pass
    clock.advance(10)
    with pool.get_agent("a"):
        pass
    pool.reload()
    assert len(seen) == 5
