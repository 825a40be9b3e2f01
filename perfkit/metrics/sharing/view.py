"""The metrics of all workers together, as they were when the view was made."""

from __future__ import annotations

import math
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from perfkit.metrics.reading import Readable, Series
from perfkit.metrics.sharing.blobs import rows
from perfkit.metrics.sharing.fold import add_day, newer
from perfkit.metrics.sharing.ledger import LIVE, Ledger
from perfkit.metrics.sharing.worker import Worker
from perfkit.metrics.sketch import Sketch
from perfkit.metrics.window import TIERS, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from perfkit.clock import Clock
    from perfkit.metrics.series import Key

__all__ = ["MergedSeries", "MergedView", "Worker", "merged_series"]


class MergedSeries:
    """One series of all workers; its slots are read when they are asked for.

    Attributes:
        kind: "timing" (seconds), "value", "counter" or "gauge".
        name: the metric's name.
        tags: values as text.
    """

    __slots__ = ("_deltas", "_extras", "_tiers", "kind", "name", "tags")

    def __init__(self, key: Key) -> None:
        self.kind, self.name, labels = key
        self.tags: Mapping[str, str] = MappingProxyType(dict(labels))
        self._tiers: list[bytes] = [b""] * (len(TIERS) + 1)  # and the total
        self._deltas: list[bytes] = []
        self._extras: list[Mapping[str, Any]] = []

    def add(self, part: int | None, extras: Mapping[str, Any], body: bytes) -> None:
        """Take what one part holds of the series; None for a delta."""
        if part is None:
            self._deltas.append(body)
        else:
            self._tiers[part] = body
        if extras:
            self._extras.append(extras)

    def _slots(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield width and index of each slot, and where its sketch begins in which bytes."""
        for (width, _), body in zip(TIERS, self._tiers, strict=False):
            for index, start in rows(body):
                yield width, index, start, body
        for body in self._deltas:
            for index, start in rows(body):
                yield TIERS[0][0], index, start, body

    def collect(self, into: Sketch, since: float, until: float) -> None:
        """Merge every slot that overlaps a range of epoch seconds into a sketch."""
        for width, index, start, body in self._slots():
            if index * width < until and (index + 1) * width > since:
                into.merge(Sketch.decode(body, start)[0])

    def spread(self, into: Sequence[Sketch], since: float, step: float) -> None:
        """Merge each slot from `since` on into the sketch of the step in which it begins."""
        for width, index, start, body in self._slots():
            if (index + 1) * width > since:
                into[place(index * width, since, step, len(into))].merge(Sketch.decode(body, start)[0])

    def lifetime(self) -> Sketch:
        """Return everything counted since the store began."""
        result = Sketch()
        for body in (self._tiers[-1], *self._deltas):
            for _, start in rows(body):
                result.merge(Sketch.decode(body, start)[0])
        return result

    @property
    def last(self) -> float | None:
        """The newest value of a gauge, of whichever worker recorded it; None for other kinds."""
        found: list[float] | None = None
        for extras in self._extras:
            found = newer(found, extras.get("last"))
        return None if found is None else found[0]

    @property
    def newest(self) -> float:
        """When the newest slot with values began, in epoch seconds."""
        return max((float(index * width) for width, index, _, _ in self._slots()), default=-math.inf)

    @property
    def oldest(self) -> float:
        """When the oldest slot with values began, in epoch seconds."""
        return min((float(index * width) for width, index, _, _ in self._slots()), default=math.inf)

    @property
    def days(self) -> dict[int, float]:
        """Sums by day of UTC of the last month."""
        days: dict[str, float] = {}
        for extras in self._extras:
            days.update(extras.get("days", {}))  # only the totals have it
        for body in self._deltas:
            for index, start in rows(body):
                add_day(days, index, Sketch.decode(body, start)[0].total)
        return {int(day): amount for day, amount in days.items()}

    def __repr__(self) -> str:
        tags = "".join(f", {name}={value}" for name, value in self.tags.items())
        return f"MergedSeries({self.name}{tags}, {self.kind})"


def merged_series(ledger: Ledger) -> list[MergedSeries]:
    """Return the series of everything that counts."""
    found: dict[Key, MergedSeries] = {}
    parts = [(int(part), blob) for part, blob in ledger.parts.items()]
    for part, blob in (*parts, *((None, delta) for delta in ledger.deltas.values())):
        for key, (extras, body) in blob.series.items():
            if key not in found:
                found[key] = MergedSeries(key)
            found[key].add(part, extras, body)
    return list(found.values())


class MergedView(Readable):
    """All workers' metrics to the last slot each of them has closed; asked like the tracker.

    Where nothing is shared it is what this process has.

    Attributes:
        workers: those that have reported within a minute and still live.
    """

    def __init__(
        self, clock: Clock, series: Sequence[Series], workers: Sequence[Worker], *, host: str | None = None
    ) -> None:
        self._clock = clock
        self._series = series
        now, here = clock.wall(), os.uname().nodename if host is None else host
        self.workers = tuple(worker for worker in workers if _lives(worker, now, here))

    @property
    def age(self) -> float:
        """Seconds since the worker that has been silent for longest has reported; infinite when there is none."""
        now = self._clock.wall()
        return max((max(0.0, now - worker.reported) for worker in self.workers), default=math.inf)

    def series(self) -> Sequence[Series]:
        """Return all series with values."""
        return self._series

    def _wall(self) -> float:
        return self._clock.wall()

    def __repr__(self) -> str:
        return f"MergedView({len(self._series)} series, {len(self.workers)} workers, {self.age:.0f} s old)"


def _lives(worker: Worker, now: float, here: str) -> bool:
    if worker.ended or worker.reported < now - LIVE:
        return False
    if worker.host != here:
        return True
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it lives
        pass
    return True
