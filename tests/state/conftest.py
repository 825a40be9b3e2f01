"""A link to the real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _servers import Redis, polled

from perfkit.errors import StateUnavailableError
from perfkit.metrics import PerformanceTracker
from perfkit.state import RedisLink


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker()


@pytest.fixture
def link(redis: Redis, tracker: PerformanceTracker) -> Iterator[RedisLink]:
    link = RedisLink(redis.url, timeout=5.0, tracker=tracker)  # a busy machine is no outage
    polled(lambda: reachable(link))
    yield link
    link.close()


def reachable(link: RedisLink) -> bool:
    try:
        return bool(link.call("PING") == b"PONG" or link.call("PING"))
    except StateUnavailableError:
        return False
