"""Work that no fork comes between, for libraries that lock while they do it and have no at-fork hooks.

OpenSSL takes locks of its own in a handshake, and Python lets other threads go on meanwhile, one of which may fork. The
child has the lock as it was at that moment, held by a thread it has not: its own first handshake would never end.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from perfkit._process.life import bind

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["undivided"]

_PLACES = 8  # threads that can be at it at the same time
_PATIENCE = 1.0  # seconds a fork waits for all that is under way, and work for a fork, at most


class _Taken(threading.local):
    """The places a thread has taken to fork."""

    def __init__(self) -> None:
        self.places: list[threading.RLock] = []


class _Gate:
    """As many locks as threads may be at it; a fork takes all of them."""

    def __init__(self) -> None:
        self._turn = itertools.count()
        self._after_fork()
        bind(self)
        os.register_at_fork(before=self.before, after_in_parent=self.in_parent)

    def _after_fork(self) -> None:
        self.places = [threading.RLock() for _ in range(_PLACES)]
        self._taken = _Taken()

    @contextmanager
    def passing(self) -> Iterator[None]:
        place = self.places[next(self._turn) % _PLACES]
        taken = place.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if taken:
                place.release()

    def before(self) -> None:
        end = time.monotonic() + _PATIENCE
        for place in self.places:
            if place.acquire(timeout=max(0.0, end - time.monotonic())):
                self._taken.places.append(place)

    def in_parent(self) -> None:
        while self._taken.places:
            self._taken.places.pop().release()


_gate = _Gate()
undivided = _gate.passing
"""Hold off forks for the time of a `with` block, which must not wait for anybody.

Neither waits for the other longer than a second: hooks of others, which run while a fork holds these locks, may
wait for what the block's thread has.
"""
