"""What is lent in the tests of the pool, and callers that borrow it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from _servers import polled

from perfkit.agents import AgentPool
from perfkit.errors import PerfkitError

no_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
quiet_fork = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Agent:
    """Has state, and is neither hashable nor weak-referenceable."""

    __slots__ = ("conversation", "number")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, number: int) -> None:
        self.number = number
        self.conversation: list[str] = []


class Workshop:
    """Makes agents and remembers what became of them."""

    def __init__(self) -> None:
        self.made: list[Agent] = []
        self.closed: list[int] = []
        self.broken = False
        self.dead: list[int] = []

    def make(self) -> Agent:
        if self.broken:
            raise ConnectionError("no agent today")
        self.made.append(Agent(len(self.made)))
        return self.made[-1]

    def close(self, agent: Agent) -> None:
        self.closed.append(agent.number)

    def valid(self, agent: Agent) -> bool:
        return agent.number not in self.dead


def now(pool: AgentPool, *keys: str) -> tuple[Any, ...]:
    stats = pool.stats()["a"]
    return tuple(stats[key] for key in keys)


def started(*works: Callable[[], Any]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def borrowed(pool: AgentPool, got: list[Any], timeout: float = 20) -> Callable[[], None]:
    def work() -> None:
        try:
            with pool.get_agent("a", timeout) as agent:
                got.append(agent.number)
        except PerfkitError as error:
            got.append(error)

    return work


def waiting(pool: AgentPool, *works: Callable[[], Any]) -> list[threading.Thread]:
    """Start callers that have to wait, each in line before the next starts."""
    threads = []
    for work in works:
        before = now(pool, "waiters")[0]
        threads += started(work)
        polled(partial(has_waiters, pool, before + 1))
    return threads


def has_waiters(pool: AgentPool, number: int) -> bool:
    return now(pool, "waiters") == (number,)


def sweep(pool: AgentPool) -> None:
    pool._lenders["a"].sweep()
