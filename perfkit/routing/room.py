"""What a provider's own words leave of its limits, as time goes on: traffic moves away before it answers 429."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ToldRoom"]


class ToldRoom:
    """The limits of one provider, from its latest answer."""

    def __init__(self) -> None:
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the rest
        self._rooms: Sequence[Any] = ()
        self._at = 0.0

    def hear(self, rooms: Sequence[Any], tokens: int, in_flight: int, now: float) -> float:
        """Take in what the provider told with an answer; return the seconds to leave it alone, mostly 0.

        Args:
            rooms: that its limits have left, as told; not empty.
            tokens: that the answer took; the next one is expected to take as many.
            in_flight: calls under way that the provider had not counted yet.
            now: monotonic second.
        """
        with self._lock:
            if rooms is not self._rooms:
                self._rooms, self._at = rooms, now
            since = now - self._at
        calls = in_flight + 1
        return float(max(room.wait(calls * (tokens if room.kind == "tokens" else 1), since) for room in rooms))

    def free(self, now: float) -> float:
        """Return the part of its limits that is free, 0..1; 1 if nothing is known."""
        if not self._rooms:
            return 1.0
        with self._lock:
            rooms, since = self._rooms, now - self._at
        return float(min((room.left(since) / room.limit for room in rooms), default=1.0))
