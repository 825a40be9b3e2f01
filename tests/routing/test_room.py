"""Limits that providers tell of with good replies: traffic moves away before anybody answers 429."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.providers.wire.room import Room
from perfkit.routing import STRATEGIES, ProviderRouter
from perfkit.routing.room import ToldRoom
from perfkit.testing.faults import ok, rate_limited
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import SlowClock

    from perfkit.testing.faults import FaultServer

    MakeRouter = Callable[..., ProviderRouter]

HELLO: Any = "hello"  # one user message


class Limited:
    """Answers at once, and counts."""

    def __init__(self, clock: SlowClock) -> None:
        self.clock, self.calls = clock, 0

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        self.calls += 1
        return ChatResponse("fine", Usage(3, 5), request.model, "limited")


def told(remaining: int) -> dict[str, str]:
    names = {"limit": "10", "remaining": str(remaining), "reset": "10m0s"}
    return {f"x-ratelimit-{what}-requests": value for what, value in names.items()}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_provider_that_says_it_has_no_room_left_is_not_asked_into_a_429(fault: FaultServer, streaming: bool) -> None:
    replies = [ok(headers=told(remaining)) for remaining in (2, 1, 0)]
    fault.behave(*replies, rate_limited(), path="/v1/chat/completions", then="repeat")
    fault.behave(ok(), path="/v1/messages")
    router = ProviderRouter(strategy="manual", primary="openai", tracker=PerformanceTracker())
    for kind in ("openai", "anthropic"):
        router.register_provider(kind, create_provider(kind, base_url=fault.base_url, api_key="k"))
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


# --- shares shift before the room is used up


def share_of_first(made: ProviderRouter, room: float, calls: int = 300) -> float:
    provider = made.get_provider("a")
    provider.room = (Room("requests", 1e9 * room, 1e9, 1e12),)
    made.execute_with_fallback(ChatRequest(HELLO, "m"), provider="a")  # which tells of it
    asked: Any = "explain python code"
    request = ChatRequest(asked, "m", metadata={"task": "code"})
    return sum(made.execute_with_fallback(request).provider == "a" for _ in range(calls)) / calls


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"manual"}))
def test_every_strategy_gives_less_to_who_has_little_room(strategy: str, router: MakeRouter) -> None:
    made = router({"strategy": strategy, "tasks": {"code": ["a"]}}, a=0.1, b=0.2)
    usual = share_of_first(made, 1.0)
    assert usual > 0
    assert share_of_first(made, 0.05) < 0.6 * usual


def test_who_has_been_named_is_asked_to_the_last(router: MakeRouter) -> None:
    assert share_of_first(router({"strategy": "manual", "primary": "a"}, a=0.1, b=0.2), 0.05) == 1.0


def test_the_less_room_the_more_calls_go_elsewhere(router: MakeRouter) -> None:
    made = router(a=0.1, b=0.2)  # by priority
    shares = [share_of_first(made, room, 1000) for room in (0.5, 0.2, 0.1, 0.05)]
    assert shares[:2] == [1.0, 1.0]
    assert 0.4 < shares[2] < 0.6  # half of the calls at half of LITTLE
    assert 0.15 < shares[3] < 0.35


def test_the_record_says_who_was_passed_over(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.1, b=0.2)
    share_of_first(made, 0.001, 1)
    answers = [made.execute_with_fallback(request_) for _ in range(50)]
    assert "priority 2, little room at a" in {answer.attempts[0].reason for answer in answers}


def test_where_everybody_has_little_room_all_are_asked(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.1, b=0.2)
    for name in "ab":
        made.get_provider(name).room = (Room("requests", 1e7, 1e9, 1e12),)
        made.execute_with_fallback(request_, provider=name)
    assert {made.execute_with_fallback(request_).provider for _ in range(400)} == {"a", "b"}


@pytest.mark.parametrize("strategy", ["priority", "least_busy", "round_robin", "random", "weighted"])
def test_limits_a_minute_shift_calls_before_they_are_used_up(
    strategy: str, router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    """Of a hundred calls a second the first one's limit allows eighty; it is hardly ever found used up."""
    made = router({"strategy": strategy})
    refused = 0
    for name, rpm in (("a", 80 * 60), ("b", None)):
        made.register_provider(name, Limited(clock), rpm=rpm, priority=1 + (name == "b"))
    gates = made._candidates["a"].gates
    assert gates is not None
    for _ in range(1000):
        clock.advance(1 / 100)
        refused += gates.wait > 0
        made.execute_with_fallback(request_)
    counted = {name: made.get_provider(name).calls for name in "ab"}
    assert refused <= 30
    assert counted["a"] >= 400
    assert counted["b"] >= 150
