"""Timers begun and ended by an operation's name (RAAF guide 1.6), in the same thread or in another.

A thread ends the timer it began last, so timers nest. A thread that has begun none ends the one that has been running
longest in any other: work begun here and ended there, as with a queue, comes out in order. Whichever is taken, count
and sum of the durations are right. Every step is atomic by itself, so there is no lock that a signal handler or a
finaliser could meet.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict, deque

__all__ = ["RunningTimers"]

_NESTED = 64  # timers of one operation running in one thread; of more, which were never ended, the oldest are forgotten
_RUNNING = 4096  # timers of one operation running in all threads; likewise


class RunningTimers:
    """When the timers that run were begun."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._own = threading.local()
        self._begun: dict[str, dict[int, float]] = {}  # by operation and number, oldest first

    def begin(self, operation: str, now: float) -> None:
        """Note that an operation began at the clock reading `now`."""
        begun = self._begun.setdefault(operation, {})
        number = next(self._numbers)
        mine = self._stacks()[operation]
        if len(mine) == _NESTED:
            begun.pop(mine.popleft(), None)
        begun[number] = now
        mine.append(number)
        if len(begun) > _RUNNING:
            self._take_oldest(begun)

    def end(self, operation: str) -> float | None:
        """Return when the timer that ends now was begun, None if none is running."""
        begun = self._begun.get(operation)
        if begun is None:
            return None
        stacks = self._stacks()
        mine = stacks.pop(operation, None)
        while mine:
            at = begun.pop(mine.pop(), None)  # None: another thread has ended it
            if at is not None:
                if mine:
                    stacks[operation] = mine
                return at
        return self._take_oldest(begun)

    @staticmethod
    def _take_oldest(begun: dict[int, float]) -> float | None:
        while begun:
            try:
                at = begun.pop(next(iter(begun)), None)
            except (StopIteration, RuntimeError):  # changed by another thread meanwhile
                continue
            if at is not None:
                return at
        return None

    def _stacks(self) -> defaultdict[str, deque[int]]:
        local = self._own
        try:
            stacks: defaultdict[str, deque[int]] = local.stacks
        except AttributeError:
            stacks = local.stacks = defaultdict(deque)
        return stacks
