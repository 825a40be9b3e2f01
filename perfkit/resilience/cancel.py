"""Cancelling a call from another thread: what holds a socket says here how to let go of it.

A call that may have to be given up, as one of a hedged pair, runs inside a `Scope`. The transport tells the scope of
its context how to drop its connection; `cancel()` drops them all at once, so the blocked thread wakes and the provider
stops. Threads that are given a copy of the context belong to the scope too.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Cancellation", "Scope", "watch"]

_current: ContextVar[Scope | None] = ContextVar("perfkit_cancellation", default=None)


class Cancellation:
    """Ends from any thread what was told to it, before or while that runs: batches, and connections of a call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _ends and cancelled
        self._ends: list[Callable[[], None]] = []
        self.cancelled = False

    def add(self, end: Callable[[], None]) -> None:
        """Have `end` called on `cancel`, at once if that has happened; it must be harmless when all is over."""
        with self._lock:
            if not self.cancelled:
                self._ends.append(end)
                return
        end()

    def cancel(self) -> None:
        """End it all; of a batch no further item is begun, and whoever reads the results gets a CancelledError."""
        with self._lock:
            ends, self._ends, self.cancelled = self._ends, [], True
        for end in ends:
            end()


class Scope(Cancellation):
    """A call that can be cancelled; entered in the thread that makes it, once."""

    def __enter__(self) -> Self:
        self._entered = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._entered)


def watch(drop: Callable[[], None]) -> None:
    """Tell the scope this runs in, if there is one, how to let go of what was just begun."""
    scope = _current.get()
    if scope is not None:
        scope.add(drop)
