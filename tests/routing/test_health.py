from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from perfkit.errors import (
    AuthenticationError,
    DeadlineExceeded,
    ModelNotFoundError,
    NetworkError,
    NoAvailableProviderError,
    PerfkitError,
    PoolTimeout,
    RateLimitError,
    ServerError,
)
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import SlowClock

    from perfkit.routing import Candidate, ProviderRouter

    MakeRouter = Callable[..., ProviderRouter]


HELLO: Any = "hello"  # one user message


def fail(router: ProviderRouter, request: ChatRequest, times: int = 1, **options: Any) -> None:
    for _ in range(times):
        with pytest.raises((PerfkitError, OSError)):
            router.execute_with_fallback(request, max_attempts=1, **options)


def test_health_tells_real_numbers(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    made = router(a=(2.0, 2.0, 2.0, ServerError("secret text")))
    for _ in range(3):
        made.execute_with_fallback(request_)
    fail(made, request_)
    health = made.health()
    assert health == {
        "a": {
            "status": "degraded",
            "state": "closed",
            "reason": None,
            "avg_latency": pytest.approx(2.0),
            "success_rate": 75.0,
            "error": "ServerError",
            "model": "m",
            "in_flight": 0,
            "waiting": 0,
            "ejected": 0.0,
            "last_error": {"error": "ServerError", "at": clock.wall()},
            "cooldown": 0.0,
            "missing_models": [],
        }
    }
    assert "secret" not in json.dumps(health)


def test_an_untried_provider_is_healthy_without_numbers(router: MakeRouter) -> None:
    health = router(a=0.0).health()["a"]
    assert (health["status"], health["avg_latency"], health["success_rate"]) == ("healthy", None, None)


def test_the_success_rate_is_of_the_last_hundred_attempts(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=(NetworkError("reset"), 0.0))
    fail(made, request_)
    for done in range(1, 100):
        made.execute_with_fallback(request_)
        assert made.health()["a"]["success_rate"] == pytest.approx(100 * done / (done + 1))
    made.execute_with_fallback(request_)
    assert made.health()["a"]["success_rate"] == 100.0


def test_a_failure_is_no_sample_of_latency(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    def slow_failure(_: ChatRequest) -> None:
        clock.advance(20)
        raise ServerError("500")

    made = router(a=(1.0, slow_failure))
    made.execute_with_fallback(request_)
    fail(made, request_)
    assert made.health()["a"]["avg_latency"] == pytest.approx(1.0)


# --- the circuit


@pytest.mark.parametrize("error", [ServerError("500"), NetworkError("refused", sent=False), TimeoutError("own")])
def test_five_failures_in_a_row_take_a_provider_out_of_use(
    error: Exception, router: MakeRouter, request_: ChatRequest
) -> None:
    made = router(a=(0.0, error), b=0.0)
    for _ in range(50):
        assert made.execute_with_fallback(request_).text == "fine"
    assert made.get_provider("a").calls == 6
    health = made.health()["a"]
    assert (health["status"], health["state"], health["cooldown"]) == ("unavailable", "open", 60.0)
    assert health["reason"] == f"circuit open, probe in 60.0 s, after {type(error).__name__}"


def test_a_recovered_provider_is_found_again_by_one_probe(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=(0.0, ServerError("500")), b=0.0)
    for _ in range(10):
        made.execute_with_fallback(request_)
    made.get_provider("a").script = [0.0]
    clock.advance(59)
    assert made.execute_with_fallback(request_).provider == "b"
    clock.advance(1)
    response = made.execute_with_fallback(request_)
    assert response.provider == "a"
    assert made.health()["a"]["state"] == "closed"


def test_a_probe_that_fails_costs_no_user_anything_and_waits_longer(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=ServerError("500"), b=0.0)
    for _ in range(580):
        clock.advance(1)
        assert made.execute_with_fallback(request_).provider == "b"
    assert made.get_provider("a").calls == 5 + 3  # after 60, then 96..120, then 192..240 s


def test_while_the_probe_is_out_all_others_go_elsewhere(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=ServerError("500"), b=0.0)
    for _ in range(5):
        made.execute_with_fallback(request_)
    clock.advance(60)
    barrier, answered = threading.Barrier(17), threading.Event()

    def wait_for_the_others(_: ChatRequest) -> None:
        assert answered.wait(10)

    made.get_provider("a").script = [wait_for_the_others]

    def ask(_: int) -> str:
        barrier.wait(10)
        return made.execute_with_fallback(request_).provider

    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(ask, number) for number in range(16)]
        barrier.wait(10)
        done: list[str] = []
        while len(done) < 15:
            done = [future.result() for future in futures if future.done()]
        assert set(done) == {"b"}
        answered.set()
        assert sorted(future.result(10) for future in futures) == ["a"] + ["b"] * 15
    assert made.get_provider("a").calls == 6


def test_calls_through_the_router_run_at_the_same_time(router: MakeRouter, request_: ChatRequest) -> None:
    made, inside = router(a=0.0), threading.Barrier(16)
    made.get_provider("a").script = [lambda _: inside.wait(10)]  # breaks unless all sixteen are there together
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: made.execute_with_fallback(request_).text, range(16)))
    assert answers == ["fine"] * 16


def test_sixteen_threads_waste_no_more_than_the_threshold_and_what_is_in_flight(
    router: MakeRouter, request_: ChatRequest
) -> None:
    made = router({"strategy": "round_robin"}, a=0.0, b=0.0)
    for _ in range(20):
        made.execute_with_fallback(request_)
    before = made.get_provider("a").calls
    made.get_provider("a").script = [ServerError("500")]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: made.execute_with_fallback(request_).provider, range(800)))
    assert set(answers) == {"b"}
    assert made.get_provider("a").calls - before <= 5 + 16


def test_when_all_circuits_are_open_calls_fail_at_once_with_reasons(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=ServerError("500"), b=NetworkError("reset"))
    fail(made, request_, 5, provider="a")
    fail(made, request_, 5, provider="b")
    calls = made.get_provider("a").calls
    with pytest.raises(NoAvailableProviderError) as caught:
        made.execute_with_fallback(request_)
    assert caught.value.reasons == {
        "a": "circuit open, probe in 60.0 s, after ServerError",
        "b": "circuit open, probe in 60.0 s, after NetworkError",
    }
    assert "a: circuit open" in str(caught.value)
    assert (made.get_provider("a").calls, clock.slept) == (calls, [])
    made.get_provider("b").script = [0.0]
    clock.advance(60)
    assert made.execute_with_fallback(request_).provider == "b"


def test_callers_in_a_hurry_do_not_open_the_circuit_for_the_patient(
    router: MakeRouter, request_: ChatRequest, hanging: object
) -> None:
    made = router(a=(10.0, hanging))
    made.execute_with_fallback(request_)
    fail(made, ChatRequest(HELLO, "m", timeout=1), 20)
    assert made.health()["a"]["state"] == "closed"
    fail(made, ChatRequest(HELLO, "m", timeout=6), 5)
    assert made.health()["a"]["state"] == "open"


def test_our_own_full_pool_does_not_open_the_circuit(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=PoolTimeout("all 20 connections are in use"))
    fail(made, request_, 20)
    assert made.health()["a"]["state"] == "closed"


# --- cooldown


def test_a_provider_that_limits_the_rate_is_left_alone_for_as_long_as_it_says(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=(RateLimitError("429", retry_after=8.0), 0.0), b=0.0)
    for _ in range(80):
        clock.advance(0.0999)
        made.execute_with_fallback(request_)
    assert made.get_provider("a").calls == 1
    health = made.health()["a"]
    assert (health["status"], health["state"]) == ("unavailable", "closed")
    assert health["cooldown"] == pytest.approx(8 - 79 * 0.0999)
    clock.advance(0.2)
    assert made.execute_with_fallback(request_).provider == "a"


def test_the_later_end_of_two_cooldowns_counts(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    def late_news(_: ChatRequest) -> None:
        fail(made, request_, provider="a")  # another call hears "30 s" meanwhile
        raise RateLimitError("429", retry_after=2.0)

    made = router(a=(late_news, RateLimitError("429", retry_after=30.0)), b=0.0)
    made.execute_with_fallback(request_)
    assert made.health()["a"]["cooldown"] == 30.0
    clock.advance(3)
    assert made.execute_with_fallback(request_).provider == "b"


def test_a_503_that_says_retry_after_is_heeded_too(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=ServerError("503", retry_after=4.0), b=0.0)
    for _ in range(3):
        made.execute_with_fallback(request_)
    assert made.get_provider("a").calls == 1
    assert made.health()["a"]["cooldown"] == 4.0


def test_rate_limits_never_open_the_circuit(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=RateLimitError("429", retry_after=0.0))
    fail(made, request_, 20)
    assert made.health()["a"]["state"] == "closed"
    assert made.health()["a"]["success_rate"] == 0.0


# --- quarantine


def test_a_refused_key_takes_a_provider_out_at_once_until_a_probe_succeeds(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=AuthenticationError("401"), b=0.0)
    for _ in range(20):
        assert made.execute_with_fallback(request_).provider == "b"
    assert made.get_provider("a").calls == 1
    assert made.health()["a"]["reason"] == "circuit open, probe in 60.0 s, after AuthenticationError"
    made.get_provider("a").script = [0.0]
    clock.advance(60)
    assert made.execute_with_fallback(request_).provider == "a"


def test_registering_anew_ends_the_quarantine(router: MakeRouter, request_: ChatRequest, scripted: Any) -> None:
    made = router(a=AuthenticationError("401"), b=0.0)
    made.execute_with_fallback(request_)
    made.register_provider("a", scripted(made._clock), priority=1)
    assert made.execute_with_fallback(request_).provider == "a"


def test_a_missing_model_is_not_asked_for_again_but_others_are(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=0.0, b=0.0)

    def only_other(request: ChatRequest) -> None:
        if request.model == "m":
            raise ModelNotFoundError("404")

    made.get_provider("a").script = [only_other]
    for _ in range(5):
        assert made.execute_with_fallback(request_).provider == "b"
        assert made.execute_with_fallback(ChatRequest(HELLO, "other")).provider == "a"
    assert [r.model for r in made.get_provider("a").requests].count("m") == 1
    assert made.health()["a"]["missing_models"] == ["m"]
    with pytest.raises(NoAvailableProviderError, match=r"a: does not have the model; asked again in 60\.0 s"):
        made.execute_with_fallback(request_, provider="a")
    clock.advance(60)
    made.get_provider("a").script = [0.0]
    assert made.execute_with_fallback(request_).provider == "a"
    assert made.health()["a"]["missing_models"] == []
    assert made.execute_with_fallback(request_).provider == "a"


def test_one_caller_asks_again_for_a_missing_model(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    made = router(a=ModelNotFoundError("404"), b=0.0)
    made.execute_with_fallback(request_)
    clock.advance(60)
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: made.execute_with_fallback(request_).provider, range(64))) == {"b"}
    assert made.get_provider("a").calls == 2


# --- threads


def test_when_another_call_takes_the_probe_in_between_the_next_provider_is_asked(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    def too_late(candidates: list[Candidate], _: Any) -> Candidate:
        assert candidates[0].breaker.acquire() is not None
        return candidates[0]

    made = router({"strategy": too_late}, a=ServerError("500"), b=0.0)
    fail(made, request_, 5, provider="a")
    clock.advance(60)
    assert made.execute_with_fallback(request_).provider == "b"
    assert made.get_provider("a").calls == 5


def test_what_other_calls_learn_in_between_is_heeded(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=ModelNotFoundError("404"))
    candidate = made._candidates["a"]
    assert candidate.why_not("m") == "was just taken by another call's probe"
    assert candidate.ready_at("m", 7.0) == 7.0
    fail(made, request_)
    assert candidate.admit(ChatRequest(HELLO, "m"), clock.now()) is None
    assert candidate.ready_at("m", 7.0) is None
    assert candidate.ready_at("other", 7.0) == 7.0
    assert candidate.in_flight == 0
    clock.advance(60)
    assert candidate.usable("m", clock.now())
    assert candidate.admit(ChatRequest(HELLO, "m"), clock.now()) is not None
    assert candidate.admit(ChatRequest(HELLO, "m"), clock.now()) is None


def test_counts_are_exact_under_threads(router: MakeRouter) -> None:
    made = router({"strategy": "round_robin"}, a=0.0, b=0.0)
    served: list[int] = []

    def odd(request: ChatRequest) -> None:
        served.append(1)
        if len(served) % 3 == 0:
            raise RateLimitError("429", retry_after=0.0)

    for name in "ab":
        made.get_provider(name).script = [odd]

    def ask(number: int) -> None:
        made.execute_with_fallback(ChatRequest(HELLO, f"m{number % 3}"), max_attempts=50)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(2000)))
    health = made.health()
    assert [health[name]["in_flight"] for name in "ab"] == [0, 0]
    assert made.get_provider("a").calls + made.get_provider("b").calls == len(served)


def test_in_flight_counts_attempts_under_way(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0)
    seen = []
    made.get_provider("a").script = [lambda _: seen.append(made.health()["a"]["in_flight"])]
    made.execute_with_fallback(request_)
    assert (seen, made.health()["a"]["in_flight"]) == ([1], 0)


def test_a_forked_child_forgets_the_parents_attempts(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0)
    inside: list[object] = []

    def forked(_: ChatRequest) -> None:
        made._candidates["a"]._lock.acquire()
        made._after_fork()
        inside.append(made.health()["a"]["in_flight"])
        made._candidates["a"].in_flight = 1

    made.get_provider("a").script = [forked]
    made.execute_with_fallback(request_)
    assert inside == [0]
    made._after_fork()


def test_the_repr_is_live(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=(1.5, ServerError("500")))
    candidate = made._candidates["a"]
    assert repr(candidate) == "<Candidate 'a' closed, 0 of 5 failures, untried, 0 in flight>"
    made.execute_with_fallback(request_)
    fail(made, request_)
    assert repr(candidate) == "<Candidate 'a' closed, 1 of 5 failures, 1.500 s, 0 in flight>"


def test_a_deadline_error_without_a_known_latency_counts(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=DeadlineExceeded("late"))
    fail(made, request_, 5)
    assert made.health()["a"]["state"] == "open"
