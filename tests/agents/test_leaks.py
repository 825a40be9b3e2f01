"""Loans that last too long are reported with the place they were made at."""

from __future__ import annotations

from typing import Any

import pytest
from agents.workshop import Workshop, now

from perfkit.agents import AgentPool
from perfkit.clock import FakeClock


def keep(pool: AgentPool) -> Any:
    loan = pool.get_agent("a")
    loan.__enter__()
    return loan


def look(pool: AgentPool) -> None:
    pool._lenders["a"].look()  # type: ignore[attr-defined]


def test_a_loan_that_lasts_too_long_is_reported_once_with_its_stack(
    pool: AgentPool, shop: Workshop, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    pool.register("a", shop.make, leak_after=60)
    loan = keep(pool)
    with pool.get_agent("a"):
        pass
    clock.advance(59)
    look(pool)
    assert caplog.messages == []
    clock.advance(1)
    look(pool)
    look(pool)
    (message,) = caplog.messages
    assert "an agent 'a' has been out for 60 s, lent to thread MainThread" in message
    first = message.splitlines()[1]
    assert "test_leaks.py" in first
    assert first.endswith("in keep")
    assert now(pool, "leaked", "in_use") == (1, 1)
    loan.__exit__(None, None, None)
    assert now(pool, "in_use", "idle") == (0, 2)


def test_what_came_back_or_was_discarded_is_no_leak(
    pool: AgentPool, shop: Workshop, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    pool.register("a", shop.make, leak_after=60, nested=True)
    with pool.get_agent("a"), pool.get_agent("a"):
        pass
    loan = pool.get_agent("a")
    with loan:
        loan.discard()
    clock.advance(100)
    look(pool)
    assert caplog.messages == []
    assert now(pool, "leaked") == (0,)


def test_a_forgotten_loan_frees_its_place_and_is_reported(
    pool: AgentPool, shop: Workshop, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    pool.register("a", shop.make, leak_after=60)
    keep(pool)
    clock.advance(60)
    look(pool)
    assert now(pool, "leaked", "lost", "in_use") == (1, 1, 0)
