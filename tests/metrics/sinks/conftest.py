"""A StatsD sink on the fake clock, and the daemon it sends to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from perfkit.clock import FakeClock
from perfkit.metrics.sinks.statsd import StatsdSink


@pytest.fixture
def sink(udp: Any, clock: FakeClock) -> Iterator[StatsdSink]:
    made = StatsdSink(udp.address, clock=clock)
    yield made
    made.close()
