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

__all__ = ["Scope", "watch"]

_current: ContextVar[Scope | None] = ContextVar("perfkit_cancellation", default=None)


class Scope:
    """A call that can be cancelled; entered in the thread that makes it, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _drops and cancelled
        self._drops: list[Callable[[], None]] = []
        self.cancelled = False

    def __enter__(self) -> Self:
        self._entered = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._entered)

    def add(self, drop: Callable[[], None]) -> None:
        """Have `drop` called on `cancel`, at once if that has happened; it must be harmless when all is over."""
        with self._lock:
            if not self.cancelled:
                self._drops.append(drop)
                return
        drop()

    def cancel(self) -> None:
        """Let go of everything, from any thread."""
        with self._lock:
            drops, self._drops, self.cancelled = self._drops, [], True
        for drop in drops:
            drop()


def watch(drop: Callable[[], None]) -> None:
    """Tell the scope this runs in, if there is one, how to let go of what was just begun."""
    scope = _current.get()
    if scope is not None:
        scope.add(drop)
