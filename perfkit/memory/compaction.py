"""Giving memory back to the system from time to time: RAAF's "GC compaction", since CPython cannot move objects.

A trim holds up threads that allocate for some 10 ms, so it waits for a quiet moment, and for longer after a trim that
gained little.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from perfkit.memory.rss import process_memory, trim

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Compaction"]

_QUIET = 0.5  # part of one core used since the last look, below which the process counts as idle
_LATE = 2.0  # times the interval after which it is done even when it is not
_LEAST = 0.01  # part of the resident memory a trim must gain, or the next waits twice as long
_BACK_OFF = 8


class Compaction:
    """Decides when to trim, and remembers what it gained.

    Args:
        interval: seconds between trims.
        now: monotonic seconds.
        cpu: seconds of processor time this process has used.
    """

    def __init__(
        self, interval: float, *, now: Callable[[], float], cpu: Callable[[], float] = time.process_time
    ) -> None:
        self.interval = interval
        self.trims = 0
        self.gained = 0
        self._factor = 1
        self._now, self._cpu = now, cpu
        self._last = now()
        self._looked = self._last, cpu()

    def due(self) -> bool:
        """Tell whether to trim now; looks at the processor time used since it was asked last."""
        now, cpu = self._now(), self._cpu()
        (then, cpu_then), self._looked = self._looked, (now, cpu)
        quiet = cpu - cpu_then <= _QUIET * (now - then)
        waited = (now - self._last) / (self.interval * self._factor)
        return waited >= (1.0 if quiet else _LATE)

    def run(self) -> float:
        """Trim; return the seconds it took."""
        before, started = process_memory.rss(), self._now()
        gained = trim()
        self._last = self._now()
        self.trims += 1
        self.gained += gained if gained is not None else 0
        worth = gained is None or before is None or gained >= before * _LEAST
        self._factor = 1 if worth else min(_BACK_OFF, self._factor * 2)
        return self._last - started
