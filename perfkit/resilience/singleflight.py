"""Single flight: of the threads that want the same key, one computes and the others wait for its result.

An error is shared with those waiting and never kept. A thread that would wait for itself, directly or through other
keys, gets a RecursiveCallError instead of a deadlock. If the computing thread is torn away (SystemExit, a killed
greenlet), one of those waiting takes over.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from perfkit import _process
from perfkit.errors import DeadlineExceeded, RecursiveCallError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SingleFlight"]

T = TypeVar("T")


class _Flight:
    """One computation under way."""

    __slots__ = ("done", "error", "landed", "owner", "value")

    def __init__(self) -> None:
        self.owner = threading.get_ident()
        self.done = threading.Event()
        self.landed = False  # False when the owner was torn away: somebody else must compute
        self.value: Any = None
        self.error: Exception | None = None


class SingleFlight(Generic[T]):
    """At most one computation per key in this process."""

    def __init__(self) -> None:
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _flights and _waiting
        self._flights: dict[str, _Flight] = {}
        self._waiting: dict[int, _Flight] = {}  # thread to what it waits for: a cycle would be a deadlock

    def close(self) -> None:
        """Nothing to let go: flights end with their owners."""

    def run(self, key: str, compute: Callable[[], T], *, timeout: float | None = None) -> tuple[T, bool]:
        """Return `compute()`, or the result of the thread that computes it already, and whether it was another's.

        Args:
            key: what the result answers.
            compute: called without any lock held.
            timeout: seconds this thread is willing to wait for another one.

        Raises:
            RecursiveCallError: this thread is itself computing `key`, or waits in a circle.
            DeadlineExceeded: the other thread is not done within `timeout`.
            Exception: whatever `compute` raised, in this thread or the other.
        """
        while True:
            with self._lock:
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = _Flight()
                    break
                self._refuse_circle(key, flight)
                self._waiting[threading.get_ident()] = flight
            try:
                if not flight.done.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
                    raise DeadlineExceeded(f"another call for the same answer is not done after {timeout:g} s")
            finally:
                with self._lock:
                    self._waiting.pop(threading.get_ident(), None)
            if flight.error is not None:
                raise flight.error
            if flight.landed:
                return flight.value, True
        return self._lead(key, flight, compute), False

    def _refuse_circle(self, key: str, flight: _Flight) -> None:
        me, ahead = threading.get_ident(), flight
        while ahead.owner != me:
            behind = self._waiting.get(ahead.owner)
            if behind is None:
                return
            ahead = behind
        raise RecursiveCallError(f"the computation of {key!r} asks for its own result; give the inner call another key")

    def _lead(self, key: str, flight: _Flight, compute: Callable[[], T]) -> T:
        try:
            flight.value = value = compute()
            flight.landed = True
        except Exception as error:
            flight.error, flight.landed = error, True
            raise
        finally:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.done.set()
        return value
