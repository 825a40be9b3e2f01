"""The results of measurements on demand: the latest of each, since one would overwrite the other otherwise."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.clock import Clock
    from perfkit.profiling.reports import CPUReport, Report
    from perfkit.profiling.sampling import Sampler

__all__ = ["Results"]

T = TypeVar("T", bound="Report")

_KEPT = 10  # of each name
_NAMES = 500
_RECORDINGS = 2  # of all threads at the same time


class Results:
    """What is stored, by name, and the recordings under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stored: dict[str, deque[Report]] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Go on in a child, where no recording runs."""
        self._lock = threading.RLock()  # guards _stored and _recording
        self._recording: list[Sampler] = []

    def add(self, made: type[T], operation: str, fields: Mapping[str, Any]) -> T:
        """Make a report of what was found and store it as `<operation>_<kind>`."""
        report = made(operation=operation, timestamp=self._clock.wall(), **fields)
        name = f"{operation}_{made.kind}"
        with self._lock:
            if name not in self._stored and len(self._stored) >= _NAMES:
                del self._stored[next(iter(self._stored))]
            self._stored.setdefault(name, deque(maxlen=_KEPT)).append(report)
        return report

    def names(self) -> list[str]:
        """Return under what names something is stored."""
        with self._lock:
            return list(self._stored)

    def dicts(self, name: str) -> list[dict[str, Any]]:
        """Return what is stored under a name, oldest first."""
        with self._lock:
            return [report.to_dict() for report in self._stored.get(name, ())]

    def cpu_reports(self) -> list[CPUReport]:
        """Return the stored CPU profiles, the latest first."""
        from perfkit.profiling.reports import CPUReport

        with self._lock:
            found = [one for kept in self._stored.values() for one in kept if isinstance(one, CPUReport)]
        return sorted(found, key=lambda one: -one.timestamp)

    def find(self, number: str) -> CPUReport | None:
        """Return a CPU profile by its id."""
        return next((one for one in self.cpu_reports() if one.id == number), None) if self._stored else None

    def admit(self, sampler: Sampler) -> None:
        """Note a recording that begins.

        Raises:
            RuntimeError: two are running already.
        """
        with self._lock:
            if len(self._recording) >= _RECORDINGS:
                raise RuntimeError(f"{_RECORDINGS} recordings of all threads are running; wait for one of them")
            self._recording.append(sampler)

    def dismiss(self, sampler: Sampler) -> None:
        """Note that a recording has ended."""
        with self._lock:
            self._recording = [one for one in self._recording if one is not sampler]

    def close(self) -> None:
        """End the recordings under way."""
        with self._lock:
            recording = list(self._recording)
        for sampler in recording:
            sampler.stop()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._stored.clear()
