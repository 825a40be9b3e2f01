"""How many garbage collections this process has made and how long they took, for whoever wants the difference.

A collection stops every thread: that it ran in another than the one measured makes it no less a part of its time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from perfkit.clock import SYSTEM_CLOCK
from perfkit.memory.watching import Watcher

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


class Collections(Watcher):
    """Counts from the first `watch()` on.

    Attributes:
        total: how many so far, and the seconds they took together: one tuple, replaced by each.
    """

    def __init__(self, now: Callable[[], float] = SYSTEM_CLOCK.now) -> None:
        super().__init__(now)
        self._pauses: deque[Pause] = deque(maxlen=_KEPT)
        self.total = (0, 0.0)

    def collected(self, began: float, ended: float, info: Mapping[str, int]) -> None:
        """Count a collection."""
        count, seconds = self.total
        self.total = (count + 1, seconds + ended - began)
        if ended - began >= _NOTABLE:
            self._pauses.append(Pause(info["generation"], began, ended))

    def between(self, began: float, ended: float) -> list[Pause]:
        """Return the pauses of a millisecond or more that overlap a time."""
        return [pause for pause in tuple(self._pauses) if pause.ended > began and pause.began < ended]


collections = Collections()
