"""What a provider has cost today: of all processes that share a Redis, of this one where there is none.

Dollars are counted in integer nano-dollars, by days of UTC. While Redis is away each process goes on from the last
total it has heard, and tells what it spent when Redis is back.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from perfkit.errors import StateUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.clock import Clock
    from perfkit.state import RedisLink

__all__ = ["Spending"]

DAY = 86_400
NANO = 1e9
FRESH = 1.0  # seconds for which a total from Redis is good enough


class Spending:
    """Dollars of one provider since midnight UTC.

    Args:
        name: of the provider.
        limit: dollars a day.
        clock: of the router.
        link: returns the Redis to share through, None for none.
    """

    def __init__(self, name: str, limit: float, clock: Clock, link: Callable[[], RedisLink | None]) -> None:
        self.limit = limit
        self._name, self._clock, self._link = name, clock, link
        self._day = self._known = 0  # epoch days; nano-dollars of all, as far as is known here
        self._heard = -FRESH
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the rest
        self._untold = 0  # nano-dollars spent here that Redis does not know of; in a child, the parent tells them

    def add(self, dollars: float) -> None:
        """Count what a call cost."""
        with self._lock:
            self._today()
            self._known += round(dollars * NANO)
            self._untold += round(dollars * NANO)
        self._exchange()

    def today(self) -> float:
        """Return the dollars spent since midnight, at most a second old."""
        with self._lock:
            self._today()
            fresh = self._clock.now() - self._heard < FRESH
        if not fresh:
            self._exchange()
        return self._known / NANO

    def _today(self) -> None:
        day = int(self._clock.wall() // DAY)
        if day != self._day:
            self._day, self._known, self._untold, self._heard = day, 0, 0, -FRESH

    def _exchange(self) -> None:
        """Tell Redis what was spent here and learn what all did."""
        link = self._link()
        if link is None:
            return
        with self._lock:
            day, told, self._untold = self._day, self._untold, 0
        key = link.key("spent", self._name, day)
        total = None
        with suppress(StateUnavailableError):
            total = int(link.pipeline([("INCRBY", key, told), ("EXPIRE", key, 2 * DAY)])[0])
        with self._lock:
            self._heard = self._clock.now()
            if day == self._day:
                self._untold += told if total is None else 0
                self._known = max(self._known, total or 0)
