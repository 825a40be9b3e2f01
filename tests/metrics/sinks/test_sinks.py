"""What every registered sink does."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest
from _forks import in_child

from perfkit.metrics import SINKS

if TYPE_CHECKING:
    from perfkit.metrics.sinks import Kind, Sink

KINDS: tuple[Kind, ...] = ("timing", "value", "counter", "gauge")


@pytest.fixture(params=list(SINKS))
def sink(request: pytest.FixtureRequest) -> Sink:
    made: Sink = SINKS.get(request.param)()
    return made


def test_a_sink_is_made_without_thread_or_socket(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(socket, "socket", lambda *_: made.append("socket"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: made.append("look-up"))
    monkeypatch.setattr(threading.Thread, "start", lambda _: made.append("thread"))
    type(sink)()
    assert made == []


def test_a_sink_takes_every_kind_and_any_name(sink: Sink) -> None:
    for kind in KINDS:
        for value in (0, 1, -1, 0.5, 1e300, -1e-300):
            sink.emit(kind, "näme\n|#:", value, {"tag": "välue", "": ""})
    sink.flush()
    sink.close()


def test_a_sink_can_be_flushed_and_closed_again_and_used_afterwards(sink: Sink) -> None:
    for _ in range(2):
        sink.flush()
        sink.emit("counter", "x", 1, {})
        sink.close()
        sink.close()


def test_a_sink_works_in_a_forked_child(sink: Sink) -> None:
    sink.emit("counter", "x", 1, {})

    def work() -> str:
        sink.emit("counter", "x", 1, {})
        sink.close()
        return "done"

    assert in_child(work) == "done"


def test_threads_may_emit_together(sink: Sink) -> None:
    errors: list[Exception] = []

    def emit() -> None:
        try:
            for i in range(500):
                sink.emit("timing", "x", 0.1, {"n": str(i)})
                sink.flush()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=emit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    assert errors == []
