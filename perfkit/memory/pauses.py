"""Every collection of this process, seen through `gc.callbacks`: how long it paused, what it found, into the tracker.

The callback counts and queues, since it may take no lock, and `drain` records from outside.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from perfkit.memory.rss import process_memory
from perfkit.memory.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from perfkit.metrics import PerformanceTracker

__all__ = ["GCMonitor", "GCReport", "Pauses", "Tally"]

_WAITING = 10_000  # pauses queued for the tracker at most; of more the oldest are forgotten


@dataclass(frozen=True, slots=True)
class GCReport:
    """Collections of the whole process during some time; seconds, bytes and objects.

    Attributes:
        elapsed: how long was watched.
        collections: how many, by generation.
        seconds: all pauses together.
        longest: the longest pause that could hit a request.
        longest_between: the longest of those made between requests.
        found: unreachable objects found.
        uncollectable: those of them that could not be freed.
        rss_change: change of the resident memory, None where it cannot be read.
    """

    elapsed: float
    collections: tuple[int, int, int]
    seconds: float
    longest: float
    longest_between: float
    found: int
    uncollectable: int
    rss_change: int | None

    @property
    def count(self) -> int:
        """Collections of all generations."""
        return sum(self.collections)

    @property
    def share(self) -> float:
        """Part of the time spent in collections, 0 to 1."""
        return self.seconds / self.elapsed if self.elapsed > 0 else 0.0


@dataclass(slots=True, eq=False)
class Tally:
    """Counts collections from `began` on."""

    began: float
    rss: int | None
    collections: list[int] = field(default_factory=lambda: [0, 0, 0])
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    longest: list[float] = field(default_factory=lambda: [0.0, 0.0])  # in the way of requests, between them
    found: int = 0
    uncollectable: int = 0

    def add(self, seconds: float, info: Mapping[str, int], *, between: bool) -> None:
        """Count one collection."""
        generation = info["generation"]
        self.collections[generation] += 1
        self.seconds[generation] += seconds
        self.longest[between] = max(self.longest[between], seconds)
        self.found += info["collected"] + info["uncollectable"]
        self.uncollectable += info["uncollectable"]

    def figures(self) -> dict[str, Any]:
        """Return what was counted, as JSON has it."""
        return {
            "count": list(self.collections),
            "seconds": list(self.seconds),
            "longest": self.longest[False],
            "longest_between": self.longest[True],
            "found": self.found,
            "uncollectable": self.uncollectable,
        }

    def report(self, now: float, rss: int | None) -> GCReport:
        """Return what was counted until now."""
        young, middle, old = self.collections
        change = None if rss is None or self.rss is None else rss - self.rss
        return GCReport(
            now - self.began,
            (young, middle, old),
            sum(self.seconds),
            self.longest[False],
            self.longest[True],
            self.found,
            self.uncollectable,
            change,
        )


class Pauses(Watcher):
    """Tells tallies and the tracker of each collection; watches only while there are tallies.

    Args:
        now: monotonic seconds.
        tracker: asked for when there is something to record.
    """

    def __init__(self, now: Callable[[], float], tracker: Callable[[], PerformanceTracker]) -> None:
        super().__init__(now)
        self.between = False  # set around the collections made between requests
        self._tracker = tracker
        self._tallies: tuple[Tally, ...] = ()
        self.after_fork()

    def after_fork(self) -> None:
        """Go on in a child."""
        # guards _tallies and our place in gc.callbacks; re-entrant, since finalisers may monitor
        self._lock = threading.RLock()
        self._waiting: deque[tuple[int, bool, float]] = deque(maxlen=_WAITING)  # generation, between, seconds
        self.between = False

    def tally(self) -> Tally:
        """Return a new tally that counts from here until `forget`."""
        tally = Tally(self.now(), process_memory.rss())
        with self._lock:
            self._tallies = (*self._tallies, tally)
            self.watch()
        return tally

    def drain(self) -> None:
        """Record in the tracker what is queued."""
        while self._waiting:
            try:
                generation, between, seconds = self._waiting.popleft()
            except IndexError:  # another thread was faster
                return
            tracker, tags = self._tracker(), {"generation": generation, "between": between}
            tracker.record_metric("gc_duration", seconds, tags)
            tracker.increment("gc_count", tags=tags)
            tracker.increment("gc_time_total", seconds, tags)

    def forget(self, tally: Tally) -> None:
        """Count no more in `tally`."""
        self.drain()
        with self._lock:
            self._tallies = tuple(other for other in self._tallies if other is not tally)
            if not self._tallies:
                self.unwatch()

    def collected(self, began: float, ended: float, info: Mapping[str, int]) -> None:
        """Count a collection, and queue it for the tracker."""
        seconds = ended - began
        for tally in self._tallies:
            tally.add(seconds, info, between=self.between)
        self._waiting.append((info["generation"], self.between, seconds))


class GCMonitor:
    """Watches the collections of the process while a block runs; monitors may be nested and overlap."""

    __slots__ = ("_pauses", "_report", "_tally")

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses
        self._tally: Tally | None = None
        self._report: GCReport | None = None

    def __enter__(self) -> Self:
        self._report, self._tally = None, self._pauses.tally()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._report = self.report
        if self._tally is not None:
            self._pauses.forget(self._tally)

    @property
    def report(self) -> GCReport:
        """What the block saw: so far while it runs, as a whole afterwards.

        Raises:
            RuntimeError: the block was never entered.
        """
        if self._report is not None:
            return self._report
        if self._tally is None:
            raise RuntimeError("this monitor has watched nothing yet: use it as `with ... as monitor:`")
        return self._tally.report(self._pauses.now(), process_memory.rss())
