"""Our own limits for a provider: what a call does when they are used up."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from perfkit.clock import FakeClock
from perfkit.errors import NoAvailableProviderError, OverloadedError, RateLimitError, ServerError
from perfkit.routing import ProviderRouter
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import Ledger, Scripted, SlowClock

    from perfkit.metrics import PerformanceTracker

    MakeRouter = Callable[..., ProviderRouter]

HELLO: Any = "hello"  # one user message


def limited(router: ProviderRouter, name: str, **terms: Any) -> None:
    router.register_provider(name, router.get_provider(name), priority=1, **terms)


def test_the_limit_a_minute_is_never_passed_and_97_percent_of_it_used(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made, times = router(a=0.0), deque[float]()
    made.get_provider("a").script = [lambda _: times.append(clock.now())]
    limited(made, "a", rpm=120)
    began = clock.now()
    while clock.now() < began + 600:
        made.execute_with_fallback(request_)
    window: deque[float] = deque()
    for time in times:
        window.append(time)
        while window[0] <= time - 60:
            window.popleft()
        assert len(window) <= 120
    assert len(times) >= 0.97 * 1200


def test_another_provider_serves_what_is_above_the_limit_without_a_wait(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=0.0, b=0.0)
    limited(made, "a", rpm=60)
    answered = [made.execute_with_fallback(request_).provider for _ in range(20)]
    assert (answered.count("a"), answered.count("b")) == (1, 19)
    assert clock.slept == []


def test_nobody_waits_for_a_limit_beyond_the_deadline(router: MakeRouter, clock: SlowClock) -> None:
    made = router({"queue_timeout": 100.0}, a=0.0)
    limited(made, "a", rpm=1)
    made.execute_with_fallback(ChatRequest(HELLO, "m", timeout=10))
    with pytest.raises(OverloadedError, match=r"a: its limit a minute lets the next call go in 6\d\.\d s") as caught:
        made.execute_with_fallback(ChatRequest(HELLO, "m", timeout=10))
    assert isinstance(caught.value, NoAvailableProviderError)
    assert (caught.value.attempts, clock.slept) == ((), [])
    assert made.execute_with_fallback(ChatRequest(HELLO, "m", timeout=90)).attempts[0].reason == "waited for its limits"
    assert made.get_provider("a").calls == 2


def test_tokens_are_taken_by_estimate_and_corrected_by_the_answer(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router(a=0.0)
    limited(made, "a", tpm=600)
    for _ in range(60):
        made.execute_with_fallback(request_)  # eight tokens each, where 256 and more were expected
    assert 45 <= clock.now() - 1000 <= 80


def test_no_more_calls_than_the_bulkhead_allows_run_and_the_rest_waits(
    router: MakeRouter, request_: ChatRequest
) -> None:
    made, lock, inside, most = router(a=0.0), threading.Lock(), 0, 0

    def work(_: ChatRequest) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        busy.wait(0.001)  # long enough for others to come
        with lock:
            inside -= 1

    busy = threading.Event()
    made.get_provider("a").script = [work]
    limited(made, "a", max_concurrency=3)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: made.execute_with_fallback(request_).text, range(400)))
    assert answers == ["fine"] * 400
    assert 1 <= most <= 3
    health = made.health()["a"]
    assert (health["in_flight"], health["waiting"]) == (0, 0)


def test_when_the_queue_is_full_calls_are_shed_with_a_typed_error(
    router: MakeRouter, request_: ChatRequest, tracker: PerformanceTracker
) -> None:
    made, inside, go_on = router({"max_waiting": 2}, a=0.0), threading.Event(), threading.Event()

    def work(_: ChatRequest) -> None:
        inside.set()
        assert go_on.wait(20)

    made.get_provider("a").script = [work]
    limited(made, "a", max_concurrency=1)
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(made.execute_with_fallback, request_) for _ in range(3)]
        assert inside.wait(10)
        while made.health()["a"]["waiting"] < 2:
            inside.wait(0.001)
        with pytest.raises(OverloadedError, match=r"1 of 1 calls under way, 2 of 2 waiting .*; the queue is full"):
            made.execute_with_fallback(request_)
        go_on.set()
        assert [one.result(10).text for one in running] == ["fine"] * 3
    assert made.get_provider("a").calls == 3
    assert tracker.get_stats("provider_shed")["sum"] == 1


def test_a_call_goes_elsewhere_rather_than_into_a_queue(router: MakeRouter, request_: ChatRequest) -> None:
    made, go_on = router(a=0.0, b=0.0), threading.Event()
    inside = threading.Event()

    def work(_: ChatRequest) -> None:
        inside.set()
        assert go_on.wait(20)

    made.get_provider("a").script = [work]
    limited(made, "a", max_concurrency=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(made.execute_with_fallback, request_)
        assert inside.wait(10)
        assert [made.execute_with_fallback(request_).provider for _ in range(5)] == ["b"] * 5
        go_on.set()
        assert first.result(10).provider == "a"


@pytest.mark.parametrize("error", [ServerError("500"), RateLimitError("429"), KeyboardInterrupt()], ids=repr)
def test_every_end_gives_the_place_back(error: BaseException, router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"max_attempts": 1, "failure_threshold": 1000}, a=error)
    limited(made, "a", max_concurrency=1)
    with pytest.raises(type(error)):
        made.execute_with_fallback(request_)
    gates = made._candidates["a"].gates
    assert gates is not None
    assert gates.bulkhead is not None
    assert gates.bulkhead.inside == 0


def test_a_stream_holds_its_place_until_it_ends_or_is_left(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"queue_timeout": 0.01}, a=["one", "two"])
    limited(made, "a", max_concurrency=1)
    for _ in range(3):
        deltas = made.stream_with_fallback(request_)
        next(deltas)
        with pytest.raises(OverloadedError):
            made.execute_with_fallback(request_)
        deltas.close()
    assert "".join(made.stream_with_fallback(request_)) == "onetwo"


def test_an_adaptive_limit_falls_when_the_provider_refuses(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"max_attempts": 1}, a=RateLimitError("429", retry_after=0.0))
    limited(made, "a", max_concurrency="adaptive")
    gates = made._candidates["a"].gates
    assert gates is not None
    assert gates.bulkhead is not None
    for _ in range(30):
        with pytest.raises(RateLimitError):
            made.execute_with_fallback(request_)
    assert gates.bulkhead.limit == 1


# --- money


def test_a_request_that_may_cost_too_much_goes_to_somebody_else(router: MakeRouter) -> None:
    request = ChatRequest(HELLO, "gpt-4o", max_tokens=1000)  # a cent
    made = router(a=0.0, b=0.0)
    limited(made, "a", cost_limit_per_request=0.001)
    assert made.execute_with_fallback(request).provider == "b"
    with pytest.raises(NoAvailableProviderError, match=r"may cost \$0\.01\d+, above its limit of \$0\.001 a request"):
        made.execute_with_fallback(request, provider="a")
    assert made.execute_with_fallback(request.evolve(max_tokens=5)).provider == "a"


def test_a_daily_limit_ends_with_the_day(router: MakeRouter, clock: SlowClock) -> None:
    request = ChatRequest(HELLO, "gpt-4o")  # three tokens in, five out: $0.0000575
    made = router(a=0.0, b=0.0)
    limited(made, "a", cost_limit_per_day=0.0003)
    answered = [made.execute_with_fallback(request).provider for _ in range(10)]
    assert answered == ["a"] * 6 + ["b"] * 4
    with pytest.raises(NoAvailableProviderError, match=r"cost limit of \$0\.0003 a day is reached"):
        made.execute_with_fallback(request, provider="a")
    clock.advance(86_400)
    assert made.execute_with_fallback(request).provider == "a"


def test_a_refused_budget_gives_limits_back(router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]) -> None:
    made = router(a=0.0)
    limited(made, "a", max_concurrency=1)
    for _ in range(3):
        with pytest.raises(LookupError):
            made.execute_with_fallback(request_, reserve=ledger(LookupError("no money")))
    assert made.execute_with_fallback(request_).text == "fine"


# --- registration


@pytest.mark.parametrize(
    ("terms", "error"),
    [
        ({"rpm": 0}, ValueError),
        ({"tpm": "many"}, TypeError),
        ({"max_concurrency": 0}, ValueError),
        ({"max_concurrency": "some"}, TypeError),
        ({"max_concurrency": True}, TypeError),
        ({"cost_limit_per_day": -1}, ValueError),
        ({"quality": float("nan")}, ValueError),
        ({"capabilities": ["telepathy"]}, ValueError),
        ({"capabilities": "tools"}, TypeError),
        ({"context_window": 0}, ValueError),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(
    terms: dict[str, Any], error: type[Exception], router: MakeRouter, scripted: type[Scripted]
) -> None:
    made = router()
    with pytest.raises(error):
        made.register_provider("a", scripted(FakeClock()), **terms)
    assert made.list_providers() == ()


def test_a_forked_child_forgets_who_waited(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0)
    limited(made, "a", max_concurrency=1)
    gates = made._candidates["a"].gates
    assert gates is not None
    assert gates.try_pass(request_)
    made._after_fork()
    assert made.execute_with_fallback(request_).text == "fine"


def test_a_longer_queue_reaches_providers_that_are_registered_already(router: MakeRouter, clock: SlowClock) -> None:
    made = router({"max_waiting": 0}, a=0.0)
    limited(made, "a", rpm=60)
    with ThreadPoolExecutor(1) as pool:  # the second call has to wait: refused at first, let in afterwards
        made.execute_with_fallback(ChatRequest(HELLO, "m", timeout=30))
        with pytest.raises(OverloadedError):
            pool.submit(made.execute_with_fallback, ChatRequest(HELLO, "m", timeout=30)).result()
        made.configure(max_waiting=5)
        pool.submit(made.execute_with_fallback, ChatRequest(HELLO, "m", timeout=30)).result()
    assert clock.slept
