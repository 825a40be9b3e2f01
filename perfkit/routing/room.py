"""What a provider's own words leave of its limits, as time goes on: traffic moves away before it answers 429."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LITTLE", "ToldRoom"]

LITTLE = 0.2  # of the room: with less, a growing part of the calls goes to others


class ToldRoom:
    """The limits of one provider, from its latest answer.

    Attributes:
        told: it has told of them.
    """

    def __init__(self) -> None:
        self._told: tuple[Sequence[Any], float] = (), 0.0  # what was told, and when; replaced, never changed
        self.told = False

    def hear(self, rooms: Sequence[Any], tokens: int, in_flight: int, now: float) -> float:
        """Take in what the provider told with an answer; return the seconds to leave it alone, mostly 0.

        Args:
            rooms: that its limits have left, as told; not empty.
            tokens: that the answer took; the next one is expected to take as many.
            in_flight: calls under way that the provider had not counted yet.
            now: monotonic second.
        """
        if rooms is not self._told[0]:
            self._told, self.told = (rooms, now), True
        since, calls = now - self._told[1], in_flight + 1
        return float(max(room.wait(calls * (tokens if room.kind == "tokens" else 1), since) for room in rooms))

    def free(self, now: float) -> float:
        """Return the part of its limits that is free, 0..1, once it has told of them."""
        rooms, at = self._told
        return float(min(room.left(now - at) / room.limit for room in rooms))
