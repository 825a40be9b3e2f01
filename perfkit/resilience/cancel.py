"""Cancelling a call from another thread: what holds a socket says here how to let go of it.

A call that may have to be given up, as one of a hedged pair, runs inside a `Scope`. The transport tells the scope of
its thread how to drop its connection; `cancel()` drops them all at once, so the blocked thread wakes and the provider
stops.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Scope", "watch"]

_local = threading.local()


class Scope:
    """A call that can be cancelled; entered in the thread that makes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _drops and cancelled
        self._drops: list[Callable[[], None]] = []
        self.cancelled = False

    def __enter__(self) -> Self:
        self._outer = getattr(_local, "scope", None)
        _local.scope = self
        return self

    def __exit__(self, *_: object) -> None:
        _local.scope = self._outer

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
    """Tell the scope of this thread, if there is one, how to let go of what was just begun."""
    scope: Scope | None = getattr(_local, "scope", None)
    if scope is not None:
        scope.add(drop)
