"""The course of one call: who is asked next, with how much time, and what is raised in the end."""

from __future__ import annotations

import gc
import pickle
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from perfkit.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ContentFilterError,
    ContextWindowExceededError,
    DeadlineExceeded,
    MaxRetriesExceededError,
    ModelNotFoundError,
    NetworkError,
    NoAvailableProviderError,
    PoolTimeout,
    ProviderError,
    RateLimitError,
    ResponseFormatError,
    ServerError,
)
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import Ledger, Scripted, SlowClock

    from perfkit.metrics import PerformanceTracker
    from perfkit.routing import ProviderRouter

    MakeRouter = Callable[..., ProviderRouter]


HELLO: Any = "hello"  # one user message


def calls(router: ProviderRouter) -> dict[str, int]:
    return {name: router.get_provider(name).calls for name in router.list_providers()}


def reasons(response: ChatResponse) -> list[str]:
    return [attempt.reason for attempt in response.attempts]


ELSEWHERE = [
    AuthenticationError("401"),
    ModelNotFoundError("404"),
    RateLimitError("429", retry_after=20.0),
    RateLimitError("429"),
    ServerError("503"),
    ResponseFormatError("html"),
    ProviderError("odd"),
    NetworkError("refused", sent=False),
    NetworkError("reset", sent=True),
    PoolTimeout("full"),
    DeadlineExceeded("late"),
    OSError("a custom provider's own"),
    ValueError("a custom provider's own"),
]


@pytest.mark.parametrize("error", ELSEWHERE, ids=repr)
def test_another_provider_is_asked_at_once(
    error: Exception, router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=error, b=0.5)
    response = made.execute_with_fallback(request_)
    assert (response.text, response.provider) == ("fine", "b")
    assert calls(made) == {"a": 1, "b": 1}
    assert clock.slept == []
    assert [(a.provider, a.model, a.outcome, a.error) for a in response.attempts] == [
        ("a", "m", "error", type(error).__name__),
        ("b", "m", "ok", None),
    ]
    assert reasons(response) == ["priority 1", f"only candidate after {type(error).__name__}"]
    assert response.attempts[1].seconds == 0.5
    assert response.attempts[0].started == 1_700_000_000


@pytest.mark.parametrize("kind", [BadRequestError, ContextWindowExceededError, ContentFilterError])
def test_the_callers_own_fault_is_raised_at_once_and_is_no_news_of_health(
    kind: type[BadRequestError], router: MakeRouter, request_: ChatRequest
) -> None:
    made = router(a=kind("your fault"), b=0.0)
    for _ in range(20):
        with pytest.raises(kind) as caught:
            made.execute_with_fallback(request_)
        assert [(a.provider, a.error) for a in caught.value.attempts] == [("a", kind.__name__)]
    assert calls(made) == {"a": 20, "b": 0}
    health = made.health()["a"]
    assert (health["status"], health["success_rate"], health["last_error"]) == ("healthy", None, None)


def test_a_client_fault_breaks_a_row_of_failures(router: MakeRouter, request_: ChatRequest) -> None:
    script: list[Any] = [ServerError("500")] * 4 + [BadRequestError("400")] + [ServerError("500")] * 4 + [0.0]
    made = router({"max_attempts": 1}, a=tuple(script))
    for _ in range(9):
        with pytest.raises(ProviderError):
            made.execute_with_fallback(request_)
    assert made.execute_with_fallback(request_).text == "fine"


# --- waiting


@pytest.mark.parametrize(
    "error", [ServerError("503"), RateLimitError("429"), NetworkError("refused", sent=False)], ids=repr
)
def test_the_only_provider_is_asked_again_after_a_wait(
    error: Exception, router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=(error, 0.0))
    response = made.execute_with_fallback(request_)
    assert calls(made) == {"a": 2}
    assert len(clock.slept) == 1
    assert reasons(response) == ["only candidate", f"retry after {type(error).__name__}"]


@pytest.mark.parametrize(
    "error",
    [NetworkError("reset", sent=True), DeadlineExceeded("late"), PoolTimeout("full"), ResponseFormatError("html")],
    ids=repr,
)
def test_what_may_have_been_executed_is_not_asked_again_at_the_same_provider(
    error: Exception, router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=(error, 0.0))
    with pytest.raises(type(error)) as caught:
        made.execute_with_fallback(request_)
    assert caught.value is error
    assert len(caught.value.attempts) == 1  # type: ignore[attr-defined]
    assert calls(made) == {"a": 1}
    assert clock.slept == []


def test_only_the_last_error_says_whether_to_ask_again(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"max_attempts": 5}, a=(ServerError("503"), NetworkError("reset", sent=True), 0.0))
    with pytest.raises(MaxRetriesExceededError):
        made.execute_with_fallback(request_)
    assert calls(made) == {"a": 2}


def test_waits_grow_with_jitter_and_attempts_are_limited(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    waits = []
    for _ in range(30):
        made = router({"max_attempts": 3}, a=ServerError("503"))
        clock.slept.clear()
        with pytest.raises(MaxRetriesExceededError) as caught:
            made.execute_with_fallback(request_)
        assert calls(made) == {"a": 3}
        assert len(caught.value.attempts) == 3
        assert isinstance(caught.value.__cause__, ServerError)
        waits.append(tuple(clock.slept))
    assert all(1 <= first <= 3 and 2 <= second <= 6 for first, second in waits)
    assert len(set(waits)) > 20


def test_retry_after_is_waited_for_exactly(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    made = router(a=(RateLimitError("429", retry_after=7.5), 0.0))
    made.execute_with_fallback(request_)
    assert clock.slept == [7.5]


def test_an_unknown_retry_after_means_five_seconds_at_least(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=(RateLimitError("429"), 0.0))
    made.execute_with_fallback(request_)
    assert clock.slept == [5.0]


def test_nobody_waits_beyond_the_deadline(router: MakeRouter, clock: SlowClock) -> None:
    made = router(a=RateLimitError("429", retry_after=12.0))
    with pytest.raises(RateLimitError):
        made.execute_with_fallback(ChatRequest(HELLO, "m", timeout=10))
    assert clock.slept == []
    with pytest.raises(NoAvailableProviderError, match=r"cooling down for 12\.0 s after RateLimitError"):
        made.execute_with_fallback(ChatRequest(HELLO, "m", timeout=10))
    assert calls(made) == {"a": 1}


def test_a_cooldown_is_waited_for_by_later_calls_too_so_that_a_batch_survives_it(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router({"max_attempts": 1}, a=(RateLimitError("429", retry_after=2.0), 0.0))
    with pytest.raises(RateLimitError):
        made.execute_with_fallback(request_)
    clock.advance(0.5)
    assert made.execute_with_fallback(request_).text == "fine"
    assert clock.slept == [1.5]


def test_whoever_recovers_first_is_asked(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    made = router(a=ServerError("503"), b=(RateLimitError("429", retry_after=0.5), 0.0))
    with pytest.raises(RateLimitError):
        made.execute_with_fallback(request_, provider="b", max_attempts=1)
    response = made.execute_with_fallback(request_)  # a may be asked again in one to three seconds
    assert [a.provider for a in response.attempts] == ["a", "b"]
    assert clock.slept == [0.5]


def test_after_all_failed_the_first_ready_one_is_asked_again(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=RateLimitError("429", retry_after=9.0), b=(RateLimitError("429", retry_after=1.0), 0.0))
    response = made.execute_with_fallback(request_)
    assert [a.provider for a in response.attempts] == ["a", "b", "b"]
    assert reasons(response)[2] == "retry after RateLimitError"
    assert clock.slept == [1.0]


# --- deadlines


def test_each_attempt_gets_two_thirds_while_others_remain_and_the_last_all(
    router: MakeRouter, hanging: object, request_: ChatRequest
) -> None:
    made = router(a=hanging, b=hanging, c=0.0)
    made.execute_with_fallback(request_)
    shares = [made.get_provider(name).requests[0].timeout for name in "abc"]
    assert shares == pytest.approx([20.0, 20 / 3, 10 / 3])


def test_the_last_allowed_attempt_gets_all_that_is_left(
    router: MakeRouter, hanging: object, request_: ChatRequest
) -> None:
    made = router({"max_attempts": 2}, a=hanging, b=0.0, c=0.0)
    made.execute_with_fallback(request_)
    assert made.get_provider("b").requests[0].timeout == pytest.approx(10.0)


def test_a_single_provider_gets_the_whole_time(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0)
    made.execute_with_fallback(request_)
    assert made.get_provider("a").requests[0].timeout == 30.0


def test_attempts_may_be_given_a_fixed_time(router: MakeRouter, hanging: object) -> None:
    made = router({"attempt_timeout": 4.0}, a=hanging, b=hanging, c=0.0)
    made.execute_with_fallback(ChatRequest(HELLO, "m", timeout=9))
    assert [made.get_provider(name).requests[0].timeout for name in "abc"] == pytest.approx([4.0, 4.0, 1.0])


def test_a_request_without_timeout_gets_the_settings(router: MakeRouter) -> None:
    made = router({"timeout": 12.0}, a=0.0)
    request = ChatRequest(HELLO, "m", temperature=0.5, user="u", metadata={"k": 1}, agent="x")
    made.execute_with_fallback(request)
    sent = made.get_provider("a").requests[0]
    assert sent == ChatRequest(HELLO, "m", temperature=0.5, user="u", metadata={"k": 1}, agent="x", timeout=12.0)
    assert request.timeout is None


def test_a_subclass_of_the_request_stays_one(router: MakeRouter) -> None:
    class Tagged(ChatRequest):
        pass

    made = router(a=0.0)
    made.execute_with_fallback(Tagged(HELLO, "m"))
    assert type(made.get_provider("a").requests[0]) is Tagged


def test_when_time_is_up_nobody_else_is_asked(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    def slow_failure(_: ChatRequest) -> None:
        clock.advance(40)
        raise ServerError("500")

    made = router(a=0.0, b=0.0)
    made.get_provider("a").script = [slow_failure]
    with pytest.raises(ServerError):
        made.execute_with_fallback(request_)
    assert calls(made) == {"a": 1, "b": 0}


def test_when_time_runs_out_after_several_attempts_that_is_the_error(
    router: MakeRouter, hanging: object, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=hanging, b=hanging)
    with pytest.raises(DeadlineExceeded, match=r"after 2 attempts: a: DeadlineExceeded after 20\.00 s; b: ") as caught:
        made.execute_with_fallback(request_)
    assert isinstance(caught.value, TimeoutError)
    assert len(caught.value.attempts) == 2
    assert clock.now() == pytest.approx(1030)


# --- what is raised in the end


def test_a_single_failed_attempt_raises_the_providers_own_error(router: MakeRouter, request_: ChatRequest) -> None:
    error = AuthenticationError("wrong key", provider="its own name")
    made = router(a=error)
    with pytest.raises(AuthenticationError) as caught:
        made.execute_with_fallback(request_)
    assert caught.value is error
    assert caught.value.provider == "a"
    assert [(a.provider, a.error) for a in caught.value.attempts] == [("a", "AuthenticationError")]


def test_several_failed_attempts_are_told_together_and_pickle(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=AuthenticationError("wrong key"), b=NetworkError("reset"))
    with pytest.raises(MaxRetriesExceededError) as caught:
        made.execute_with_fallback(request_)
    assert str(caught.value) == (
        "2 attempts for 'm' failed: a: AuthenticationError after 0.00 s; b: NetworkError after 0.00 s"
        "; the last one: reset"
    )
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.attempts == caught.value.attempts
    assert [a.provider for a in copy.attempts] == ["a", "b"]


def test_attempts_are_limited_over_all_providers(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=ServerError("1"), b=ServerError("2"), c=ServerError("3"), d=0.0)
    with pytest.raises(MaxRetriesExceededError):
        made.execute_with_fallback(request_)
    assert calls(made) == {"a": 1, "b": 1, "c": 1, "d": 0}
    assert made.execute_with_fallback(request_, max_attempts=4).provider == "d"


def test_an_exception_with_slots_passes_through(router: MakeRouter, request_: ChatRequest) -> None:
    class Torn(BaseException):
        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    made = router(a=Torn(), b=0.0)
    with pytest.raises(Torn):
        made.execute_with_fallback(request_)
    assert calls(made) == {"a": 1, "b": 0}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_a_thread_that_is_torn_away_leaves_no_trace(
    error: BaseException, router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    made, money = router(a=error, b=0.0), ledger()
    for _ in range(10):
        with pytest.raises(type(error)):
            made.execute_with_fallback(request_, reserve=money)
    health = made.health()["a"]
    assert (health["in_flight"], health["status"], health["success_rate"]) == (0, "healthy", None)
    assert all(entry[-1] == "released" for entry in money.entries)
    assert calls(made)["b"] == 0


def test_errors_and_calls_are_freed_without_the_collector(router: MakeRouter, request_: ChatRequest) -> None:
    class MarkedError(ServerError):
        pass

    raised: list[weakref.ref[BaseException]] = []

    def fail(_: ChatRequest) -> None:
        error = MarkedError("500")
        raised.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    def run(made: ProviderRouter) -> weakref.ref[BaseException]:
        try:
            made.execute_with_fallback(request_)
        except (MarkedError, MaxRetriesExceededError) as error:
            return weakref.ref(error)
        return raised[-1]

    gc.collect()
    gc.disable()
    try:
        assert run(router({"max_attempts": 1}, a=fail))() is None
        assert run(router({"max_attempts": 2}, a=fail, b=fail))() is None
        assert run(router(a=fail, b=0.0))() is None
    finally:
        gc.enable()


def test_what_is_no_response_counts_as_a_failure_of_the_provider(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0, b=0.0)
    made.get_provider("a").chat_completion = lambda _: {"text": "a dict"}
    response = made.execute_with_fallback(request_)
    assert [(a.provider, a.error) for a in response.attempts] == [("a", "ResponseFormatError"), ("b", None)]


def test_a_response_that_several_calls_share_is_not_changed(router: MakeRouter, request_: ChatRequest) -> None:
    shared = ChatResponse("same", Usage(1, 1), "m", "x")
    made = router(a=0.0)
    made.get_provider("a").chat_completion = lambda _: shared
    response = made.execute_with_fallback(request_)
    assert (shared.attempts, shared.provider) == ((), "x")
    assert (len(response.attempts), response.provider) == (1, "a")


# --- money


def test_money_is_held_for_each_attempt_and_settled_for_the_one_that_answered(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    error = ServerError("500")
    made, money = router(a=error, b=0.0), ledger()
    made.execute_with_fallback(request_, reserve=money)
    assert money.entries == [["a", 20.0, "released"], ["b", 30.0, ("settled", "fine")]]
    assert money.errors == [error]


def test_an_exhausted_budget_ends_the_call_before_anybody_is_asked(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    made = router(a=0.0, b=0.0)
    for _ in range(10):
        with pytest.raises(BudgetExceededError) as caught:
            made.execute_with_fallback(request_, reserve=ledger(BudgetExceededError("too little left")))
        assert caught.value.attempts == ()
    assert calls(made) == {"a": 0, "b": 0}
    assert made.health()["a"]["in_flight"] == 0
    assert made.health()["a"]["status"] == "healthy"


# --- metrics


def test_latency_failures_and_fallbacks_are_recorded(
    router: MakeRouter, request_: ChatRequest, tracker: PerformanceTracker
) -> None:
    made = router(a=(ServerError("500"), 0.25), b=0.75)
    for _ in range(2):
        made.execute_with_fallback(request_)
    latency = tracker.get_stats("provider_latency", tags={"provider": "b", "model": "m"})
    assert (latency["count"], round(latency["avg"], 6)) == (1, 0.75)
    assert tracker.get_stats("provider_latency", tags={"provider": "a", "model": "m"})["count"] == 1
    failures = {"provider": "a", "model": "m", "error": "ServerError"}
    assert tracker.get_stats("provider_failure", tags=failures)["sum"] == 1
    assert tracker.get_stats("provider_failure")["sum"] == 1
    assert tracker.get_stats("provider_fallback", tags={"provider": "a", "model": "m"})["sum"] == 1


def test_a_retry_at_the_same_provider_is_no_fallback(
    router: MakeRouter, request_: ChatRequest, tracker: PerformanceTracker
) -> None:
    router(a=(ServerError("500"), 0.0)).execute_with_fallback(request_)
    assert tracker.get_stats("provider_fallback") == {}


# --- choice of one


def test_a_pinned_provider_is_the_only_one_asked(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0, b=(NetworkError("reset"), 0.0))
    with pytest.raises(NetworkError):
        made.execute_with_fallback(request_, provider="b")
    assert reasons(made.execute_with_fallback(request_, provider="b")) == ["pinned"]
    assert calls(made) == {"a": 0, "b": 2}


def test_reasons_name_the_strategys_thought(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"strategy": "least_latency"}, a=2.0, b=0.12)
    assert [reasons(made.execute_with_fallback(request_)) for _ in range(3)] == [
        ["untried"],
        ["untried"],
        ["fastest 0.12 s"],
    ]


def test_a_strategy_that_raises_takes_nothing(
    router: MakeRouter, request_: ChatRequest, scripted: type[Scripted]
) -> None:
    def broken(candidates: Any, request: Any) -> Any:
        raise LookupError("bug")

    made = router({"strategy": broken}, a=0.0, b=0.0)
    with pytest.raises(LookupError):
        made.execute_with_fallback(request_)
    assert calls(made) == {"a": 0, "b": 0}
    assert made.health()["a"]["in_flight"] == 0
