"""The way of a plain call: nothing of a `Call` is made while all is well, and nothing is lost when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from perfkit.errors import BadRequestError, ServerError
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.operations import operations
from perfkit.routing import ProviderRouter
from perfkit.routing.attempts import Call
from perfkit.values import ChatRequest, ChatResponse, Usage

HELLO: Any = "hello"  # one user message


class Provider:
    """Answers, or raises what it is given, one after the other."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.asked, self.steps = list(errors), 0, 0

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        self.asked += 1
        self.steps = len(operations.open)
        if self.errors:
            raise self.errors.pop(0)
        return ChatResponse("fine", Usage(3, 5), request.model, "x")


class Counted(Call):
    """Counts how many are made."""

    made = 0

    def __init__(self, *given: Any) -> None:
        Counted.made += 1
        super().__init__(*given)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    monkeypatch.setattr("perfkit.routing.straight.Call", Counted)
    monkeypatch.setattr(Counted, "made", 0)
    return Counted


def routed(*providers: Provider, **settings: Any) -> ProviderRouter:
    router = ProviderRouter(tracker=PerformanceTracker(), **settings)
    for number, provider in enumerate(providers):
        router.register_provider(f"p{number}", provider, priority=number)
    return router


def ask(router: ProviderRouter, **options: Any) -> ChatResponse:
    return router.execute_with_fallback(ChatRequest(HELLO, "m", timeout=5), **options)


def test_a_call_that_succeeds_makes_no_record_of_a_call(calls: type[Counted]) -> None:
    router = routed(Provider(), Provider(), strategy="priority")
    for _ in range(3):
        (attempt,) = ask(router).attempts
        assert (attempt.provider, attempt.outcome, attempt.reason) == ("p0", "ok", "priority 0")
    assert calls.made == 0
    assert router.health()["p0"]["in_flight"] == 0


def test_what_fails_goes_on_as_its_first_attempt(calls: type[Counted]) -> None:
    router = routed(Provider(ServerError("503")), Provider(), strategy="priority")
    answer = ask(router)
    assert [(one.provider, one.outcome) for one in answer.attempts] == [("p0", "error"), ("p1", "ok")]
    assert answer.attempts[0].reason == "priority 0"
    assert answer.attempts[1].reason == "only candidate after ServerError"
    assert calls.made == 1
    assert {health["in_flight"] for health in router.health().values()} == {0}


def test_what_nobody_else_would_answer_is_raised_once() -> None:
    other = Provider()
    router = routed(Provider(BadRequestError("no")), other, strategy="priority")
    with pytest.raises(BadRequestError) as caught:
        ask(router)
    assert (len(caught.value.attempts), other.asked) == (1, 0)


def test_a_watchdog_sees_the_provider_while_it_is_asked_and_no_longer() -> None:
    before, provider = len(operations.open), Provider()
    ask(routed(provider))
    assert (provider.steps, len(operations.open)) == (before + 1, before)


def test_a_strategy_may_sort_what_it_is_given() -> None:
    def last(candidates: Any, _: object) -> Any:
        candidates.sort(key=lambda one: one.name, reverse=True)
        return candidates.pop()

    router = routed(Provider(), Provider(), Provider(), strategy=last)
    assert {ask(router).provider for _ in range(3)} == {"p0"}
    assert [one.name for one in router._candidates.offers("m")] == ["p0", "p1", "p2"]


def test_money_refused_is_the_callers_error_and_nobody_is_asked() -> None:
    def refuse(_: ChatRequest, __: str) -> Any:
        raise PermissionError("no money")

    provider = Provider()
    router = routed(provider)
    with pytest.raises(PermissionError):
        ask(router, reserve=refuse)
    health = router.health()["p0"]
    assert (provider.asked, health["in_flight"], health["success_rate"]) == (0, 0, None)


def test_who_has_the_prefix_of_a_conversation_is_asked() -> None:
    router = routed(Provider(), Provider(), strategy="priority")
    request = ChatRequest(HELLO, "m", timeout=5, metadata={"warm_provider": "p1"})
    (attempt,) = router.execute_with_fallback(request).attempts
    assert (attempt.provider, attempt.reason) == ("p1", "has the prefix of the conversation")


def test_every_call_earns_its_part_of_a_retry() -> None:
    router = routed(Provider(), retry_share=0.5, retries_per_second=0.0)
    retries = router._setup.retries
    while retries.spend():
        continue
    ask(router)
    assert not retries.spend()
    ask(router)
    assert retries.spend()
