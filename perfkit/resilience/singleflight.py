"""Single flight: of the threads that want the same key, one computes and the others wait for its result.

An error is shared with those waiting, each getting his own copy, and never kept. A thread that would wait for itself,
directly or through other keys, gets a RecursiveCallError instead of a deadlock. If the computing thread is torn away
(SystemExit, a killed greenlet), or fails at a limit of its own (its time, its money), one of those waiting takes over.
So it is with a flight that no one thread computes, such as a stream's: `lead` begins it and `end` ends it.
"""

from __future__ import annotations

import copy
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from perfkit import _process
from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import DeadlineExceeded, RecursiveCallError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SingleFlight", "copied", "raise_again"]

T = TypeVar("T")
NOBODY = -1  # no thread has this number


class _Flight:
    """One computation under way."""

    __slots__ = ("done", "drive", "error", "landed", "owner", "value")

    def __init__(self, drive: Callable[[float | None], object] | None) -> None:
        self.owner = threading.get_ident() if drive is None else NOBODY
        self.drive = drive  # what a thread that waits does meanwhile
        self.done: threading.Event | None = None  # made by the first who waits: most flights have nobody
        self.landed = False  # False when the owner was torn away or at his limit: somebody else must compute
        self.value: Any = None
        self.error: Exception | None = None


class SingleFlight(Generic[T]):
    """At most one computation per key in this process.

    Args:
        personal: errors that say something of the computing thread's own limits only, such as its deadline; they are
            not shared: another thread computes.
    """

    def __init__(self, *, personal: tuple[type[Exception], ...] = ()) -> None:
        self._personal = personal
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _flights, _waiting, and the making of a flight's event
        self._flights: dict[str, _Flight] = {}
        self._waiting: dict[int, _Flight] = {}  # thread to what it waits for: a cycle would be a deadlock

    def run(self, key: str, compute: Callable[[], T], *, timeout: float | None = None) -> tuple[T, bool]:
        """Return `compute()`, or the result of the thread that computes it already, and whether it was another's.

        Args:
            key: what the result answers.
            compute: called without any lock held.
            timeout: seconds this thread is willing to wait for another one.

        Raises:
            RecursiveCallError: this thread is itself computing `key`, or waits in a circle.
            DeadlineExceeded: the other thread is not done within `timeout`.
            Exception: whatever `compute` raised, in this thread or, as a copy, in the other.
        """
        until = None if timeout is None else SYSTEM_CLOCK.now() + timeout
        while True:
            flight, mine = self._board(key)
            if mine:
                return self._lead(key, flight, compute), False
            if self._result(flight, until, timeout):
                return flight.value, True

    def lead(
        self, key: str, drive: Callable[[float | None], object], *, timeout: float | None = None
    ) -> tuple[_Flight, bool]:
        """Begin a flight that the caller must `end`, and return it and True; or wait for the one under way.

        Args:
            key: what the result answers.
            drive: what a thread that wants the result calls, with the seconds it has, to help it along.
            timeout: seconds this thread is willing to wait for another one.

        Raises:
            RecursiveCallError, DeadlineExceeded, Exception: as for `run`.
        """
        until = None if timeout is None else SYSTEM_CLOCK.now() + timeout
        while True:
            flight, mine = self._board(key, drive)
            if mine or self._result(flight, until, timeout):
                return flight, mine

    def end(self, key: str, flight: _Flight, value: T | None, error: Exception | None) -> None:
        """End a flight with a result, with an error for all who wait, or, with neither, so that one of them goes on."""
        flight.value, flight.error = value, error
        flight.landed = value is not None or error is not None
        self._land(key, flight)

    def _board(self, key: str, drive: Callable[[float | None], object] | None = None) -> tuple[_Flight, bool]:
        """Return the flight to wait for, or a new one and True."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight(drive)
                return flight, True
            self._refuse_circle(key, flight)
            if flight.done is None:
                flight.done = threading.Event()
            self._waiting[threading.get_ident()] = flight
            return flight, False

    def _result(self, flight: _Flight, until: float | None, timeout: float | None) -> bool:
        """Wait for a flight, and tell whether there is a result; if not, somebody else must compute."""
        if not self._landed(flight, until):
            raise DeadlineExceeded(f"another call for the same answer is not done after {timeout:g} s")
        if flight.error is not None:
            raise_again(flight.error)
        return flight.landed

    def _landed(self, flight: _Flight, until: float | None) -> bool:
        """Wait for the end of a flight; return False when time is up and there is no result."""
        try:
            if flight.drive is not None:
                _driven(flight.drive, until)
            left = None if until is None else min(max(0.0, until - SYSTEM_CLOCK.now()), threading.TIMEOUT_MAX)
            done = flight.done is not None and flight.done.wait(left)
        finally:
            with self._lock:
                self._waiting.pop(threading.get_ident(), None)
        return done and (flight.landed or until is None or SYSTEM_CLOCK.now() < until)

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
            if not isinstance(error, self._personal):
                flight.error, flight.landed = error, True
            raise
        finally:
            self._land(key, flight)
        return value

    def _land(self, key: str, flight: _Flight) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
            done = flight.done
        if done is not None:
            done.set()


def _driven(drive: Callable[[float | None], object], until: float | None) -> None:
    """Help a flight along; why that fails its end tells."""
    try:
        drive(None if until is None else max(0.0, until - SYSTEM_CLOCK.now()))
    except RecursiveCallError:
        raise
    except Exception:
        return


def raise_again(error: Exception) -> NoReturn:
    """Raise an error of another thread as this thread's own: tracebacks are not written into one another."""
    made = copied(error)
    if made is None:
        raise error
    raise made from error


def copied(error: Exception) -> Exception | None:
    """Return an equal error without traceback and cause, None for one that cannot be copied."""
    for again in (copy.copy, _bare):
        with suppress(Exception):
            made = again(error)
            if type(made) is type(error) and made.args == error.args:
                return made
    return None


def _bare(error: Exception) -> Exception:
    """Copy an error whose `__init__` takes other arguments than it hands on, as those of HTTP clients do."""
    made = type(error).__new__(type(error), *error.args)
    made.__dict__.update(error.__dict__)
    return made
