"""Slow web requests, tasks and calls are caught though nobody profiles them; where that is off they are not entered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from _shop import set_up
from django.test import Client
from flask import Flask

import perfkit
from perfkit.integrations._web import Visits
from perfkit.integrations.flask import Perfkit
from perfkit.integrations.wsgi import PerfkitMiddleware
from perfkit.metrics.operations import operations
from perfkit.pipeline.stream import ChatStream, begun_within
from perfkit.profiling import SlowRun, frames
from perfkit.values import ChatRequest, ChatResponse, Usage

pytestmark = pytest.mark.skipif(frames.FREE_THREADED, reason="stacks are not taken on free-threaded builds")
ON = {"slow_capture": "on", "slow_threshold": 60.0}  # until the provider has been asked
ANSWER = ChatResponse("yes", Usage(1, 1), "m", "sleepy")


class Sleepy:
    """A provider that answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def chat_completion(self, _: ChatRequest) -> ChatResponse:
        self.asked.set()
        self.go.wait(20)
        return ANSWER


@pytest.fixture
def provider() -> Iterator[Sleepy]:
    perfkit.configure(profiler=ON, client={"default_model": "m"})
    sleepy = Sleepy()
    perfkit.router.register_provider("sleepy", sleepy, models=["m"])
    yield sleepy
    sleepy.go.set()


def caught(provider: Sleepy, work: Callable[[], object], names: set[str]) -> dict[str, SlowRun]:
    """Do work in a thread until runs of these names are caught in the act; then let it go on to its end."""
    thread = threading.Thread(target=work, name="the one")
    thread.start()
    assert provider.asked.wait(20)
    perfkit.profiler.configure(slow_threshold=0.05)
    until = time.monotonic() + 15
    while not names <= (found := {slow.operation: slow for slow in perfkit.profiler.slow_captures()}).keys():
        assert time.monotonic() < until, found
        time.sleep(0.01)
    provider.go.set()
    thread.join()
    assert {slow.thread for slow in found.values()} == {"the one"}
    assert all(slow.duration is not None for slow in found.values())
    return found


def providers_of(slow: SlowRun) -> list[str]:
    return [one["name"] for one in slow.overlapped if one["kind"] == "provider"]


def chat(**more: Any) -> Callable[[], Any]:
    return lambda: perfkit.chat("hi", cache="never", **more)


@pytest.mark.parametrize("hedge", [None, 10.0])
def test_a_slow_call_is_caught_and_names_its_provider(provider: Sleepy, hedge: float | None) -> None:
    if hedge is not None:
        perfkit.router.register_provider("spare", provider, models=["m"])
        perfkit.configure(router={"strategy": "round_robin"})
    found = caught(provider, chat(hedge=hedge), {"chat m"})
    assert len(providers_of(found["chat m"])) == 1
    assert "chat_completion" in str([one.stack for one in found["chat m"].captures]) or hedge is not None
    [kept] = perfkit.profiler.get_performance_summary("chat m")
    assert kept["success"]


def test_a_slow_stream_is_caught_too(provider: Sleepy) -> None:
    found = caught(provider, lambda: list(perfkit.stream("hi", cache="never")), {"stream m"})
    assert providers_of(found["stream m"]) == ["sleepy"]


def test_a_slow_request_of_flask_is_caught_by_its_route(provider: Sleepy) -> None:
    app = Flask("slow")
    app.config["PERFKIT"] = {"profiler": ON, "client": {"default_model": "m"}}
    Perfkit(app)
    perfkit.router.register_provider("sleepy", provider, models=["m"])
    app.add_url_rule("/ask/<int:n>", "ask", lambda n: f"{n} {chat()().text}")

    def visit() -> None:
        with app.test_client().get("/ask/1") as reply:
            assert reply.data == b"1 yes"

    found = caught(provider, visit, {"GET /ask/<int:n>", "chat m"})
    assert providers_of(found["GET /ask/<int:n>"]) == ["sleepy"]


def test_a_slow_request_of_django_is_caught_by_its_route(provider: Sleepy) -> None:
    set_up()
    found = caught(provider, lambda: Client().get("/ask/7"), {"GET ask/<int:number>"})
    assert providers_of(found["GET ask/<int:number>"]) == ["sleepy"]


def test_a_slow_request_of_any_other_application_is_caught_to_the_end_of_its_body(provider: Sleepy) -> None:
    def app(_: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        yield chat()().text.encode()

    def serve() -> None:
        reply: Any = PerfkitMiddleware(app)({}, lambda *_: lambda _: None)
        assert list(reply) == [b"yes"]
        reply.close()

    found = caught(provider, serve, {"http_server_request", "chat m"})
    assert providers_of(found["http_server_request"]) == ["sleepy"]


def test_a_failed_request_is_told_as_one_that_failed() -> None:
    perfkit.configure(profiler=ON)
    Visits().begin().end(method="GET", route="", status="5xx")
    [kept] = perfkit.profiler.get_performance_summary("http_server_request")
    assert (kept["success"], kept["error"]) == (False, "5xx")


def test_a_request_that_was_never_closed_is_not_blamed_for_what_its_thread_does_next() -> None:
    perfkit.configure(profiler=ON)
    visits = Visits()
    visits.begin()
    second = visits.begin()
    assert len([run for run in operations.running if run.thread == threading.get_ident()]) == 1
    second.end()
    assert not [run for run in operations.running if run.thread == threading.get_ident()]


def test_where_nothing_is_caught_nothing_is_entered(provider: Sleepy) -> None:
    perfkit.configure(profiler={"slow_capture": "off"})
    provider.go.set()
    visit = Visits().begin()
    chat()()
    assert not operations.watched
    visit.named("x")
    visit.end()
    list(perfkit.stream("hi", cache="never"))
    assert perfkit.profiler.get_performance_summary() == {}
    perfkit.configure(profiler=ON)
    chat()()
    assert list(perfkit.profiler.get_performance_summary()) == ["chat m"]


@pytest.mark.parametrize("pieces", [[], ["one"], ["one", "two"]])
def test_a_watched_stream_is_the_stream_itself(pieces: list[str]) -> None:
    def deltas() -> Generator[str, None, ChatResponse]:
        yield from pieces
        return ANSWER

    stream = ChatStream(begun_within(perfkit.profile("stream"), deltas()))
    assert list(stream) == pieces
    assert stream.response is ANSWER
    [kept] = perfkit.profiler.get_performance_summary("stream")
    assert kept["success"]


def test_a_watched_stream_that_is_left_closes_the_one_behind_it() -> None:
    closed = []

    def deltas() -> Generator[str, None, ChatResponse]:
        try:
            yield "one"
        finally:
            closed.append(True)
        return ANSWER

    stream = ChatStream(begun_within(perfkit.profile("stream"), deltas()))
    assert next(stream) == "one"
    stream.close()
    assert closed == [True]
