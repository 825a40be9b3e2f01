"""What every routing strategy has to do, whoever wrote it: one suite over the registry."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.clock import FakeClock
from perfkit.errors import ServerError
from perfkit.resilience.breaker import Rules
from perfkit.routing import STRATEGIES, Candidate, ProviderRouter
from perfkit.routing.strategies import choose, reasons, strategy_named
from perfkit.routing.terms import Terms
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.routing.strategies import Strategy

HELLO: Any = "hello"  # one user message
REQUEST = ChatRequest(HELLO, "m")


class Works:
    """A provider that answers, after some seconds."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock if clock is not None else FakeClock()

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        self.clock.advance(0.2)
        return ChatResponse("fine", Usage(1, 1), request.model, "works")


class Fails:
    """A provider that does not."""

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        raise ServerError("500")


def candidates(weights: Sequence[float], clock: FakeClock | None = None) -> list[Candidate]:
    clock = clock if clock is not None else FakeClock()
    return [
        Candidate(f"p{n}", Works(), terms=Terms(weight=w, priority=n % 3), rules=Rules(), clock=clock)
        for n, w in enumerate(weights)
    ]


@pytest.fixture(params=list(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def strategy(name: str) -> Strategy:
    return strategy_named(name)


@given(weights=st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=8), data=st.data())
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_it_chooses_one_of_those_it_is_given_whoever_comes_and_goes(
    name: str, weights: list[float], data: st.DataObject
) -> None:
    strategy, known = strategy_named(name), candidates(weights)
    for asked in (REQUEST, None, {"model": "m"}):
        present = data.draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
        before = list(present)
        assert choose(strategy, present, asked) in before
        assert present == before


def test_it_says_why(strategy: Strategy) -> None:
    for candidate in candidates([1, 2]):
        assert reasons(strategy)(candidate)


def test_two_routers_share_no_state(name: str) -> None:
    part = STRATEGIES.get(name)
    assert not isinstance(part, type) or strategy_named(name) is not strategy_named(name)


def test_threads_may_use_it_together(strategy: Strategy) -> None:
    known, barrier = candidates([1, 2, 3]), threading.Barrier(16)

    def use(_: int) -> Counter[str]:
        barrier.wait(10)
        return Counter(choose(strategy, known, REQUEST).name for _ in range(200))

    with ThreadPoolExecutor(16) as pool:
        total = sum(pool.map(use, range(16)), Counter[str]())
    assert total.total() == 16 * 200
    assert set(total) <= {candidate.name for candidate in known}


def test_in_a_router_every_call_is_answered_while_one_provider_works(name: str) -> None:
    router = ProviderRouter(strategy=name, clock=FakeClock())
    for number in range(3):
        router.register_provider(f"broken{number}", Fails(), priority=number)
    router.register_provider("works", Works(), priority=9)
    for _ in range(100):
        assert router.execute_with_fallback(REQUEST, max_attempts=4).provider == "works"


def test_a_provider_that_recovers_is_found_again(name: str) -> None:
    clock = FakeClock()
    router = ProviderRouter(strategy=name, clock=clock)
    router.register_provider("back", Fails())
    router.register_provider("works", Works(clock), priority=2)
    for _ in range(50):
        router.execute_with_fallback(REQUEST)
    router.get_provider("back").chat_completion = Works(clock).chat_completion
    for _ in range(1000):
        clock.advance(1)
        router.execute_with_fallback(REQUEST)
    assert router.health()["back"]["state"] == "closed"
    assert router.health()["back"]["success_rate"] > 0


def test_a_forked_child_does_not_hang_on_the_parents_lock(name: str) -> None:
    router = ProviderRouter(strategy=name, clock=FakeClock())
    for number in range(2):
        router.register_provider(f"p{number}", Works())
    lock: Any = getattr(router._setup.strategy, "_lock", None)
    if lock is not None:
        lock.acquire()
    router._after_fork()
    assert router.execute_with_fallback(REQUEST).text == "fine"
