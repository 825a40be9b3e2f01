"""Work that no fork comes between, for libraries that lock while they do it and have no at-fork hooks.

OpenSSL takes locks of its own in a handshake, and Python lets other threads go on meanwhile, one of which may fork. The
child has the lock as it was at that moment, held by a thread it has not: its own first handshake would never end.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import suppress

__all__ = ["undivided"]

_PLACES = 8  # threads that can be at it at the same time
_PATIENCE = 1.0  # seconds a fork waits at most, for all together

_places = [threading.RLock() for _ in range(_PLACES)]  # a fork takes all of them
_turn = itertools.count()


def undivided() -> threading.RLock:
    """Return a lock to hold during work that must not wait for anybody; a fork waits for its end, up to a second."""
    return _places[next(_turn) % _PLACES]


def _before() -> None:
    end = time.monotonic() + _PATIENCE
    for place in _places:
        place.acquire(timeout=max(0.0, end - time.monotonic()))


def _in_parent() -> None:
    for place in _places:
        with suppress(RuntimeError):  # its holder did not come to an end
            place.release()


def _in_child() -> None:
    _places[:] = [threading.RLock() for _ in range(_PLACES)]


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
