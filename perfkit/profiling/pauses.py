"""How many garbage collections this process has made and how long they took, for whoever wants the difference.

The interpreter runs one collection at a time, callbacks included, so that the counters need no lock. A collection stops
every thread: that it ran in another than the one measured makes it no less a part of its time.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from perfkit.clock import SYSTEM_CLOCK
from perfkit.memory.pauses import under_way

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Collections", "Pause", "Total", "collections"]

Total = tuple[int, float]  # collections, seconds

_KEPT = 256  # pauses remembered, of those that are
_NOTABLE = 0.001  # seconds or more


class Pause(NamedTuple):
    """One collection; monotonic seconds."""

    generation: int
    began: float
    ended: float


class Collections:
    """Counts from the first `watch()` on.

    Attributes:
        total: how many so far, and the seconds they took together: one tuple, replaced by each.
    """

    __slots__ = ("_began", "_now", "_pauses", "total")

    def __init__(self, now: Callable[[], float] = SYSTEM_CLOCK.now) -> None:
        self._now = now
        self._began = 0.0
        self._pauses: deque[Pause] = deque(maxlen=_KEPT)
        self.total = (0, 0.0)

    def watch(self) -> None:
        """Count from now on."""
        if self not in gc.callbacks:
            gc.callbacks.append(self)

    def unwatch(self) -> None:
        """Count no more."""
        if self in gc.callbacks:
            gc.callbacks.remove(self)
            under_way.pop(self, None)

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """Be told by the interpreter that a collection starts or stops."""
        if phase == "start":
            under_way[self] = threading.get_ident()
            self._began = self._now()
        elif under_way.get(self):  # else it was under way when we began to watch
            began, ended = self._began, self._now()
            count, seconds = self.total
            self.total = (count + 1, seconds + ended - began)
            if ended - began >= _NOTABLE:
                self._pauses.append(Pause(info["generation"], began, ended))
            under_way[self] = 0  # last, see there

    def between(self, began: float, ended: float) -> list[Pause]:
        """Return the pauses of a millisecond or more that overlap a time."""
        return [pause for pause in tuple(self._pauses) if pause.ended > began and pause.began < ended]


collections = Collections()
