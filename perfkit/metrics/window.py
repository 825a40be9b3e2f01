"""One series over the last day: sketches in time slots that grow coarser with age, within a budget of bytes.

Slots are 10 s wide for 10 minutes, 60 s for 2 hours and 15 minutes for a day. They begin at multiples of their width
since the epoch, so the slots of all processes fit on one another, and a query is honoured to the width of a slot. What
a slot held when it was over also goes into the total since the beginning, into the sum of its day, and to `unsent` for
whoever shares it with other processes: each value exactly once, also when the clock is set back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from perfkit.metrics.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DAY", "DAYS", "SLOT", "TIERS", "Slots", "Window", "age_tiers", "place"]

TIERS = ((10, 60), (60, 120), (900, 96))  # seconds a slot, slots
SLOT = float(TIERS[0][0])  # seconds of the finest slot
DAY = float(TIERS[-1][0] * TIERS[-1][1])  # seconds kept
_COARSE = TIERS[-1][0] // TIERS[0][0]  # finest slots that the widest one covers
_UNSENT = 60  # slots that wait in full resolution while nobody takes them
DAYS = 32  # days whose sums are kept: a month and the day it began

Slots = dict[int, Sketch]  # by index: seconds since the epoch over the tier's width


def add_slot(slots: Slots, index: int, sketch: Sketch) -> None:
    """Count a sketch that is never changed again; the same object may be in several mappings."""
    held = slots.get(index)
    if held is not None:
        both = Sketch()
        both.merge(held)
        both.merge(sketch)
        both.pack()
        sketch = both
    slots[index] = sketch


def age_tiers(tiers: Sequence[Slots], now: float) -> None:
    """Merge slots that are old for their tier into the next, and forget those older than a day."""
    for tier, (width, keep) in enumerate(TIERS):
        slots, oldest = tiers[tier], int(now // width) - keep
        for index in [index for index in slots if index < oldest]:
            sketch = slots.pop(index)
            if tier + 1 < len(TIERS):
                add_slot(tiers[tier + 1], index * width // TIERS[tier + 1][0], sketch)


def place(begin: float, since: float, step: float, steps: int) -> int:
    """Return which of so many steps from `since` on a slot belongs to that begins at `begin`."""
    return min(max(0, int((begin - since) // step)), steps - 1)


class Window:
    """Sketches by time; not safe for threads, its owner holds a lock. All times are epoch seconds.

    Args:
        sharing: keep closed slots in `unsent` until they are taken.

    Attributes:
        newest: start of the newest slot that ever got values, `-inf` before the first.
        unsent: closed slots nobody has taken, None where they are not wanted.
        days: sums by day (of UTC, since the epoch), of the last month.
    """

    __slots__ = ("_index", "_open", "_tiers", "_total", "days", "newest", "unsent")

    def __init__(self, *, sharing: bool = False) -> None:
        self.newest = -math.inf
        self.unsent: Slots | None = {} if sharing else None
        self.days: dict[int, float] = {}
        self._tiers: tuple[Slots, ...] = tuple({} for _ in TIERS)
        self._total = Sketch()  # of all closed slots
        self._index = 0  # of the slot being filled
        self._open = Sketch()  # what is in it

    def add(self, at: float, values: Sequence[float]) -> None:
        """Count values of the finest slot that `at` is in."""
        index = int(at // SLOT)
        if index != self._index:
            self.end_slot()
            self._index = index
        self._open.add(values)
        self.newest = max(self.newest, index * SLOT)

    def end_slot(self) -> None:
        """Close the slot being filled; further values of its time count as well, as another part of it."""
        closed = self._open
        if closed.count:
            closed.pack()
            self._open = Sketch()
            self._count(0, self._index, closed)
            if self.unsent is not None:
                add_slot(self.unsent, self._index, closed)

    def _count(self, tier: int, index: int, sketch: Sketch) -> None:
        add_slot(self._tiers[tier], index, sketch)
        self._total.merge(sketch)
        self._total.pack()
        day = int(index * TIERS[tier][0] // DAY)
        self.days[day] = self.days.get(day, 0.0) + sketch.total
        if len(self.days) > DAYS:
            del self.days[min(self.days)]

    def age(self, now: float, max_bytes: int) -> None:
        """Close the slot that is over, let older ones grow coarser, and keep the budget."""
        if self._index != int(now // SLOT):
            self.end_slot()
        age_tiers(self._tiers, now)
        if self.unsent is not None and len(self.unsent) > _UNSENT:
            self._coarsen(self.unsent, now)
        self._shrink(max_bytes)

    @staticmethod
    def _coarsen(unsent: Slots, now: float) -> None:
        """Put the older half of what waits into slots 15 minutes apart, and forget what has waited for a day."""
        for index in sorted(unsent)[: -_UNSENT // 2]:
            sketch = unsent.pop(index)
            if index * SLOT > now - DAY:
                add_slot(unsent, index - index % _COARSE, sketch)

    def _shrink(self, max_bytes: int) -> None:
        """Forget the oldest closed slots until the others fit, beside the total; what is newest always stays."""
        held = self._total.nbytes + sum(sketch.nbytes for slots in self._tiers for sketch in slots.values())
        if held <= max_bytes:
            return
        by_age = [(slots, index) for slots in reversed(self._tiers) for index in sorted(slots)]
        for slots, index in by_age if self._open.count else by_age[:-1]:
            held -= slots.pop(index).nbytes
            if held <= max_bytes:
                return

    def collect(self, into: Sketch, since: float, until: float) -> None:
        """Merge into a sketch every slot that overlaps the range."""
        for (width, _), slots in zip(TIERS, self._tiers, strict=True):
            for index, sketch in slots.items():
                if index * width < until and (index + 1) * width > since:
                    into.merge(sketch)
        if self._index * SLOT < until and (self._index + 1) * SLOT > since:
            into.merge(self._open)

    def spread(self, into: Sequence[Sketch], since: float, step: float) -> None:
        """Merge each slot from `since` on into the sketch of the step in which it begins; none counts twice."""
        for (width, _), slots in zip(TIERS, self._tiers, strict=True):
            for index, sketch in slots.items():
                if (index + 1) * width > since:
                    into[place(index * width, since, step, len(into))].merge(sketch)
        if (self._index + 1) * SLOT > since:
            into[place(self._index * SLOT, since, step, len(into))].merge(self._open)

    def lifetime(self) -> Sketch:
        """Return a sketch of everything ever counted; it never counts less than before."""
        result = Sketch()
        result.merge(self._total)
        result.merge(self._open)
        return result

    def take(self, *, everything: bool) -> Slots:
        """Return the slots not yet taken: all that are over, with `everything` also the part of the present one."""
        if everything:
            self.end_slot()
        taken, self.unsent = self.unsent, None if self.unsent is None else {}
        return taken or {}

    @property
    def oldest(self) -> float:
        """Start of the oldest slot kept, `inf` when there is none."""
        starts = [min(slots) * width for (width, _), slots in zip(TIERS, self._tiers, strict=True) if slots]
        return min([*starts, *([self._index * SLOT] if self._open.count else [])], default=math.inf)

    def dump(self) -> list[list[Any]]:
        """Return rows of tier, slot index and sketch as JSON types, for `load`."""
        self.end_slot()
        return [[tier, index, slot.dump()] for tier, slots in enumerate(self._tiers) for index, slot in slots.items()]

    def load(self, rows: Iterable[Sequence[Any]]) -> None:
        """Count what another window's `dump` returned; it is not shared again."""
        for tier, index, data in rows:
            sketch = Sketch.load(data)
            sketch.pack()
            self._count(tier, index, sketch)
            self.newest = max(self.newest, float(index * TIERS[tier][0]))
