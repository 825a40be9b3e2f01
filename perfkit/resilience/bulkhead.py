"""Bulkhead: at most so many calls at a time, a queue of bounded length behind them, in the order of arrival.

A place that becomes free is handed to the first in the queue; whoever's time ran out in the same moment has either left
the queue before, or keeps the place he was handed. The limit may be a fixed number or learnt from the latencies:
Gradient2 of Netflix compares how long calls take now with how long they took, and lets fewer in as soon as they begin
to queue at the other side.
"""

from __future__ import annotations

import math
import threading
from collections import deque

__all__ = ["Bulkhead", "GradientLimit"]

LONG = 600  # samples the long average is made of
TOLERANCE = 1.5  # times the long average that is no sign of queueing yet
WARM_UP = 10  # samples it begins with as a plain mean
RELUCTANCE = 20  # times less is learnt from slower samples: else what queues would become what is usual


class GradientLimit:
    """A number of calls at a time that follows latency.

    Args:
        start: first limit.
        least: lowest limit.
        most: highest limit.
    """

    def __init__(self, *, start: int = 10, least: int = 1, most: int = 200) -> None:
        self._limit = float(start)
        self._least, self._most = least, most
        self._long = 0.0
        self._seen = 0

    @property
    def limit(self) -> int:
        """Calls at a time."""
        return int(self._limit)

    def sample(self, seconds: float, in_flight: int) -> None:
        """Learn from a call that took `seconds` while `in_flight` were under way."""
        self._seen += 1
        weight = 1 / self._seen if self._seen <= WARM_UP else 2 / (LONG + 1)
        if self._seen > WARM_UP and seconds > self._long:
            weight /= RELUCTANCE
        self._long += (seconds - self._long) * weight
        if self._long > 2 * seconds:
            self._long *= 0.95  # it was slow for long and is not any more
        if in_flight < self._limit / 2 or not seconds:
            return  # not full, so latency says nothing about the limit
        gradient = max(0.5, min(1.0, TOLERANCE * self._long / seconds))
        wanted = self._limit * gradient + math.sqrt(self._limit)
        self._set(0.8 * self._limit + 0.2 * wanted)

    def drop(self) -> None:
        """Let fewer in: the other side refused."""
        self._set(0.9 * self._limit)

    def _set(self, limit: float) -> None:
        self._limit = max(self._least, min(self._most, limit))


class Bulkhead:
    """Places for calls, and a queue.

    Args:
        limit: calls at a time, or a GradientLimit.
        max_waiting: longest queue.
    """

    def __init__(self, limit: int | GradientLimit, *, max_waiting: int) -> None:
        self._fixed = limit if isinstance(limit, int) else 0
        self.gradient = limit if isinstance(limit, GradientLimit) else None
        self.max_waiting = max_waiting
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards what follows, and the gradient
        self.inside = 0
        self._queue: deque[threading.Event] = deque()

    @property
    def limit(self) -> int:
        """Calls at a time, now."""
        return self._fixed if self.gradient is None else self.gradient.limit

    @property
    def waiting(self) -> int:
        """How many are in the queue."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether who comes now has to wait."""
        return self.inside >= self.limit or bool(self._queue)

    @property
    def full(self) -> bool:
        """Whether who comes now is refused."""
        return self.busy and len(self._queue) >= self.max_waiting

    def try_enter(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        with self._lock:
            if self.busy:
                return False
            self.inside += 1
            return True

    def enter(self, timeout: float) -> bool:
        """Take a place, waiting at most `timeout` seconds; False when there was none, or the queue is full."""
        with self._lock:
            if not self.busy:
                self.inside += 1
                return True
            if len(self._queue) >= self.max_waiting:
                return False
            turn = threading.Event()
            self._queue.append(turn)
        try:
            got = turn.wait(min(timeout, threading.TIMEOUT_MAX))
        except BaseException:
            if not self._left(turn):
                self.leave()
            raise
        return got or not self._left(turn)

    def _left(self, turn: threading.Event) -> bool:
        """Leave the queue; False when a place was handed over already."""
        with self._lock:
            if turn.is_set():
                return False
            self._queue.remove(turn)
            return True

    def leave(self, seconds: float | None = None, *, refused: bool = False) -> None:
        """Give the place to the next; a gradient learns from the `seconds` the call took, or that it was refused."""
        with self._lock:
            if self.gradient is not None:
                if refused:
                    self.gradient.drop()
                elif seconds is not None:
                    self.gradient.sample(seconds, self.inside)
            self.inside -= 1
            while self._queue and self.inside < self.limit:
                self.inside += 1
                self._queue.popleft().set()

    def __repr__(self) -> str:
        return f"<Bulkhead {self.inside} of {self.limit} inside, {self.waiting} of {self.max_waiting} waiting>"
