"""Workers that share their metrics: trackers on a fake clock, each through a store of its own on the same blobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _servers import Redis, polled

import perfkit
from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sharing import Store
from perfkit.metrics.sharing.stores import store_of
from perfkit.state import StateHub

Hire = Callable[..., PerformanceTracker]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "metrics"


@pytest.fixture(params=["files", "redis"])
def setting(request: pytest.FixtureRequest, directory: Path) -> str:
    """What `[metrics] store` says."""
    if request.param == "files":
        return str(directory)
    server: Redis = request.getfixturevalue("redis")
    perfkit.configure(state={"url": server.url, "timeout": 5.0})
    link = StateHub.instance().redis
    assert link is not None
    polled(lambda: answers(link))
    return "redis"


def answers(link: Any) -> bool:
    try:
        return bool(link.call("PING"))
    except OSError:
        return False


@pytest.fixture
def store(setting: str) -> Store:
    return store_of(setting)


@pytest.fixture
def hire(setting: str, clock: FakeClock) -> Iterator[Hire]:
    """Make workers whose slots are told when the test says so."""
    hired: list[PerformanceTracker] = []

    def build(**settings: Any) -> PerformanceTracker:
        worker = PerformanceTracker(**{"clock": clock, "store": setting, **settings})
        worker._started = True  # no background job
        hired.append(worker)
        return worker

    yield build
    for worker in hired:
        worker.close()
