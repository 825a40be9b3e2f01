"""Alerts over a private tracker, all on one fake clock, and a receiver of webhooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest
from _receiver import Receiver
from _watched import Watched

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def tracker(clock: FakeClock) -> Iterator[PerformanceTracker]:
    made = PerformanceTracker(clock=clock)
    yield made
    made.close()


@pytest.fixture
def make(tracker: PerformanceTracker, clock: FakeClock) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def build(**options: Any) -> Watched:
        made.append(Watched(tracker, clock, **options))
        return made[-1]

    yield build
    for watched in made:
        watched.alerts.close()


@pytest.fixture
def watched(make: Callable[..., Watched]) -> Watched:
    return make()
