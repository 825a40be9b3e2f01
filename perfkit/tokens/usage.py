"""Who used how many tokens for how much money: totals a minute for the last day, an hour for the last month.

Every call adds to one cell (agent, model, provider, user) of the present minute. Minutes older than a day are folded
into hours, hours older than 31 days are dropped, and so is the oldest detail when there are too many cells; names
beyond a bound in one minute are counted together as "(other)". So memory stays below some 20 MB whatever happens.
Where a store is configured, what was counted goes there too every few seconds, and reports are read from it: they
outlive the process and hold what all workers did. A worker that is killed takes what it counted last with it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from perfkit._process import background
from perfkit.clock import epoch
from perfkit.errors import StateUnavailableError, UnknownNameError
from perfkit.tokens.pricing import from_nano

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from perfkit.clock import Clock, Moment

__all__ = ["DIMENSIONS", "SAVINGS", "Names", "Row", "Store", "Totals", "UsageLog"]

DIMENSIONS: Final = ("agent", "model", "provider", "user", "tag")
SAVINGS: Final = ("cache", "prefix", "choice")  # by our cache, by the vendor's, by a cheaper model
OTHER: Final = "(other)"
MINUTE, HOUR, DAY = 60, 3600, 86400
MINUTES_KEPT: Final = DAY + HOUR  # seconds
HOURS_KEPT: Final = 31 * DAY
MAX_CELLS: Final = 50_000
MAX_NAMES: Final = 1_000  # in one minute or hour

Names = tuple[str, str, str, str, str]  # as DIMENSIONS


@dataclass(slots=True)
class Totals:
    """Sums over calls; `unpriced` calls count in everything but the cost.

    `cache`, `prefix` and `choice` are nano-dollars that were not spent, thanks to each of SAVINGS.
    """

    requests: int = 0
    tokens: int = 0
    nano: int = 0
    unpriced: int = 0
    cached: int = 0  # tokens from the vendor's cache
    cache: int = 0
    prefix: int = 0
    choice: int = 0

    def add(self, other: Totals) -> None:
        """Add another's sums."""
        self.requests += other.requests
        self.tokens += other.tokens
        self.nano += other.nano
        self.unpriced += other.unpriced
        self.cached += other.cached
        self.cache += other.cache
        self.prefix += other.prefix
        self.choice += other.choice

    def report(self) -> dict[str, Any]:
        """Return the sums and averages in US dollars; costs are None when no call had a price."""
        priced = self.requests - self.unpriced
        return {
            "total_tokens": self.tokens,
            "total_cost": from_nano(self.nano) if priced else None,
            "request_count": self.requests,
            "avg_cost_per_request": from_nano(self.nano) / priced if priced else None,
            "avg_tokens_per_request": round(self.tokens / self.requests) if self.requests else 0,
            "unpriced_requests": self.unpriced,
        }


Bucket = dict[Names, Totals]
Row = tuple[int, Names, Totals]  # begin, epoch seconds
Batch = tuple[str, Mapping[tuple[int, Names], Totals]]  # what is sent in one step, under a name nobody else gives


class Store(Protocol):
    """Where totals outlive the process; both methods raise StateUnavailableError."""

    def write(self, totals: Mapping[tuple[int, Names], Totals], now: float, batch: str) -> None:
        """Add totals, by the begin of their minute and their names; nothing if it took that batch before."""

    def read(self, begin: float, end: float, now: float) -> Iterable[Row]:
        """Return what overlaps a time range."""


class UsageLog:
    """Bounded memory of token use; safe to use from many threads.

    Args:
        clock: time source.
        store: returns where totals are kept for all processes, None for nowhere.
    """

    def __init__(self, clock: Clock, store: Callable[[], Store | None] = lambda: None) -> None:
        self._clock, self._store = clock, store
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new and start empty: what was recorded is the parent's to report."""
        self._lock = threading.Lock()  # guards _minutes, _hours, _cells, _unsent and _batches
        self.clear()

    def clear(self) -> None:
        """Forget everything recorded."""
        with self._lock:
            self._minutes: dict[int, Bucket] = {}  # by epoch seconds of their begin, oldest first
            self._hours: dict[int, Bucket] = {}
            self._cells = 0
            self._unsent: dict[tuple[int, Names], Totals] = {}
            self._batches: list[Batch] = []

    def add(self, names: Names, tokens: int, nano: int | None) -> None:
        """Count one call; `nano` is its cost in nano-dollars, None when unknown."""
        self.count(names, Totals(1, tokens, nano if nano is not None else 0, 1 if nano is None else 0))

    def count(self, names: Names, totals: Totals) -> None:
        """Add to what is counted now."""
        minute = int(self._clock.wall()) // MINUTE * MINUTE
        stored = self._store() is not None
        with self._lock:
            if minute not in self._minutes:
                self._minutes[minute] = {}
                self._trim(minute)
            self._into(self._minutes[minute], names, totals)
            if stored:
                self._keep_unsent(minute, names, totals)
        if stored:
            background.ensure()

    def _keep_unsent(self, minute: int, names: Names, totals: Totals) -> None:
        waiting = len(self._unsent) + sum(len(totals) for _, totals in self._batches)
        if waiting < MAX_CELLS or (minute, names) in self._unsent:
            self._unsent.setdefault((minute, names), Totals()).add(totals)

    def flush(self) -> None:
        """Send what was counted to the store; what it does not take is sent the next time.

        A batch whose reply was lost is sent again as it was, under its name: the store may have taken it.
        """
        store = self._store()
        if store is None:
            return
        again = True
        while again:
            with self._lock:
                again = bool(self._batches)
                batch = self._batches.pop() if again else (uuid.uuid4().hex, self._unsent)
                if not again:
                    self._unsent = {}
            try:
                if batch[1]:
                    store.write(batch[1], self._clock.wall(), batch[0])
            except StateUnavailableError:
                with self._lock:
                    self._batches.append(batch)
                return

    def _into(self, bucket: Bucket, names: Names, totals: Totals) -> None:
        cell = bucket.get(names)
        if cell is None:
            if len(bucket) >= MAX_NAMES:
                names = (OTHER,) * 5 if len(bucket) >= 2 * MAX_NAMES else (*names[:3], OTHER, OTHER)
            cell = bucket.get(names)
        if cell is None:
            cell = bucket[names] = Totals()
            self._cells += 1
        cell.add(totals)

    def _trim(self, now: int) -> None:
        """Fold old minutes into hours and drop old hours; the minute `now` stays."""
        while len(self._minutes) > 1 and (self._cells > MAX_CELLS or self._oldest(self._minutes) < now - MINUTES_KEPT):
            self._fold(self._oldest(self._minutes))
        while self._hours and (self._cells > MAX_CELLS or self._oldest(self._hours) < now - HOURS_KEPT):
            self._cells -= len(self._hours.pop(self._oldest(self._hours)))

    @staticmethod
    def _oldest(buckets: dict[int, Bucket]) -> int:
        return next(iter(buckets))

    def _fold(self, minute: int) -> None:
        bucket = self._minutes.pop(minute)
        self._cells -= len(bucket)
        hour = self._hours.setdefault(minute // HOUR * HOUR, {})
        for names, totals in bucket.items():
            self._into(hour, names, totals)

    def report(self, since: Moment, until: Moment, group_by: Sequence[str]) -> dict[str, Any]:
        """Return totals nested by the names in `group_by`; see TokenOptimizer.get_usage_report."""
        unknown = next((name for name in group_by if name not in DIMENSIONS), None)
        if unknown is not None or not group_by:
            raise UnknownNameError.of("usage dimension", unknown, DIMENSIONS)
        places = [DIMENSIONS.index(name) for name in group_by]
        sums: dict[tuple[str, ...], Totals] = {}
        for _, names, totals in self.rows(since, until):
            if totals.requests:
                sums.setdefault(tuple(names[place] for place in places), Totals()).add(totals)
        return _nested(sums)

    def rows(self, since: Moment, until: Moment) -> list[Row]:
        """Return begin (epoch seconds), names and totals of every minute or hour that overlaps a time range."""
        now = self._clock.wall()
        begin, end = epoch(since, now, now - DAY), epoch(until, now, now)
        store = self._store()
        if store is not None:
            self.flush()
            with suppress(StateUnavailableError):
                return [row for row in store.read(begin, end, now) if row[0] <= end]
        with self._lock:
            return [(start, names, replace(totals)) for start, names, totals in self._between(begin, end)]

    def _between(self, begin: float, end: float) -> Iterator[Row]:
        for buckets, length in ((self._minutes, MINUTE), (self._hours, HOUR)):
            for start, bucket in buckets.items():
                if start <= end and start + length > begin:
                    for names, totals in bucket.items():
                        yield start, names, totals


def _nested(sums: dict[tuple[str, ...], Totals]) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for path, totals in sorted(sums.items()):
        level = report
        for name in path[:-1]:
            level = level.setdefault(name, {})
        level[path[-1]] = totals.report()
    return report
