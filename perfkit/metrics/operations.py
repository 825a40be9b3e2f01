"""What runs in this process right now: who looks for the slow ones reads here, who works writes.

A run is entered when it begins and taken out when it ends, 0.2 us together, so that a watchdog can tell how old each is
and which thread it is in. Pools and providers add what a thread waited for. Every step on a dict or deque is atomic by
itself, so there is no lock that a signal handler or a finaliser could meet.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit import _process
from perfkit.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Operations", "Running", "Step", "operations"]

_STEPS = 1024  # finished steps that are remembered


class Running:
    """One run of an operation under way; slots without a constructor, since one is made for every run.

    Attributes:
        operation: whose run it is.
        thread: identifier of the thread it is in.
        started: clock reading when it began, less what it was paused.
        cpu: the thread's CPU seconds then, None once it has gone to another thread.
        collections: garbage collections of the process until then, and the seconds these took.
        rss: resident bytes before it began, None when unknown.
        slow: what a watchdog found out about it, None while it is not slow.
    """

    __slots__ = ("collections", "cpu", "operation", "rss", "slow", "started", "thread")

    operation: Any
    thread: int
    started: float
    cpu: float | None
    collections: tuple[int, float]
    rss: int | None
    slow: Any


class Step(NamedTuple):
    """What a thread was busy with, or waited for, inside of an operation; monotonic seconds, `ended` None so far."""

    kind: str
    name: str
    thread: int
    began: float
    ended: float | None


class Operations:
    """The runs and steps of a process.

    Attributes:
        running: every run under way.
        watched: whether work that nobody profiles is entered too; True until a profiler of this process says no.
        open, finished: steps under way by whose they are, and the latest that ended; fields of a Step.
        now: the clock.
    """

    def __init__(self, now: Callable[[], float] = SYSTEM_CLOCK.now) -> None:
        self.now = now
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self.running: dict[Running, None] = {}
        self.watched = True
        self.open: dict[object, tuple[Any, ...]] = {}
        self.finished: deque[tuple[Any, ...]] = deque(maxlen=_STEPS)

    def begin(self, key: object, kind: str, name: str) -> None:
        """Note that this thread is busy with something, such as a provider, until `end(key)`."""
        self.open[key] = kind, name, threading.get_ident(), self.now()

    def end(self, key: object) -> None:
        """Note that the step `key` is over."""
        begun = self.open.pop(key, None)
        if begun is not None:  # forgotten in a forked child
            self.finished.append((*begun, self.now()))

    @contextmanager
    def step(self, kind: str, name: str) -> Iterator[None]:
        """Note that this thread is busy with something while the block runs."""
        key = object()
        self.begin(key, kind, name)
        try:
            yield
        finally:
            self.end(key)

    def waited(self, kind: str, name: str, began: float, ended: float) -> None:
        """Note that this thread has waited."""
        self.finished.append((kind, name, threading.get_ident(), began, ended))

    def steps(self, thread: int, since: float) -> list[Step]:
        """Return the steps of a thread that ended after `since` or have not ended, oldest first."""
        known = [Step(*step) for step in self._copy(self.finished)]
        known += [Step._make((*step, None)) for step in self._copy(self.open.values())]
        found = [step for step in known if step.thread == thread and (step.ended is None or step.ended > since)]
        return sorted(found, key=lambda step: step.began)

    @staticmethod
    def _copy(steps: Any) -> list[Any]:
        while True:
            try:
                return list(steps)
            except RuntimeError:  # changed meanwhile by another thread
                continue

    def __repr__(self) -> str:
        return f"Operations({len(self.running)} running)"


operations = Operations()
