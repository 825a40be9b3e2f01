"""Time as a collaborator: every part of perfkit reads and spends time only through a Clock.

A Clock is passed by constructor, so tests run hours of behaviour in a moment on `FakeClock` and never sleep.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "FakeClock", "Moment", "SystemClock", "epoch"]

Moment = float | datetime | timedelta | None  # None leaves it to whoever is asked


class Clock(Protocol):
    """What perfkit asks of time. All values are seconds."""

    def now(self) -> float:
        """Return monotonic seconds: for durations and deadlines."""
        ...

    def wall(self) -> float:
        """Return seconds since the epoch: for people, logs and other machines."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...


class SystemClock:
    """The machine's clocks; the methods are the C functions themselves, so that a reading costs no Python frame."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(time.sleep)


SYSTEM_CLOCK = SystemClock()


class FakeClock:
    """A clock that moves only when told to; `sleep` moves it and returns at once.

    Args:
        wall: the epoch seconds it starts at.
    """

    def __init__(self, *, wall: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()  # guards _elapsed
        self._elapsed = 0.0
        self._wall = wall

    def now(self) -> float:
        """Return monotonic seconds, starting at 1000."""
        return 1000.0 + self._elapsed

    def wall(self) -> float:
        """Return epoch seconds."""
        return self._wall + self._elapsed

    def sleep(self, seconds: float) -> None:
        """Move time by `seconds` and return."""
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`."""
        with self._lock:
            self._elapsed += seconds

    def __repr__(self) -> str:
        return f"FakeClock(now={self.now():.3f})"


def epoch(moment: Moment, now: float, default: float) -> float:
    """Return epoch seconds of a time; a timedelta reaches back from `now`, a naive datetime is local time."""
    if moment is None:
        return default
    if isinstance(moment, timedelta):
        return now - moment.total_seconds()
    return moment.timestamp() if isinstance(moment, datetime) else float(moment)
