"""Many calls with bounded concurrency: worker threads pull from one shared iterator.

Inputs may be endless, since the workers are at most four items each ahead of who reads the results (64 while calls take
less than 20 us); each item has its own result, so that one failure loses nothing; context variables of the caller are
seen by every item; when the caller stops iterating, workers end after the item in hand. A provider's 429 holds all of
them up for as long as it says, and costs its item a second try instead of a failure.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from concurrent.futures import CancelledError
from operator import length_hint
from queue import Empty
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from perfkit.agents.belt import Belt
from perfkit.errors import DeadlineExceeded, RateLimitError
from perfkit.resilience.cancel import Cancellation
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["Cancellation", "Result", "map_bounded"]


T = TypeVar("T")
R = TypeVar("R")
_BRIEF = 20e-6  # seconds a call may take to be brief, see Belt
_made = tuple.__new__  # what NamedTuple's own way to it does, without its frame
_TRIES = 3  # of an item that is told to come later
_LATER = 60.0  # seconds it may be told to wait
_GRACE = 0.2  # seconds that workers have to end after Ctrl-C


class Result(NamedTuple, Generic[R]):
    """What became of one item: `value`, or `error`, after `seconds`."""

    index: int  # type: ignore[assignment]  # of a tuple, it would be a method
    value: R | None = None
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True when the call returned."""
        return self.error is None


class _Work(Generic[T, R]):
    """What the threads of one batch do."""

    def __init__(self, fn: Callable[[T], R], items: Iterable[T], *, window: int, rate: float | None) -> None:
        self._fn = fn
        self._every = 0.0 if rate is None else 1 / rate
        self._next = 0.0  # no item is begun before
        self._turn = threading.Lock()  # guards _next
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self.belt = Belt(items, window, self._wait_for_turn)
        self.belt.paced = rate is not None

    def start(self, workers: int) -> None:
        """Start workers, which see the caller's context variables."""
        for number in range(workers):
            work, name = contextvars.copy_context().run, f"perfkit-batch-{number}"
            thread = threading.Thread(target=work, args=(self.run,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        """Wait until every worker has ended after the item in hand; where Ctrl-C was pressed not for long."""
        self._stop()
        until = time.monotonic() + (_GRACE if sys.exc_info()[0] is KeyboardInterrupt else threading.TIMEOUT_MAX)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _stop(self) -> None:
        self._stopped.set()
        self.belt.end()

    def cancel(self) -> None:
        """End the batch from any thread."""
        self._stop()
        self._put(CancelledError("the batch was cancelled"))

    def listen(self, until: float | None, done: int) -> None:
        """Wait for a result until the deadline of the batch."""
        try:
            self.belt.listen(until)
        except Empty:
            raise DeadlineExceeded(f"the time of the batch ran out after {done} results", sent=False) from None

    def run(self) -> None:
        """Work until the items end or the caller stops; then leave a None behind."""
        try:
            while not self.belt.over:
                self._work(self.belt.take())
        except BaseException as error:  # the iterator failed, or a call wants to end the program: for the caller
            self._put(error)
        finally:
            self._put(None)

    def _work(self, items: Iterable[tuple[int, T]]) -> None:
        """Work on items until a call is long."""
        fn, belt, add = self._fn, self.belt, self.belt.results.append
        copy, clock = contextvars.copy_context, time.perf_counter
        for index, item in items:
            if belt.ended:
                return
            belt.taken = index + 1
            started = clock()
            try:
                value = copy().run(fn, item)
            except Exception as error:
                self._put(self._again(index, item, error, started))
                return
            seconds = clock() - started
            add(_made(Result, (index, value, None, seconds)))
            if seconds >= _BRIEF or not belt.brief:
                belt.tell(brief=seconds < _BRIEF)
                return

    def _put(self, result: object) -> None:
        self.belt.results.append(result)
        self.belt.tell()

    def _wait_for_turn(self) -> None:
        """Wait until another item may be begun; others wait at the iterator meanwhile."""
        while True:
            with self._turn:
                now = time.monotonic()
                wait = self._next - now
                if wait <= 0:
                    self._next = now + self._every
                    self.belt.paced = self._every > 0
                    return
            if self._stopped.wait(wait):
                return

    def _again(self, index: int, item: T, error: Exception, started: float) -> Result[R]:
        """Return the result of a call that failed: the error, or what comes later if it says when to come again."""
        for _ in range(_TRIES - 1):
            later = getattr(error, "retry_after", None) if isinstance(error, RateLimitError) else None
            if later is None or not 0 < later <= _LATER:
                break
            with self._turn:
                self._next = max(self._next, time.monotonic() + later)
                self.belt.paced = True
            if self._stopped.wait(later):
                break
            try:
                value = contextvars.copy_context().run(self._fn, item)
            except Exception as failed:
                error = failed
            else:
                return Result(index, value, None, time.perf_counter() - started)
        return Result(index, None, error, time.perf_counter() - started)


def map_bounded(  # noqa: PLR0913 - all but what is done are options
    fn: Callable[[T], R],
    items: Iterable[T],
    max_concurrent: int = 5,
    *,
    ordered: bool = True,
    progress: Callable[[int], Any] | None = None,
    fail_fast: bool = False,
    timeout: float | None = None,
    rate: float | None = None,
    cancel: Cancellation | None = None,
) -> Generator[Result[R], None, None]:
    """Call `fn` on every item in `max_concurrent` threads and yield a Result for each.

    However it ends, closed early or by an error, no further item is taken and every thread has ended then: calls under
    way are waited for, after Ctrl-C for a moment only.

    Args:
        fn: called in worker threads, each call in a copy of the caller's context. An item for which it raises a
            RateLimitError that says when to come again is tried again then, twice at most.
        items: may be endless.
        max_concurrent: threads, at least 1; never more than there are items, where that can be told.
        ordered: yield in the order of `items`; else as they are done.
        progress: called in the caller's thread with the number done so far.
        fail_fast: raise the first error that happens, whatever the order, instead of yielding it.
        timeout: seconds for all of it, from the first result asked for.
        rate: items begun a second at most.
        cancel: its `cancel()` ends the batch from any thread.

    Raises:
        ValueError: `max_concurrent`, `timeout` or `rate` is out of bounds.
        DeadlineExceeded: `timeout` ran out.
        CancelledError: of `concurrent.futures`; it was cancelled.
        Exception: what iterating `items` raised.
        BaseException: what is no Exception (SystemExit, a killed greenlet) and was raised by `fn`.
    """
    if max_concurrent < 1:
        raise ValueError(f"max_concurrent must be at least 1, not {max_concurrent}")
    for name, value in (("timeout", timeout), ("rate", rate)):
        if value is not None:
            finite(name, value, above=0)
    workers = max(1, min(max_concurrent, length_hint(items, max_concurrent)))
    work = _Work(fn, items, window=4 * max_concurrent, rate=rate)
    if cancel is not None:
        cancel.add(work.cancel)
    watch = _watcher(progress, fail_fast=fail_fast) if fail_fast or progress is not None else None
    return _results(work, workers, ordered=ordered, watch=watch, timeout=timeout)


def _watcher(progress: Callable[[int], Any] | None, *, fail_fast: bool) -> Callable[[Result[Any], int], None]:
    def watch(result: Result[Any], done: int) -> None:
        if fail_fast and result.error is not None:
            raise result.error
        if progress is not None:
            progress(done)

    return watch


def _results(
    work: _Work[T, R],
    workers: int,
    *,
    ordered: bool,
    watch: Callable[[Result[R], int], None] | None,
    timeout: float | None,
) -> Generator[Result[R], None, None]:
    early: dict[int, Result[R]] = {}
    done = wanted = 0
    deadline = None if timeout is None else time.monotonic() + timeout
    belt = work.belt
    get = belt.results.popleft
    try:
        work.start(workers)
        while workers:
            try:
                result = get()
            except IndexError:
                work.listen(deadline, done)
                continue
            if result.__class__ is not Result:
                workers -= _ended(result)
                continue
            done += 1
            if watch is not None:
                watch(result, done)
            if ordered and result[0] != wanted:
                early[result[0]] = result
                continue
            while result is not None:
                belt.left = wanted = wanted + 1
                if not belt.brief:
                    belt.wake()
                yield result
                result = early.pop(wanted, None) if early else None
    finally:
        work.end()


def _ended(sign: BaseException | None) -> int:
    """Return 1 for a worker that has ended, raise what ended one before its time."""
    if sign is not None:
        raise sign
    return 1
