"""Alerts over a private tracker, all on one fake clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from _watched import Watched

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker


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
