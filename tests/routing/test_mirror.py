"""Mirrored traffic: what the shadow gets, what it may cost, and what the caller notices, which is nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from perfkit.errors import ServerError, UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.providers import Provider
from perfkit.routing import ProviderRouter
from perfkit.routing.mirror import LONGEST
from perfkit.testing import FakeClock
from perfkit.values import ChatRequest, ChatResponse, Usage

REQUEST = ChatRequest("hi", "gpt-4o-mini")


class Gated(Provider):
    """Answers when its gate is open."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.asked = 0

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        assert self.gate.wait(10)
        self.asked += 1
        if self.error is not None:
            raise self.error
        return ChatResponse(self.name, Usage(750, 250), request.model, self.name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def router(clock: FakeClock) -> Iterator[ProviderRouter]:
    made = ProviderRouter(strategy="priority", clock=clock, tracker=PerformanceTracker())
    made.register_provider("live", Gated("live"), priority=1)
    made.register_provider("shadow", Gated("shadow"), priority=2)
    yield made
    made.get_provider("shadow").gate.set()
    made.reset()


def test_the_shadow_gets_what_was_asked_and_the_caller_the_live_answer(router: ProviderRouter) -> None:
    seen: list[Any] = []
    mirror = router.mirror("shadow", share=1.0, on_result=lambda *told: seen.append(told))
    response = router.execute_with_fallback(REQUEST)
    assert response.text == "live"
    assert mirror.wait()
    ((request, given, shadow),) = seen
    assert (request, given, shadow.text) == (REQUEST, response, "shadow")
    assert mirror.stats()["sent"] == 1


def test_the_caller_does_not_wait_for_the_shadow(router: ProviderRouter) -> None:
    shadow = router.get_provider("shadow")
    shadow.gate.clear()
    mirror = router.mirror("shadow", share=1.0)
    for _ in range(LONGEST + 20):  # the queue is full long before
        assert router.execute_with_fallback(REQUEST).text == "live"
    assert shadow.asked == 0
    assert mirror.left_out >= 19
    shadow.gate.set()
    assert mirror.wait()
    assert mirror.sent + mirror.left_out == LONGEST + 20


def test_a_failing_shadow_is_counted_and_nobody_hears_of_it(router: ProviderRouter) -> None:
    router.get_provider("shadow").error = ServerError("broken")
    seen: list[Any] = []
    mirror = router.mirror("shadow", share=1.0, on_result=lambda request, given, shadow: seen.append(shadow))
    router.execute_with_fallback(REQUEST)
    assert mirror.wait()
    assert isinstance(seen[0], ServerError)
    assert (mirror.sent, mirror.failed) == (1, 1)
    assert router.health()["shadow"]["success_rate"] is None


def test_a_share_is_a_share(router: ProviderRouter) -> None:
    mirror = router.mirror("shadow", share=0.2)
    for _ in range(1000):
        router.execute_with_fallback(REQUEST)
        mirror.wait()
    assert 120 < mirror.sent < 280


def test_the_budget_of_a_day_is_kept_and_comes_back_the_next(router: ProviderRouter, clock: FakeClock) -> None:
    cost = (0.15 * 750 + 0.60 * 250) / 1e6
    mirror = router.mirror("shadow", share=1.0, budget=2.5 * cost)
    for _ in range(10):
        router.execute_with_fallback(REQUEST)
        assert mirror.wait()
    assert (mirror.sent, mirror.left_out) == (3, 7)  # the third is begun while there is money
    clock.advance(86_400)
    router.execute_with_fallback(REQUEST)
    assert mirror.wait()
    assert mirror.sent == 4


def test_an_unknown_price_uses_a_budget_up(router: ProviderRouter) -> None:
    mirror = router.mirror("shadow", share=1.0, budget=1.0)
    for _ in range(5):
        router.execute_with_fallback(REQUEST.evolve(model="no such model"))
        assert mirror.wait()
    assert mirror.sent == 1


def test_what_on_result_raises_is_logged_and_the_mirror_goes_on(
    router: ProviderRouter, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("oops")

    mirror = router.mirror("shadow", share=1.0, on_result=broken)
    for _ in range(2):
        router.execute_with_fallback(REQUEST)
        assert mirror.wait()
    assert mirror.sent == 2
    assert caplog.text.count("on_result failed") == 2


def test_answers_of_the_shadow_itself_are_not_mirrored(router: ProviderRouter) -> None:
    mirror = router.mirror("shadow", share=1.0)
    router.execute_with_fallback(REQUEST, provider="shadow")
    assert mirror.wait()
    assert mirror.sent == 0


def test_a_mirror_ends(router: ProviderRouter) -> None:
    mirror = router.mirror("shadow", share=1.0)
    router.stop_mirror(mirror)
    router.execute_with_fallback(REQUEST)
    assert mirror.wait()
    assert mirror.sent == 0
    with pytest.raises(UnknownNameError):
        router.stop_mirror(mirror)
    with pytest.raises(UnknownNameError):
        router.mirror("nobody")
