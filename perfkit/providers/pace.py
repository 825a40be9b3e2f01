"""How fast a stream must be: so many tokens a second since its first text, with some seconds of grace."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfkit.clock import Clock

__all__ = ["Pace"]

GRACE = 5.0  # seconds
CHARACTERS = 4  # of a token


class Pace:
    """The clock of one stream; begins with its first text and stands still while the reader pauses.

    Args:
        rate: tokens a second.
        clock: to go by.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate, self._clock = rate, clock
        self._until: float | None = None

    def heard(self, text: str) -> None:
        """Note a piece of text."""
        if self._until is None:
            self._until = self._clock.now() + GRACE
        self._until += max(1, len(text) // CHARACTERS) / self._rate

    def paused(self, seconds: float) -> None:
        """Note that nobody listened for `seconds`."""
        if self._until is not None:
            self._until += seconds

    @property
    def left(self) -> float:
        """Seconds until more must have come, negative when it is too late."""
        return float("inf") if self._until is None else self._until - self._clock.now()
