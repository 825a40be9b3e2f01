"""One series over the last day: sketches in time slots that grow coarser with age, within a budget of bytes.

Slots are 10 s wide for 10 minutes, 60 s for 2 hours and 15 minutes for a day. They begin at multiples of their width
since the epoch, so the slots of all processes fit on one another, and a query is honoured to the width of a slot.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from perfkit.metrics.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DAY", "SLOT", "TIERS", "Window"]

TIERS = ((10, 60), (60, 120), (900, 96))  # seconds a slot, slots
SLOT = float(TIERS[0][0])  # seconds of the finest slot
DAY = float(TIERS[-1][0] * TIERS[-1][1])  # seconds kept


class Window:
    """Sketches by time; not safe for threads, its owner holds a lock. All times are epoch seconds.

    Attributes:
        newest: start of the newest slot that ever got values, `-inf` before the first.
    """

    __slots__ = ("_tiers", "newest")

    def __init__(self) -> None:
        self.newest = -math.inf
        self._tiers: tuple[dict[int, Sketch], ...] = tuple({} for _ in TIERS)

    def add(self, at: float, values: Sequence[float]) -> None:
        """Count values of the finest slot that `at` is in."""
        slots, index = self._tiers[0], int(at // SLOT)
        if index not in slots:
            for closed in slots.values():
                closed.pack()
        slots.setdefault(index, Sketch()).add(values)
        self.newest = max(self.newest, index * SLOT)

    def age(self, now: float, max_bytes: int) -> None:
        """Merge slots that are old for their tier into the next, forget those older than a day, keep the budget."""
        for tier, (width, keep) in enumerate(TIERS):
            slots, oldest = self._tiers[tier], int(now // width) - keep
            for index in [index for index in slots if index < oldest]:
                sketch = slots.pop(index)
                if tier + 1 < len(TIERS):
                    self._merge(tier + 1, index * width // TIERS[tier + 1][0], sketch)
        self._shrink(max_bytes)

    def _merge(self, tier: int, index: int, sketch: Sketch) -> None:
        slot = self._tiers[tier].setdefault(index, Sketch())
        slot.merge(sketch)
        slot.pack()

    def _shrink(self, max_bytes: int) -> None:
        """Forget the oldest slots until the others fit; the newest one always stays."""
        held = sum(sketch.nbytes for slots in self._tiers for sketch in slots.values())
        if held <= max_bytes:
            return
        by_age = [(slots, index) for slots in reversed(self._tiers) for index in sorted(slots)]
        for slots, index in by_age[:-1]:
            held -= slots.pop(index).nbytes
            if held <= max_bytes:
                return

    def collect(self, into: Sketch, since: float, until: float) -> None:
        """Merge into a sketch every slot that overlaps the range."""
        for (width, _), slots in zip(TIERS, self._tiers, strict=True):
            for index, sketch in slots.items():
                if index * width < until and (index + 1) * width > since:
                    into.merge(sketch)

    def dump(self) -> list[list[Any]]:
        """Return rows of tier, slot index and sketch as JSON types, for `load`."""
        return [[tier, index, slot.dump()] for tier, slots in enumerate(self._tiers) for index, slot in slots.items()]

    def load(self, rows: Iterable[Sequence[Any]]) -> None:
        """Count what another window's `dump` returned."""
        for tier, index, sketch in rows:
            self._merge(tier, index, Sketch.load(sketch))
            self.newest = max(self.newest, float(index * TIERS[tier][0]))
