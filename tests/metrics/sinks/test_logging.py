from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from perfkit.metrics.sinks.logging import LoggingSink

if TYPE_CHECKING:
    from perfkit.clock import FakeClock


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
