"""Many calls with bounded concurrency: worker threads pull from one shared iterator.

Inputs may be endless, since no more are taken than there are workers (plus a bounded window when order is kept); each
item has its own result, so that one failure loses nothing; context variables of the caller are seen by every item; when
the caller stops iterating, workers end after the item in hand. A provider's 429 holds all of them up for as long as it
says, and costs its item a second try instead of a failure.
"""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass
from operator import length_hint
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from perfkit.errors import DeadlineExceeded, RateLimitError
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

__all__ = ["Cancellation", "Result", "map_bounded"]


T = TypeVar("T")
R = TypeVar("R")
_END: Any = object()
_TRIES = 3  # of an item that is told to come later
_LATER = 60.0  # seconds it may be told to wait


@dataclass(slots=True)  # not frozen: that would take as long as all else that is done for an item
class Result(Generic[R]):
    """What became of one item: `value`, or `error`, after `seconds`."""

    index: int
    value: R | None = None
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True when the call returned."""
        return self.error is None


class Cancellation:
    """Ends batches from any thread, before or while they run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both below
        self._works: list[Callable[[], None]] = []
        self.cancelled = False

    def add(self, end: Callable[[], None]) -> None:
        """Have `end` called on `cancel`, at once if that has happened."""
        with self._lock:
            if not self.cancelled:
                self._works.append(end)
                return
        end()

    def cancel(self) -> None:
        """End them: no further item is begun, and whoever reads the results gets a CancelledError."""
        with self._lock:
            works, self._works, self.cancelled = self._works, [], True
        for end in works:
            end()


class _Work(Generic[T, R]):
    """The shared iterator, the window and the results of one batch."""

    def __init__(self, fn: Callable[[T], R], items: Iterable[T], *, window: int, rate: float | None) -> None:
        self._fn = fn
        self._items = enumerate(items)
        self._every = 0.0 if rate is None else 1 / rate
        self._next = 1e-9 if rate is not None else 0.0  # no item is begun before; 0 where nobody asks for that
        self._taking = threading.Lock()  # guards _items: generators must not be entered twice
        self._turn = threading.Lock()  # guards _next
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(window):
            self._room.put(None)
        self.stopped = threading.Event()
        self.results: SimpleQueue[Result[R] | BaseException | None] = SimpleQueue()

    def thread(self, number: int) -> threading.Thread:
        """Return a worker that sees the caller's context variables."""
        context = contextvars.copy_context()
        return threading.Thread(target=context.run, args=(self.run,), name=f"perfkit-batch-{number}", daemon=True)

    def done(self, workers: int, deadline: float | None) -> Iterator[Result[R]]:
        """Yield results as they come until every worker has ended; raise what ended one before its time."""
        get, seen = self.results.get, 0
        while workers:
            try:
                result = get() if deadline is None else get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise DeadlineExceeded(f"the time of the batch ran out after {seen} results", sent=False) from None
            if result is None:
                workers -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                seen += 1
                yield result

    def made_room(self) -> None:
        """Let one more item be taken: a result has left the window."""
        self._room.put(None)

    def stop(self, workers: int) -> None:
        """Let every worker end after the item in hand."""
        self.stopped.set()
        for _ in range(workers):
            self._room.put(None)

    def cancel(self) -> None:
        """End the batch from any thread."""
        self.stopped.set()
        self.results.put(CancelledError("the batch was cancelled"))

    def run(self) -> None:
        """Work until the items end or the caller stops; then leave a None behind."""
        room, put, copy, clock = self._room.get, self.results.put, contextvars.copy_context, time.perf_counter
        try:
            while True:
                room()
                index, item = self._take()
                if item is _END:
                    return
                started = clock()
                try:
                    value = copy().run(self._fn, item)
                except Exception as error:
                    put(self._again(index, item, error, started))
                else:
                    put(Result(index, value, None, clock() - started))
        except BaseException as error:  # the iterator failed, or a call wants to end the program: for the caller
            put(error)
        finally:
            put(None)

    def _take(self) -> tuple[int, Any]:
        with self._taking:
            if self._next:
                self._wait_for_turn()
            return (0, _END) if self.stopped.is_set() else next(self._items, (0, _END))

    def _wait_for_turn(self) -> None:
        """Wait until another item may be begun; others wait at the iterator meanwhile."""
        while True:
            with self._turn:
                now = time.monotonic()
                wait = self._next - now
                if wait <= 0:
                    self._next = now + self._every if self._every else 0.0
                    return
            if self.stopped.wait(wait):
                return

    def _again(self, index: int, item: T, error: Exception, started: float) -> Result[R]:
        """Return the result of a call that failed: the error, or what comes later if it says when to come again."""
        for _ in range(_TRIES - 1):
            later = getattr(error, "retry_after", None) if isinstance(error, RateLimitError) else None
            if later is None or not 0 < later <= _LATER:
                break
            with self._turn:
                self._next = max(self._next, time.monotonic() + later)
            if self.stopped.wait(later):
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
    way are waited for.

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
    return _results(work, workers, ordered=ordered, progress=progress, fail_fast=fail_fast, timeout=timeout)


def _results(
    work: _Work[T, R],
    workers: int,
    *,
    ordered: bool,
    progress: Callable[[int], Any] | None,
    fail_fast: bool,
    timeout: float | None,
) -> Generator[Result[R], None, None]:
    threads: list[threading.Thread] = []
    early: dict[int, Result[R]] = {}
    wanted = 0
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        for number in range(workers):
            thread = work.thread(number)
            thread.start()
            threads.append(thread)
        for done, result in enumerate(work.done(workers, deadline), 1):
            if fail_fast and result.error is not None:
                raise result.error
            if progress is not None:
                progress(done)
            if not ordered or result.index == wanted:
                work.made_room()
                wanted += 1
                yield result
            else:
                early[result.index] = result
            while wanted in early:
                work.made_room()
                wanted += 1
                yield early.pop(wanted - 1)
    finally:
        work.stop(workers)
        for thread in threads:
            thread.join()
