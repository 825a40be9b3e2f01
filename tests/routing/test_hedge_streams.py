"""A second stream when the first says nothing for long: whose text comes first, what is cut off, what is paid."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from _draining import drained

import perfkit
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.testing.faults import FaultServer, cut, ok, stall
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from routing.conftest import Ledger, SlowClock

    MakeRouter = Callable[..., ProviderRouter]

HELLO: Any = "hello"  # one user message
AT_ONCE = 0.001
TEXT = "one two three four five six"


@pytest.fixture
def other() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def pair(fault: FaultServer, other: FaultServer) -> Iterator[ProviderRouter]:
    """A router that asks `fault` first, then `other`."""
    router = ProviderRouter(strategy="priority", hedge_share=1.0, tracker=PerformanceTracker())
    for name, server in (("first", fault), ("second", other)):
        provider = create_provider("openai", name=name, base_url=server.base_url, api_key="k")
        router.register_provider(name, provider, priority=1 + (name == "second"))
    yield router
    router.close()


def test_the_first_stream_with_text_wins_and_the_other_is_cut_off_at_once(
    pair: ProviderRouter, fault: FaultServer, other: FaultServer
) -> None:
    fault.behave(stall(ok(TEXT), after_events=1))  # the head and the role, but no text
    other.behave(ok(TEXT))
    for number in range(1, 4):
        text, response = drained(pair.stream_with_fallback(ChatRequest(HELLO, "m", timeout=30), hedge=0.4))
        assert (text, response.text, response.provider) == (TEXT, TEXT, "second")
        assert [(a.provider, a.outcome) for a in response.attempts] == [("first", "cancelled"), ("second", "ok")]
        seen = fault.wait_until(lambda seen: seen["aborted_by_client"] == number)  # noqa: B023 - runs within this turn
        assert (seen["requests"], seen["aborted_by_client"]) == (number, number)
    seen = other.wait_until(lambda seen: seen["completed"] == 3)
    assert (seen["requests"], seen["aborted_by_client"]) == (3, 0)


def test_the_usual_time_to_the_first_text_is_the_delay(
    pair: ProviderRouter, fault: FaultServer, other: FaultServer
) -> None:
    asked = ChatRequest(HELLO, "m", timeout=30)
    for _ in range(19):
        assert drained(pair.stream_with_fallback(asked))[1].provider == "first"
    assert pair._candidates["first"].usual_first_token() is None
    fault.behave(ok(TEXT, delay=0.25))  # the usual delay, which leaves the first time to be sent
    drained(pair.stream_with_fallback(asked))
    fault.behave(stall(ok(TEXT), after_events=1))
    assert drained(pair.stream_with_fallback(asked, hedge=True))[1].provider == "second"
    fault.wait_until(lambda seen: seen["aborted_by_client"] == 1)
    assert (fault.counters()["requests"], other.counters()["requests"]) == (21, 1)


def test_the_delay_is_of_the_first_text_not_of_the_whole_stream(router: MakeRouter, clock: SlowClock) -> None:
    made = router(a=[lambda _: clock.advance(0.25), "one ", lambda _: clock.advance(9.0), "two"])
    for _ in range(20):
        drained(made.stream_with_fallback(ChatRequest(HELLO, "m", timeout=60)))
    assert made._candidates["a"].usual_first_token() == pytest.approx(0.25)
    assert made._candidates["a"].usual_latency() == pytest.approx(9.25)


def test_streams_are_not_hedged_unless_asked_to(router: MakeRouter, request_: ChatRequest) -> None:
    names: list[str] = []
    made = router(a=[lambda _: names.append(threading.current_thread().name), "fine"], b=["other"])
    assert drained(made.stream_with_fallback(request_))[0] == "fine"
    assert names == [threading.current_thread().name]


def test_second_streams_stay_within_their_share(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"hedge": True, "hedge_delay": AT_ONCE}, a=["fine"], b=["other"])
    for _ in range(100):
        done = threading.Event()
        made.get_provider("a").script = [[lambda _, done=done: done.wait(0.004), "fine"]]
        drained(made.stream_with_fallback(request_))
    assert 1 <= made.get_provider("b").calls <= 0.02 * 100 + 1
    made.close()


class Together:
    """Threads of which the first begins only with the second."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def submit(self, *work: Any) -> None:
        self.held.append(work)
        if len(self.held) == 2:
            for run, *args in self.held:
                run(*args)

    def shutdown(self, wait: bool) -> None:
        """Nothing to end."""


def test_a_second_stream_that_has_begun_too_is_closed_and_paid(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    made, money = router({"hedge_share": 1.0}, a=["one ", "two"], b=["other ", "text"]), ledger()
    made._racer._pool = Together()  # type: ignore[assignment]
    text, response = drained(made.stream_with_fallback(request_, hedge=AT_ONCE, reserve=money))
    assert (text, response.provider) == ("one two", "a")
    assert made.get_provider("b").closed == 1
    assert [entry[-1] for entry in money.entries] == [("settled", "one two"), "released"]
    assert getattr(money.errors[0], "sent", None) is True  # so what the provider did for it is paid
    assert [health["in_flight"] for health in made.health().values()] == [0, 0]


@pytest.mark.parametrize("text", [["fine"], []])
def test_what_fails_before_its_text_is_replaced(router: MakeRouter, request_: ChatRequest, text: list[str]) -> None:
    made = router({"hedge": True}, a=[perfkit.errors.ServerError("500")], b=text)
    heard, response = drained(made.stream_with_fallback(request_))
    assert (heard, response.text) == ("".join(text), "".join(text))
    assert [(a.provider, a.outcome) for a in response.attempts] == [("a", "error"), ("b", "ok")]
    made.close()


def test_who_leaves_a_hedged_stream_ends_it_at_the_provider(pair: ProviderRouter, fault: FaultServer) -> None:
    fault.behave(stall(ok(TEXT), after_events=3))
    deltas = pair.stream_with_fallback(ChatRequest(HELLO, "m", timeout=30), hedge=20.0)
    assert next(deltas)
    deltas.close()
    assert fault.wait_until(lambda seen: seen["aborted_by_client"] == 1)["requests"] == 1
    assert pair.health()["first"]["in_flight"] == 0


def test_a_hedged_stream_that_breaks_off_is_resumed(
    pair: ProviderRouter, fault: FaultServer, other: FaultServer
) -> None:
    fault.behave(cut(ok(TEXT), after_events=3))
    other.behave(ok(TEXT))
    asked = ChatRequest(HELLO, "m", timeout=30)
    text, response = drained(pair.stream_with_fallback(asked, hedge=20.0, resume=True))
    assert (text, response.text) == (TEXT, TEXT)
    assert [a.outcome for a in response.attempts] == ["error", "ok"]


def test_the_price_of_a_hedged_stream_is_counted(fault: FaultServer, other: FaultServer) -> None:
    servers = {"first": fault, "second": other}
    perfkit.configure(
        providers={
            name: {"kind": "openai", "base_url": server.base_url, "api_key": "k", "models": ["tiny"], "priority": rank}
            for rank, (name, server) in enumerate(servers.items(), 1)
        },
        router={"strategy": "priority", "hedge_share": 1.0},
        tokens={"prices": {"tiny": {"input": 1.0, "output": 1.0}}},
    )
    fault.behave(stall(ok(TEXT), after_events=1))
    other.behave(ok(TEXT))
    with perfkit.stream("one two three", model="tiny", cache="never", hedge=0.5) as stream:
        assert "".join(stream) == TEXT
    report = perfkit.optimizer.get_usage_report(group_by=("provider",))
    assert report["first"]["total_cost"] > 0  # its prompt, by estimate
    assert stream.response is not None
    assert report["second"]["total_cost"] == pytest.approx(stream.response.cost)
    assert fault.wait_until(lambda seen: seen["aborted_by_client"] == 1)["requests"] == 1
