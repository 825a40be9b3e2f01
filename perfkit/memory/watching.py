"""Callbacks of the garbage collector: told of each collection, and forks wait until they have been.

The interpreter runs one collection at a time, callbacks included, so callbacks need no lock; it may run one in any
thread, whatever locks that holds, so they take none. But while one runs another thread may fork. The interpreter's mark
that a collection is under way would stay in that child for ever, which would collect nothing any more: so forks wait.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Watcher"]

_PATIENCE = 1.0  # seconds a fork waits at most
_NO_THREAD = 0

_under_way: dict[Watcher, int] = {}  # the thread of a collection whose end a watcher has not been told yet


def _wait_before_fork() -> None:
    until, own = time.monotonic() + _PATIENCE, threading.get_ident()
    while any(thread not in (_NO_THREAD, own) for thread in tuple(_under_way.values())) and time.monotonic() < until:
        time.sleep(0.0005)


os.register_at_fork(before=_wait_before_fork, after_in_child=_under_way.clear)


class Watcher(ABC):
    """Is told of collections between `watch()` and `unwatch()`; what it makes of them is in `collected`.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._began = 0.0

    def watch(self) -> None:
        """Be told from now on."""
        if self not in gc.callbacks:
            gc.callbacks.append(self)

    def unwatch(self) -> None:
        """Be told no more."""
        with suppress(ValueError):
            gc.callbacks.remove(self)
        _under_way.pop(self, None)  # the end of a collection is not told any more

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """Be told by the interpreter that a collection starts or stops."""
        if phase == "start":
            _under_way[self] = threading.get_ident()
            self._began = self.now()
        elif _under_way.get(self):  # else it was under way when we began to watch
            self.collected(self._began, self.now(), info)
            _under_way[self] = _NO_THREAD  # no call comes after it, and so no change of threads

    @abstractmethod
    def collected(self, began: float, ended: float, info: Mapping[str, int]) -> None:
        """Take note of a collection; seconds of the clock, and what the interpreter tells of it."""
