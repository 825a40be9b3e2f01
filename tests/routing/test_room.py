"""Limits that providers tell of with good replies: traffic moves away before anybody answers 429."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.providers.wire.room import Room
from perfkit.routing import ProviderRouter
from perfkit.routing.room import ToldRoom
from perfkit.testing.faults import ok, rate_limited
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import SlowClock

    from perfkit.testing.faults import FaultServer

    MakeRouter = Callable[..., ProviderRouter]

HELLO: Any = "hello"  # one user message


def told(remaining: int) -> dict[str, str]:
    names = {"limit": "10", "remaining": str(remaining), "reset": "10m0s"}
    return {f"x-ratelimit-{what}-requests": value for what, value in names.items()}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_provider_that_says_it_has_no_room_left_is_not_asked_into_a_429(fault: FaultServer, streaming: bool) -> None:
    replies = [ok(headers=told(remaining)) for remaining in (2, 1, 0)]
    fault.behave(*replies, rate_limited(), path="/v1/chat/completions", then="repeat")
    fault.behave(ok(), path="/v1/messages")
    router = ProviderRouter(strategy="priority", tracker=PerformanceTracker())
    for priority, kind in enumerate(("openai", "anthropic"), 1):
        router.register_provider(kind, create_provider(kind, base_url=fault.base_url, api_key="k"), priority=priority)
    request = ChatRequest(HELLO, "m", timeout=10)
    for _ in range(8):
        if streaming:
            list(router.stream_with_fallback(request))
        else:
            assert len(router.execute_with_fallback(request).attempts) == 1
    paths = [sent["path"] for sent in fault.stats()["recent"]]
    assert paths == ["/v1/chat/completions"] * 3 + ["/v1/messages"] * 5
    assert 0 < router.health()["openai"]["ejected"] <= 60


def test_the_only_provider_is_asked_all_the_same(fault: FaultServer) -> None:
    fault.behave(ok(headers=told(0)))
    router = ProviderRouter(tracker=PerformanceTracker())
    router.register_provider("openai", create_provider("openai", base_url=fault.base_url, api_key="k"))
    for _ in range(3):
        assert router.execute_with_fallback(ChatRequest(HELLO, "m", timeout=2)).provider == "openai"


def test_shares_shrink_with_the_room_that_is_told(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    made = router({"strategy": "weighted"}, a=0.0, b=0.0)
    provider = made.get_provider("a")
    provider.script = [lambda _: setattr(provider, "room", (Room("requests", 1e5, 1e6, 1e9),))]
    answered = [made.execute_with_fallback(request_).provider for _ in range(110)]
    assert 8 <= answered.count("a") <= 12  # a tenth of the room is a tenth of the weight
    clock.advance(1e9)
    assert made.get_provider("a").room[0].left(1e9) == 1e6
    assert next(c for c in made._candidates.values() if c.name == "a").headroom == 1.0


def test_the_better_of_two_is_who_has_room(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"strategy": "p2c"}, a=0.1, b=0.2)
    provider = made.get_provider("a")
    provider.room = (Room("requests", 1e4, 1e6, 1e9),)  # a hundredth
    answered = [made.execute_with_fallback(request_).provider for _ in range(20)]
    assert answered.count("a") == 1


def test_calls_under_way_and_tokens_count_against_the_room() -> None:
    rooms = (Room("requests", 4, 60, 60), Room("tokens", 900, 1000, 100))
    heard = ToldRoom()
    assert heard.hear(rooms, 100, 3, 0.0) == 0.0
    assert heard.hear(rooms, 100, 4, 0.0) == pytest.approx(60 / 56)
    assert heard.hear(rooms, 500, 1, 0.0) == pytest.approx(100.0)
    assert heard.free(0.0) == pytest.approx(4 / 60)
