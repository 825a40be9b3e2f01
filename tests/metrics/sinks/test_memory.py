from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from perfkit import Client, ProviderRouter
from perfkit.errors import AuthenticationError
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sinks.memory import Emitted, MemorySink
from perfkit.providers import create_provider
from perfkit.testing import faults

if TYPE_CHECKING:
    from perfkit.testing import FaultServer


def test_what_is_emitted_can_be_read() -> None:
    sink = MemorySink()
    sink.emit("timing", "x", 0.5, {"a": "b"})
    assert list(sink.emitted) == [Emitted("timing", "x", 0.5, {"a": "b"})]
    sink.close()
    assert sink.emitted[0].tags == {"a": "b"}


def test_only_the_newest_are_kept() -> None:
    sink = MemorySink(size=3)
    for n in range(10):
        sink.emit("counter", "x", n, {})
    assert [each.value for each in sink.emitted] == [7, 8, 9]


def test_calls_are_kept_too(fault: FaultServer) -> None:
    tracker = PerformanceTracker()
    sink: Any = tracker.add_sink("memory")
    router = ProviderRouter(tracker=tracker)
    router.register_provider("a", create_provider("openai", base_url=fault.base_url, api_key="k", models=["m"]))
    client = Client(router=router, tracker=tracker)
    answer = client.chat("hello", model="m")
    "".join(client.stream("stream", model="m"))
    fault.behave(faults.unauthorized())
    with pytest.raises(AuthenticationError):
        client.chat("fails", model="m", cache="never")
    plain, streamed, failed = sink.calls
    assert (plain.response.text, plain.chunks, plain.first_token) == (answer.text, 0, None)
    assert streamed.chunks > 0 < streamed.first_token < streamed.seconds
    assert (failed.response, type(failed.error), len(failed.attempts)) == (None, AuthenticationError, 1)
    tracker.close()
