"""What one process finds out, its siblings know: through a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from _servers import Redis, polled

from perfkit.errors import AuthenticationError, ModelNotFoundError, RateLimitError, ServerError
from perfkit.metrics import PerformanceTracker
from perfkit.routing import ProviderRouter
from perfkit.state import RedisLink
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

HELLO: Any = "hello"  # one user message
REQUEST = ChatRequest(HELLO, "m", timeout=5)
PATIENCE = 5.0  # seconds for Redis: a busy machine is no outage


class Scripted:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return ChatResponse("fine", Usage(1, 1), request.model, "x")


@pytest.fixture
def siblings(redis: Redis) -> Iterator[Callable[..., tuple[ProviderRouter, ...]]]:
    links: list[RedisLink] = []

    def make(number: int = 2, **settings: Any) -> tuple[ProviderRouter, ...]:
        made = []
        for _ in range(number):
            link = RedisLink(redis.url, timeout=PATIENCE)
            links.append(link)
            router = ProviderRouter(strategy="priority", tracker=PerformanceTracker(), state=link, **settings)
            for priority, name in enumerate("ab", 1):
                router.register_provider(name, Scripted(), priority=priority)
            router.execute_with_fallback(REQUEST)
            made.append(router)
            heard = ("PUBSUB", "NUMSUB", link.key("health"))
            polled(partial(_heard_by, link, heard, len(links)))
        return tuple(made)

    yield make
    for one in links:
        one.close()


def _heard_by(link: RedisLink, command: tuple[str, ...], number: int) -> bool:
    return bool(link.call(*command)[1] >= number)


def unavailable(router: ProviderRouter, name: str = "a") -> bool:
    return bool(router.health()[name]["status"] == "unavailable")


@pytest.mark.parametrize(
    ("error", "calls"),
    [(ServerError("500"), 3), (AuthenticationError("401"), 1), (RateLimitError("429", retry_after=30), 1)],
)
def test_a_sibling_skips_a_dead_provider_without_asking_it(
    error: Exception, calls: int, siblings: Callable[..., tuple[ProviderRouter, ...]]
) -> None:
    first, *others = siblings(3, failure_threshold=3)
    first.get_provider("a").error = error
    for _ in range(calls):
        assert first.execute_with_fallback(REQUEST).provider == "b"
    for other in others:
        polled(partial(unavailable, other))
        assert other.execute_with_fallback(REQUEST).provider == "b"
        assert other.get_provider("a").calls == 1  # of the beginning


def test_a_missing_model_is_told_too(siblings: Callable[..., tuple[ProviderRouter, ...]]) -> None:
    first, second = siblings()
    first.get_provider("a").error = ModelNotFoundError("404")
    first.execute_with_fallback(REQUEST)
    polled(lambda: second.health()["a"]["missing_models"] == ["m"])
    assert second.execute_with_fallback(REQUEST).provider == "b"


def test_who_starts_later_learns_what_lasts(siblings: Callable[..., tuple[ProviderRouter, ...]]) -> None:
    (first,) = siblings(1, failure_threshold=1)
    first.get_provider("a").error = ServerError("500")
    first.execute_with_fallback(REQUEST)
    (late,) = siblings(1)
    polled(lambda: unavailable(late))
    assert 50 < late.health()["a"]["cooldown"] <= 60


def test_when_one_finds_it_well_again_all_may_try(siblings: Callable[..., tuple[ProviderRouter, ...]]) -> None:
    first, second = siblings(failure_threshold=1)
    first.get_provider("a").error = ServerError("500")
    first.execute_with_fallback(REQUEST)
    polled(lambda: unavailable(second))
    first.get_provider("a").error = None
    first._candidates["a"].breaker.allow_probe()
    assert first.execute_with_fallback(REQUEST).provider == "a"
    polled(lambda: not unavailable(second))
    assert second.execute_with_fallback(REQUEST).provider == "a"


def test_without_redis_everybody_goes_by_what_it_sees() -> None:
    away = RedisLink("unix:///nowhere/at.all", timeout=0.05)
    router = ProviderRouter(strategy="priority", tracker=PerformanceTracker(), state=away, failure_threshold=1)
    for priority, name in enumerate("ab", 1):
        router.register_provider(name, Scripted(), priority=priority)
    router.get_provider("a").error = ServerError("500")
    for _ in range(5):
        assert router.execute_with_fallback(REQUEST).provider == "b"
    assert router.get_provider("a").calls == 1
    away.close()


# --- money and experiments --------------------------------------------------------------------------------------------


def test_a_daily_cost_limit_is_of_all_processes(siblings: Callable[..., tuple[ProviderRouter, ...]]) -> None:
    one, two = siblings()
    request = ChatRequest(HELLO, "gpt-4o", timeout=5)  # one token in, one out: $0.0000125
    for router in (one, two):
        router.register_provider("a", router.get_provider("a"), priority=1, cost_limit_per_day=0.00002)
    assert [one.execute_with_fallback(request).provider for _ in range(3)] == ["a", "a", "b"]
    assert two.execute_with_fallback(request).provider == "b"


def test_results_of_all_workers_are_in_a_test(siblings: Callable[..., tuple[ProviderRouter, ...]]) -> None:
    tests = [router.ab("speed", {"A": "a", "B": "b"}) for router in siblings()]
    alone = siblings(1)[0].ab("another", {"A": "a", "B": "b"})
    for user in range(200):
        tests[user % 2].record(user, response_time=float(user % 7), cost=0.01)
        alone.record(user, response_time=float(user % 7), cost=0.01)
    for _ in range(3):  # each look tells the others; nothing is counted twice
        seen = [test.results() for test in tests]
    assert seen[0] == seen[1]
    assert sum(arm["sample_size"] for arm in seen[0].values()) == 200
    assert tests[0].compare()["B"] == tests[1].compare()["B"]


def test_results_reach_the_others_without_anybody_looking(
    siblings: Callable[..., tuple[ProviderRouter, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfkit.routing.ab.TOLD_EVERY", 0.05)
    quiet, curious = (router.ab("speed", {"A": "a", "B": "b"}) for router in siblings())
    quiet.record("ann", response_time=1.0)
    polled(lambda: sum(arm["sample_size"] for arm in curious.results().values()) == 1)
