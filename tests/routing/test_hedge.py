"""A second request when the first takes long: who wins, what is cancelled, what is paid."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from _servers import polled

import perfkit
from perfkit.clock import FakeClock
from perfkit.errors import BadRequestError, MaxRetriesExceededError, ServerError
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.testing.faults import FaultServer, hang, ok
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import Ledger

    MakeRouter = Callable[..., ProviderRouter]

HELLO: Any = "hello"  # one user message
AT_ONCE = 0.001


def stuck(release: threading.Event) -> Any:
    def step(_: ChatRequest) -> None:
        assert release.wait(20)

    return step


def test_the_first_answer_wins_and_both_are_paid(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger], tracker: PerformanceTracker
) -> None:
    release, money = threading.Event(), ledger()
    made = router({"hedge_share": 1.0}, a=stuck(release), b=0.0)
    response = made.execute_with_fallback(request_, hedge=AT_ONCE, reserve=money)
    assert response.provider == "b"
    assert [(a.provider, a.outcome) for a in response.attempts] == [("a", "cancelled"), ("b", "ok")]
    assert response.attempts[1].reason == "only candidate beside the first after 0.00 s"
    assert [entry[-1] for entry in money.entries] == ["released", ("settled", "fine")]
    assert getattr(money.errors[0], "sent", None) is True  # so what the provider did for it is paid
    assert made.health()["a"]["in_flight"] == 0
    assert tracker.get_stats("provider_hedge")["sum"] == 1
    release.set()
    made.close()


def test_nobody_else_is_asked_while_the_first_is_quick(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"hedge_share": 1.0}, a=0.0, b=0.0)
    for _ in range(50):
        assert made.execute_with_fallback(request_, hedge=20.0).provider == "a"
    assert made.get_provider("b").calls == 0
    made.close()


def test_it_is_off_by_default(router: MakeRouter, request_: ChatRequest) -> None:
    threads: list[str] = []
    made = router(a=0.0, b=0.0)
    made.get_provider("a").script = [lambda _: threads.append(threading.current_thread().name)]
    made.execute_with_fallback(request_)
    assert threads == [threading.current_thread().name]


def test_second_requests_stay_within_their_share(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0, b=0.0)
    release = threading.Event()
    hedged = 0
    for _ in range(200):
        done = threading.Event()
        made.get_provider("a").script = [lambda _, done=done: done.wait(0.005)]
        hedged += made.execute_with_fallback(request_, hedge=AT_ONCE).provider == "b"
    assert made.get_provider("b").calls <= 0.02 * 200 + 1
    release.set()
    made.close()


def test_the_usual_delay_is_the_95th_percentile_and_unknown_at_first(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.001)
    candidate = made._candidates["a"]
    for _ in range(19):
        made.execute_with_fallback(request_)
    assert candidate.usual_latency() is None
    made.get_provider("a").script = [5.0]
    made.execute_with_fallback(request_)
    assert candidate.usual_latency() == pytest.approx(5.0)
    made.get_provider("a").script = [0.001]
    for _ in range(80):
        made.execute_with_fallback(request_)
    assert candidate.usual_latency() == pytest.approx(0.001)


def test_a_failed_first_waits_for_the_second_and_then_for_others(router: MakeRouter, request_: ChatRequest) -> None:
    asked = threading.Event()

    def fail_late(_: ChatRequest) -> None:
        assert asked.wait(20)
        raise ServerError("500")

    def answer_later(_: ChatRequest) -> None:
        asked.set()
        polled(lambda: made.health()["a"]["success_rate"] == 0)

    made = router({"hedge_share": 1.0}, a=fail_late, b=answer_later, c=0.0)
    response = made.execute_with_fallback(request_, hedge=AT_ONCE)
    assert [(a.provider, a.outcome) for a in response.attempts] == [("a", "error"), ("b", "ok")]
    made.close()


def test_when_both_fail_the_next_is_asked(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"hedge_share": 1.0}, a=ServerError("1"), b=ServerError("2"), c=0.0)
    assert made.execute_with_fallback(request_, hedge=20.0).provider == "c"
    with pytest.raises(MaxRetriesExceededError):
        router(a=ServerError("1"), b=ServerError("2")).execute_with_fallback(request_, 2, hedge=20.0)
    made.close()


def test_a_wrong_request_ends_the_race(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=BadRequestError("400"), b=0.0)
    with pytest.raises(BadRequestError):
        made.execute_with_fallback(request_, hedge=20.0)
    assert made.get_provider("b").calls == 0
    made.close()


def test_the_losers_connection_is_dropped_at_once(fault: FaultServer) -> None:
    with FaultServer() as other:
        router = ProviderRouter(strategy="priority", hedge_share=1.0, tracker=PerformanceTracker())
        for priority, server in enumerate((fault, other), 1):
            provider = create_provider("openai", name=f"p{priority}", base_url=server.base_url, api_key="k")
            router.register_provider(f"p{priority}", provider, priority=priority)
        fault.behave(hang())
        for number in range(1, 3):
            response = router.execute_with_fallback(ChatRequest(HELLO, "m", timeout=30), hedge=0.7)
            assert response.provider == "p2"
            seen = fault.wait_until(lambda seen: seen["aborted_by_client"] == number)  # noqa: B023 - runs within this turn
            assert seen["requests"] == number
        router.close()


def test_the_price_of_a_hedge_is_counted(fault: FaultServer) -> None:
    with FaultServer() as other:
        perfkit.configure(
            providers={
                "first": {
                    "kind": "openai",
                    "base_url": fault.base_url,
                    "api_key": "k",
                    "models": ["tiny"],
                    "priority": 1,
                },
                "second": {
                    "kind": "openai",
                    "base_url": other.base_url,
                    "api_key": "k",
                    "models": ["tiny"],
                    "priority": 2,
                },
            },
            router={"strategy": "priority", "hedge": True, "hedge_delay": 0.05, "hedge_share": 1.0},
            tokens={"prices": {"tiny": {"input": 1.0, "output": 1.0}}},
        )
        fault.behave(hang())
        other.behave(ok("fine"))
        response = perfkit.chat("one two three", model="tiny", cache="never")
        assert (response.provider, response.text) == ("second", "fine")
        report = perfkit.optimizer.get_usage_report(group_by=("provider",))
        assert report["first"]["total_cost"] > 0  # its prompt, by estimate
        assert report["second"]["total_cost"] == pytest.approx(response.cost)


def test_a_forked_child_makes_threads_of_its_own(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=0.0)
    made.execute_with_fallback(request_, hedge=20.0)
    made._after_fork()
    assert made._racer._pool is None
    assert made.execute_with_fallback(request_, hedge=20.0).text == "fine"
    made.close()


def test_two_hundred_calls_use_threads_again(router: MakeRouter, request_: ChatRequest) -> None:
    made, names = router(a=0.0), set()
    made.get_provider("a").script = [lambda _: names.add(threading.get_ident())]
    for _ in range(200):
        made.execute_with_fallback(request_, hedge=20.0)
    assert len(names) < 10
    assert isinstance(made._clock, FakeClock)
    made.close()
