"""Another model, another answer, or the last resort, in the place of an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import perfkit
from perfkit.errors import (
    BadRequestError,
    BudgetExceededError,
    ContentFilterError,
    ContextWindowExceededError,
    MaxRetriesExceededError,
    NoAvailableProviderError,
    ServerError,
)
from perfkit.routing import Quality
from perfkit.routing.quality import all_of, grounded, matches_schema, no_refusal, not_empty
from perfkit.testing.faults import FaultServer, ok, server_error
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import Ledger, Scripted, SlowClock

    from perfkit.metrics import PerformanceTracker
    from perfkit.routing import ProviderRouter

    MakeRouter = Callable[..., ProviderRouter]

HELLO: Any = "hello"  # one user message


def by_model(**errors: Exception) -> Any:
    def step(request: ChatRequest) -> None:
        if request.model in errors:
            raise errors[request.model]

    return step


def asked(router: ProviderRouter, name: str) -> list[str]:
    return [request.model for request in router.get_provider(name).requests]


# --- another model


@pytest.mark.parametrize(
    ("kind", "error"),
    [("context_window", ContextWindowExceededError("long")), ("content_filter", ContentFilterError("refused"))],
)
def test_the_models_named_for_a_trouble_are_asked_in_order(
    kind: str, error: Exception, router: MakeRouter, request_: ChatRequest
) -> None:
    made = router({"fallbacks": {kind: {"m": ["nobody has it", "n", "o"]}}}, a=by_model(m=error, n=error))
    made.register_provider("a", made.get_provider("a"), models=["m", "n", "o"])
    response = made.execute_with_fallback(request_)
    assert [(a.model, a.error) for a in response.attempts] == [
        ("m", type(error).__name__),
        ("n", type(error).__name__),
        ("o", None),
    ]
    assert made.health()["a"]["status"] == "healthy"


def test_what_a_filter_refused_goes_to_nobody_who_is_not_named(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"fallbacks": {"content_filter": {"other": ["n"]}}}, a=ContentFilterError("no"), b=0.0)
    made.register_provider("b", made.get_provider("b"), priority=2, models=["m", "n"])
    with pytest.raises(ContentFilterError):
        made.execute_with_fallback(request_)
    assert (asked(made, "a"), asked(made, "b")) == (["m"], [])


def test_a_prompt_that_is_too_long_goes_to_the_smallest_model_that_holds_it(
    router: MakeRouter, scripted: type[Scripted], clock: SlowClock
) -> None:
    small, middle, large = "gpt-4", "gpt-4o", "gpt-4.1"  # 8,192, 128,000 and a million tokens
    made = router(a=by_model(**{small: ContextWindowExceededError("too long")}))
    made.register_provider("a", made.get_provider("a"), models=[small, middle, large])
    long: Any = "word " * 20_000
    assert [a.model for a in made.execute_with_fallback(ChatRequest(long, small, timeout=9)).attempts] == [
        small,
        middle,
    ]
    longer: Any = "word " * 200_000
    assert [a.model for a in made.execute_with_fallback(ChatRequest(longer, small, timeout=9)).attempts] == [
        small,
        large,
    ]
    made.register_provider("a", made.get_provider("a"), models=[small])
    with pytest.raises(ContextWindowExceededError):
        made.execute_with_fallback(ChatRequest(long, small, timeout=9))


def test_a_fallback_that_cannot_hold_the_prompt_is_not_tried(
    router: MakeRouter, scripted: type[Scripted], clock: SlowClock
) -> None:
    made = router(a=ServerError("500"), b=0.0, c=0.0)
    made.register_provider("b", made.get_provider("b"), priority=2, context_window=100)
    prompt: Any = "word " * 500
    assert made.execute_with_fallback(ChatRequest(prompt, "m", timeout=9)).provider == "c"
    assert asked(made, "b") == []
    with pytest.raises(NoAvailableProviderError, match="b: its context window of 100 tokens is too small"):
        made.execute_with_fallback(ChatRequest(prompt, "m", timeout=9), provider="b")


def test_too_little_money_asks_for_the_cheaper_model(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    def reserve(request: ChatRequest, provider: str) -> Any:
        if request.model == "m":
            raise BudgetExceededError("too dear")
        return ledger()(request, provider)

    made = router({"fallbacks": {"cost": {"*": "cheap"}}}, a=0.0)
    response = made.execute_with_fallback(request_, reserve=reserve)
    assert [(a.model, a.reason) for a in response.attempts] == [("cheap", "only candidate after BudgetExceededError")]
    assert made.health()["a"]["in_flight"] == 0


def test_a_pinned_provider_stays_the_only_one(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"fallbacks": {"content_filter": {"m": "n"}}}, a=0.0, b=0.0)
    made.register_provider("a", made.get_provider("a"), models=["m"])
    made.get_provider("a").script = [ContentFilterError("no")]
    with pytest.raises(ContentFilterError):
        made.execute_with_fallback(request_, provider="a")
    assert asked(made, "b") == []


def test_an_answer_of_another_model_is_paid_as_that_and_not_kept(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"p": {"kind": "openai", "base_url": fault.base_url, "api_key": "k", "models": ["m", "n"]}},
        router={"fallbacks": {"content_filter": {"m": "n"}}},
        tokens={"prices": {"m": {"input": 1000.0, "output": 1000.0}, "n": {"input": 1.0, "output": 1.0}}},
    )
    from perfkit.testing.faults import content_filtered

    for _ in range(2):
        fault.behave(content_filtered(), ok("fine"))
        response = perfkit.chat("hello", model="m", temperature=0)
        assert (response.text, response.cached) == ("fine", None)
        assert response.cost is not None
        assert response.cost < 1e-4
        assert response.cache_decision == "answered by another model"


# --- a better answer


def score_of(**scores: float) -> Any:
    return lambda request, response: scores[response.text]


def saying(clock: SlowClock, scripted: type[Scripted], text: str) -> Scripted:
    made = scripted(clock)
    made.chat_completion = lambda request: ChatResponse(text, Usage(3, 5), request.model, "x")  # type: ignore[method-assign]
    return made


@pytest.fixture
def pool(router: MakeRouter, clock: SlowClock, scripted: type[Scripted]) -> ProviderRouter:
    made = router()
    for priority, text in enumerate(("poor", "fair", "good"), 1):
        made.register_provider(text, saying(clock, scripted, text), priority=priority)
    return made


def test_a_poor_answer_is_paid_and_a_better_one_looked_for(
    pool: ProviderRouter, request_: ChatRequest, ledger: type[Ledger], tracker: PerformanceTracker
) -> None:
    money, rule = ledger(), Quality(score=score_of(poor=0.1, fair=0.4, good=0.9), tracker=tracker)
    response = pool.execute_with_fallback(request_, reserve=money, quality=rule)
    assert response.text == "good"
    assert [a.outcome for a in response.attempts] == ["poor", "poor", "ok"]
    assert [entry[-1] for entry in money.entries] == [
        ("written off", "poor"),
        ("written off", "fair"),
        ("settled", "good"),
    ]
    assert tracker.get_stats("quality")["count"] == 3
    assert pool._candidates["poor"].quality == pytest.approx(0.1)


def test_when_nobody_is_good_enough_the_best_is_returned(
    pool: ProviderRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    money, rule = ledger(), Quality(score=score_of(poor=0.1, fair=0.4, good=0.2), threshold=0.8)
    response = pool.execute_with_fallback(request_, reserve=money, quality=rule)
    assert response.text == "fair"
    paid = sorted(str(entry[-1]) for entry in money.entries)
    assert paid == ["('settled', 'fair')", "('written off', 'good')", "('written off', 'poor')"]


def test_an_error_after_a_poor_answer_leaves_the_poor_answer(
    pool: ProviderRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    for name in ("fair", "good"):
        del pool.get_provider(name).chat_completion
        pool.get_provider(name).script = [ServerError("500")]
    response = pool.execute_with_fallback(request_, quality=Quality(score=score_of(poor=0.1)), reserve=ledger())
    assert response.text == "poor"


def test_only_a_sample_is_looked_at_and_later_if_it_need_not_block(pool: ProviderRouter, request_: ChatRequest) -> None:
    seen: list[str] = []

    def score(request: ChatRequest, response: ChatResponse) -> float:
        seen.append(response.text)
        return 0.0

    for _ in range(400):
        pool.execute_with_fallback(request_, quality=Quality(score=score, sample=0.25, threshold=0.0))
    assert 50 < len(seen) < 150
    seen.clear()
    assert pool.execute_with_fallback(request_, quality=Quality(score=score, blocking=False)).text == "poor"
    perfkit._process.deferred.run()
    assert seen == ["poor"]


def answer(text: str, **more: Any) -> ChatResponse:
    return ChatResponse(text, Usage(1, 1), "m", "p", **more)


SCHEMA = {
    "type": "object",
    "required": ["name", "tags"],
    "properties": {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
}


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ({"name": "x", "tags": []}, 1.0),
        ({"name": "x", "tags": ["a"], "age": None}, 1.0),
        ({"name": "x", "tags": ["a"], "age": True}, 0.0),
        ({"name": "x", "tags": ["c"]}, 0.0),
        ({"name": 5, "tags": []}, 0.0),
        ({"tags": []}, 0.0),
        ([], 0.0),
        ("text", 0.0),
    ],
)
def test_an_answer_keeps_its_schema_or_not(value: Any, score: float) -> None:
    request = ChatRequest(HELLO, "m", response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}})
    assert matches_schema(request, answer(json.dumps(value))) == score
    assert matches_schema(request, answer("{broken")) == 0.0
    assert matches_schema(ChatRequest(HELLO, "m"), answer("[1]")) == 1.0


def test_empty_answers_refusals_and_inventions_are_told() -> None:
    given: Any = "The Seine flows through Paris and Rouen."
    request = ChatRequest(given, "m")
    assert (not_empty(request, answer(" \n")), not_empty(request, answer("x"))) == (0.0, 1.0)
    assert not_empty(request, answer("", tool_calls=({"id": "1"},))) == 1.0
    assert no_refusal(request, answer("I'm sorry, but I can't help with that.")) == 0.0
    assert no_refusal(request, answer("", finish_reason="content_filter")) == 0.0
    assert no_refusal(request, answer("The Seine flows through Paris.")) == 1.0
    assert grounded(request, answer("Paris and Rouen, on the Seine")) == 1.0
    assert grounded(request, answer("Berlin, Hamburg, Paris")) == pytest.approx(1 / 3)
    assert grounded(request, answer("42")) == 1.0
    assert all_of(not_empty, grounded)(request, answer("Berlin")) == 0.0


# --- the last resort


@pytest.mark.parametrize(
    "fallback",
    ["try later", lambda request, error: f"try {request.model}", lambda request, error: answer("whole", cost=5.0)],
)
def test_a_fallback_answers_when_every_provider_failed(
    fallback: Any, router: MakeRouter, request_: ChatRequest, tracker: PerformanceTracker
) -> None:
    made = router({"max_attempts": 2}, a=ServerError("1"), b=ServerError("2"))
    response = made.execute_with_fallback(request_, fallback_response=fallback)
    assert response.text in ("try later", "try m", "whole")
    assert (response.provider, response.cost) == ("fallback", 0.0)
    assert [a.error for a in response.attempts] == ["ServerError", "ServerError"]
    assert tracker.get_stats("fallback_response")["sum"] == 1
    made.configure(fallback_response="configured")
    assert made.execute_with_fallback(request_).text == "configured"
    with pytest.raises(MaxRetriesExceededError):
        made.execute_with_fallback(request_, fallback_response="")


@pytest.mark.parametrize(
    "error", [BadRequestError("400"), BudgetExceededError("spent"), KeyboardInterrupt(), TypeError("x")]
)
def test_it_hides_no_fault_of_the_caller(error: BaseException, router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"fallback_response": "try later"}, a=0.0)
    with pytest.raises(type(error)):
        made.execute_with_fallback(request_, reserve=lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(TypeError, match="fallback_response must be or return"):
        router(a=ServerError("1")).execute_with_fallback(request_, 1, fallback_response=lambda *_: 5)


def test_it_is_never_kept_and_costs_nothing(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"p": {"kind": "openai", "base_url": fault.base_url, "api_key": "k", "models": ["m"]}},
        router={"max_attempts": 1, "failure_threshold": 1000},
        routes={"polite": {"model": "m", "fallback_response": "please try later"}},
    )
    fault.behave(server_error(), server_error(), server_error(), ok("fine"))
    for _ in range(2):
        response = perfkit.chat("hello", model="polite", temperature=0)
        assert (response.text, response.provider, response.cost) == ("please try later", "fallback", 0.0)
        assert response.latency is not None
    with perfkit.stream("hello", model="polite", temperature=0) as stream:
        assert list(stream) == ["please try later"]
    assert stream.response is not None
    assert stream.response.provider == "fallback"
    assert perfkit.chat("hello", model="polite", temperature=0).text == "fine"
    fault.behave(server_error())
    with pytest.raises(ServerError):
        perfkit.chat("hello again", model="m")


# --- storms


def test_retries_stay_within_their_budget_while_first_failovers_are_free(
    router: MakeRouter, request_: ChatRequest
) -> None:
    settings = {
        "failure_threshold": 10**6,
        "failure_rate": 1,
        "max_attempts": 3,
        "outlier_factor": None,
        "strategy": "random",
    }
    made = router(
        settings,
        a=ServerError("1"),
        b=ServerError("2"),
        c=ServerError("3"),
    )
    attempts = 0
    for _ in range(1000):
        with pytest.raises(MaxRetriesExceededError) as caught:
            made.execute_with_fallback(request_)
        attempts += len(caught.value.attempts)
    assert 2000 <= attempts <= 2000 + 200 + 100 + 1  # one more for each fifth call, and what had been saved
    assert "the retry budget is used up" in str(caught.value)
