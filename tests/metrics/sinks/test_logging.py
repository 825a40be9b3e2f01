from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

import perfkit
from perfkit.metrics.sinks.logging import LoggingSink
from perfkit.testing import faults

if TYPE_CHECKING:
    from perfkit.clock import FakeClock
    from perfkit.testing import FaultServer


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "perfkit.metrics.values")


def test_a_line_a_series_is_logged_each_minute(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    sink = LoggingSink(clock=clock)
    for n in range(1, 1001):
        sink.emit("timing", "latency", n / 1000, {"provider": "a b"})
    sink.emit("counter", "hits", 3, {})
    sink.emit("counter", "hits", 4, {})
    sink.emit("gauge", "queue", 5, {})
    sink.flush()
    assert caplog.messages == []
    clock.advance(60)
    sink.flush()
    assert caplog.messages == [
        "latency provider='a b' count=1000 avg=0.5005 p50=0.497292 p95=0.952418 p99=0.994585 max=1",
        "hits +7",
        "queue min=5 max=5",
    ]
    sink.close()
    assert len(caplog.messages) == 3


def test_what_is_left_is_logged_at_close_in_one_line_whatever_the_name(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    sink = LoggingSink(clock=clock)
    sink.emit("counter", "a\nERROR forged", 1, {"t": "x\ny"})
    sink.close()
    assert caplog.messages == [r"a\nERROR forged t='x\ny' +1"]


def test_detailed_logging_is_a_line_for_each_call_without_its_text(
    fault: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}
    perfkit.configure(providers={"fake": row}, router={"max_attempts": 1}, metrics={"detailed_logging": True})
    perfkit.chat("secret question", model="gpt-4o", temperature=0)
    perfkit.chat("secret question", model="gpt-4o", temperature=0)
    fault.behave(faults.status(400))
    with pytest.raises(perfkit.PerfkitError):
        perfkit.chat("secret question", model="new\nline")
    fresh, cached, failed = caplog.messages
    assert "2 + 3 tokens, cost $0.000035, cached: no (asked: fake ok)" in fresh
    assert "cached: exact" in cached
    assert failed.startswith("'new\\nline': ")
    assert failed.endswith("BadRequestError (asked: fake BadRequestError)")
    assert "secret" not in caplog.text
    perfkit.configure(metrics={"detailed_logging": False})
    fault.reset()
    perfkit.chat("again", model="gpt-4o")
    assert len(caplog.messages) == 3


def test_calls_go_to_stderr_where_the_application_logs_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    perfkit.configure(metrics={"detailed_logging": True})
    assert perfkit.tracker.follows_calls
    log = logging.getLogger("perfkit.calls")
    [handler] = log.handlers
    record = log.makeRecord(log.name, logging.INFO, __file__, 1, "m", (), None)
    assert not handler.filter(record)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert handler.filter(record)
