"""What finalizers leave to be done where no lock is held."""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from perfkit._process.life import bind, check, log
from perfkit._process.periodic import background

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Deferred", "deferred"]

_SOON = 0.2  # seconds until deferred work is done


class Deferred:
    """Work that finalizers leave for a better moment.

    The collector runs a finalizer inside any line of any thread, which may hold any lock, so a finalizer must take
    none: it adds its work here. The background thread does it within 0.2 s, or a call that begins before.
    """

    def __init__(self) -> None:
        self._work: deque[Callable[[], object]] = deque()  # each step on it and on _watched is atomic, so no lock
        self._watched: set[weakref.finalize[..., Any]] = set()
        self._inherited: list[Callable[[], object]] = []  # kept: a generator let go of would be closed there and then
        self._ticking = False
        bind(self)

    def _after_fork(self) -> None:
        self._work.extend(self._let_go())
        self._inherited.extend(self._work)  # the parent does it
        self._work.clear()

    def _let_go(self) -> list[Callable[[], object]]:
        """Stop waiting for the owners that are still there; return the work they left."""
        found = [finalizer.detach() for finalizer in list(self._watched)]  # at exit, calling one has no effect
        self._watched.clear()
        return [told[2][0] for told in found if told is not None]

    def add(self, work: Callable[[], object]) -> None:
        """Have `work` done soon; safe in finalizers, gc callbacks and signal handlers."""
        self._work.append(work)

    def when_gone(self, owner: object, work: Callable[[], object]) -> weakref.finalize[..., Any]:
        """Have `work` done soon after `owner` is gone, unless what is returned is detached before.

        `work`, and all it refers to, lives on until then; `owner` must not be among it.
        """
        finalizer = weakref.finalize(owner, self.add, work)
        finalizer.atexit = False
        self._watched.add(finalizer)
        if self._ticking:
            background.ensure()
        else:
            self._tick_on()
        return finalizer

    def _tick_on(self) -> None:
        self._ticking = True
        background.every(_SOON, self._tick)

    def _tick(self) -> None:
        self.run()
        for finalizer in list(self._watched):
            if not finalizer.alive:
                self._watched.discard(finalizer)
        if not self._watched:
            self._ticking = False
            background.cancel(self._tick)
            if self._watched or self._work:  # come meanwhile
                self._tick_on()

    def run(self) -> None:
        """Do what has gathered; only where no lock is held."""
        while self._work:
            check()
            try:
                work = self._work.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                work()
            except Exception:
                log.exception("deferred work failed")

    def close(self) -> None:
        """Do what is left, also for owners that are still there: the process ends."""
        self._work.extend(self._let_go())
        self.run()


deferred = Deferred()
