"""Who used how many tokens for how much money: totals a minute for the last day, an hour for the last month.

Every call adds to one cell (agent, model, provider, user) of the present minute. Minutes older than a day are folded
into hours, hours older than 31 days are dropped, and so is the oldest detail when there are too many cells; names
beyond a bound in one minute are counted together as "(other)". So memory stays below some 20 MB whatever happens.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from perfkit.errors import UnknownNameError
from perfkit.tokens.pricing import from_nano

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perfkit.clock import Clock

__all__ = ["DIMENSIONS", "UsageLog"]

DIMENSIONS: Final = ("agent", "model", "provider", "user")
OTHER: Final = "(other)"
MINUTE, HOUR, DAY = 60, 3600, 86400
MINUTES_KEPT: Final = DAY + HOUR  # seconds
HOURS_KEPT: Final = 31 * DAY
MAX_CELLS: Final = 50_000
MAX_NAMES: Final = 1_000  # in one minute or hour

Names = tuple[str, str, str, str]  # as DIMENSIONS
Moment = float | datetime | timedelta | None


@dataclass(slots=True)
class Totals:
    """Sums over calls; `unpriced` calls count in everything but the cost."""

    requests: int = 0
    tokens: int = 0
    nano: int = 0
    unpriced: int = 0

    def add(self, other: Totals) -> None:
        """Add another's sums."""
        self.requests += other.requests
        self.tokens += other.tokens
        self.nano += other.nano
        self.unpriced += other.unpriced

    def report(self) -> dict[str, Any]:
        """Return the sums and averages in US dollars; costs are None when no call had a price."""
        priced = self.requests - self.unpriced
        return {
            "total_tokens": self.tokens,
            "total_cost": from_nano(self.nano) if priced else None,
            "request_count": self.requests,
            "avg_cost_per_request": from_nano(self.nano) / priced if priced else None,
            "avg_tokens_per_request": round(self.tokens / self.requests),
            "unpriced_requests": self.unpriced,
        }


Bucket = dict[Names, Totals]


class UsageLog:
    """Bounded memory of token use; safe to use from many threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new and start empty: what was recorded is the parent's to report."""
        self._lock = threading.Lock()  # guards _minutes, _hours and _cells
        self.clear()

    def clear(self) -> None:
        """Forget everything recorded."""
        with self._lock:
            self._minutes: dict[int, Bucket] = {}  # by epoch seconds of their begin, oldest first
            self._hours: dict[int, Bucket] = {}
            self._cells = 0

    def add(self, names: Names, tokens: int, nano: int | None) -> None:
        """Count one call; `nano` is its cost in nano-dollars, None when unknown."""
        call = Totals(1, tokens, nano if nano is not None else 0, 1 if nano is None else 0)
        minute = int(self._clock.wall()) // MINUTE * MINUTE
        with self._lock:
            if minute not in self._minutes:
                self._minutes[minute] = {}
                self._trim(minute)
            self._into(self._minutes[minute], names, call)

    def _into(self, bucket: Bucket, names: Names, totals: Totals) -> None:
        cell = bucket.get(names)
        if cell is None:
            if len(bucket) >= MAX_NAMES:
                names = (OTHER, OTHER, OTHER, OTHER) if len(bucket) >= 2 * MAX_NAMES else (*names[:3], OTHER)
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
        now = self._clock.wall()
        begin, end = _epoch(since, now, now - DAY), _epoch(until, now, now)
        places = [DIMENSIONS.index(name) for name in group_by]
        sums: dict[tuple[str, ...], Totals] = {}
        with self._lock:
            for names, totals in self._between(begin, end):
                sums.setdefault(tuple(names[place] for place in places), Totals()).add(totals)
        return _nested(sums)

    def _between(self, begin: float, end: float) -> Iterator[tuple[Names, Totals]]:
        for buckets, length in ((self._minutes, MINUTE), (self._hours, HOUR)):
            for start, bucket in buckets.items():
                if start <= end and start + length > begin:
                    yield from bucket.items()


def _epoch(moment: Moment, now: float, default: float) -> float:
    """Return epoch seconds of a time; a timedelta reaches back from `now`, a naive datetime is local time."""
    if moment is None:
        return default
    if isinstance(moment, timedelta):
        return now - moment.total_seconds()
    return moment.timestamp() if isinstance(moment, datetime) else moment


def _nested(sums: dict[tuple[str, ...], Totals]) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for path, totals in sorted(sums.items()):
        level = report
        for name in path[:-1]:
            level = level.setdefault(name, {})
        level[path[-1]] = totals.report()
    return report
