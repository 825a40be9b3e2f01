"""Blocks inside blocks of one thread: the nested cases of connection_pool (Ruby)."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from agents.workshop import Workshop, borrowed, joined, now, started

from perfkit.agents import AgentPool
from perfkit.errors import PoolTimeout


def test_a_block_inside_a_block_shares_the_agent_until_the_outer_one_ends(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, timeout=0, nested=True)
    with pool.get_agent("a") as outer:
        with pool.get_agent("a") as inner:
            assert inner is outer
        assert now(pool, "in_use", "idle") == (1, 0)
        with pool.get_agent("a") as again:
            assert again is outer
    assert now(pool, "in_use", "idle", "lent") == (0, 1, 1)


def test_without_the_option_a_block_inside_a_block_wants_another_agent(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1)
    with pool.get_agent("a"), pytest.raises(PoolTimeout), pool.get_agent("a", 0):
        pass


def test_another_thread_gets_another_agent(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, nested=True)
    got: list[Any] = []
    with pool.get_agent("a"):
        joined(started(borrowed(pool, got, 0)))
    assert isinstance(got[0], PoolTimeout)


def test_discarding_in_an_inner_block_takes_effect_when_all_have_ended(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=2, close=shop.close, nested=True)
    with pool.get_agent("a") as outer:
        loan = pool.get_agent("a")
        with loan:
            loan.discard()
        assert shop.closed == []
        with pool.get_agent("a") as fresh:  # nobody builds on what is known to be broken
            assert fresh is not outer
    assert shop.closed == [outer.number]
    assert now(pool, "in_use", "discarded") == (0, 1)


def test_a_failed_inner_block_has_the_agent_looked_at(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, validate=shop.valid, close=shop.close, nested=True)
    shop.dead = [0]
    with pool.get_agent("a"), pytest.raises(LookupError), pool.get_agent("a"):
        raise LookupError
    assert shop.closed == [0]


def test_the_agent_goes_back_when_the_last_block_ends_elsewhere(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=1, timeout=0, nested=True)
    loan, inner = pool.get_agent("a"), pool.get_agent("a")
    with loan:
        inner.__enter__()
    assert now(pool, "in_use") == (1,)
    joined(started(lambda: inner.__exit__(None, None, None)))
    assert now(pool, "in_use", "idle") == (0, 1)
    with pool.get_agent("a"):
        assert now(pool, "in_use") == (1,)


def test_a_nested_loan_cannot_be_entered_twice_at_a_time(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, nested=True)
    loan = pool.get_agent("a")
    with loan, pytest.raises(RuntimeError, match="in use"):
        loan.__enter__()
    assert now(pool, "in_use") == (0,)


def test_many_threads_nest_at_once_and_no_agent_is_shared_between_them(pool: AgentPool, shop: Workshop) -> None:
    pool.register("a", shop.make, size=4, nested=True)
    users: dict[int, int] = {}
    wrong = []

    def work() -> None:
        me = threading.get_ident()
        for _ in range(200):
            with pool.get_agent("a", 20) as agent:
                users[agent.number] = me
                with pool.get_agent("a", 20) as same:
                    if same is not agent or users[agent.number] != me:
                        wrong.append(agent.number)

    joined(started(*[work] * 8))
    assert wrong == []
    assert now(pool, "in_use", "lent") == (0, 1600)
