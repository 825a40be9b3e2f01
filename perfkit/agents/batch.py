"""Many calls with bounded concurrency: worker threads pull from one shared iterator.

Inputs may be endless, since no more are taken than there are workers (plus a bounded window when order is kept); each
item has its own result, so that one failure loses nothing; context variables of the caller are seen by every item; when
the caller stops iterating, workers end after the item in hand.
"""

from __future__ import annotations

import contextvars
import threading
import time
from dataclasses import dataclass
from operator import length_hint
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

__all__ = ["Result", "map_bounded"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
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


class _Work(Generic[T, R]):
    """The shared iterator, the window and the results of one batch."""

    def __init__(self, fn: Callable[[T], R], items: Iterable[T], window: int) -> None:
        self._fn = fn
        self._items = enumerate(items)
        self._taking = threading.Lock()  # guards _items: generators must not be entered twice
        self._room = threading.Semaphore(window)
        self.stopped = threading.Event()
        self.results: SimpleQueue[Result[R] | BaseException | None] = SimpleQueue()

    def thread(self, number: int) -> threading.Thread:
        """Return a worker that sees the caller's context variables."""
        context = contextvars.copy_context()
        return threading.Thread(target=context.run, args=(self.run,), name=f"perfkit-batch-{number}", daemon=True)

    def done(self, workers: int) -> Iterator[Result[R]]:
        """Yield results as they come until every worker has ended; raise what ended one before its time."""
        while workers:
            result = self.results.get()
            if result is None:
                workers -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result

    def made_room(self) -> None:
        """Let one more item be taken: a result has left the window."""
        self._room.release()

    def stop(self, workers: int) -> None:
        """Let every worker end after the item in hand."""
        self.stopped.set()
        self._room.release(workers)

    def run(self) -> None:
        """Work until the items end or the caller stops; then leave a None behind."""
        try:
            while (item := self._take()) is not None:
                self.results.put(self._call(*item))
        except BaseException as error:  # the iterator failed, or a call wants to end the program: for the caller
            self.results.put(error)
        finally:
            self.results.put(None)

    def _take(self) -> tuple[int, T] | None:
        self._room.acquire()
        with self._taking:
            return None if self.stopped.is_set() else next(self._items, None)

    def _call(self, index: int, item: T) -> Result[R]:
        started = time.perf_counter()
        try:
            value = contextvars.copy_context().run(self._fn, item)
        except Exception as error:
            return Result(index, error=error, seconds=time.perf_counter() - started)
        return Result(index, value, seconds=time.perf_counter() - started)


def map_bounded(
    fn: Callable[[T], R],
    items: Iterable[T],
    max_concurrent: int = 5,
    *,
    ordered: bool = True,
    progress: Callable[[int], Any] | None = None,
    fail_fast: bool = False,
) -> Generator[Result[R], None, None]:
    """Call `fn` on every item in `max_concurrent` threads and yield a Result for each.

    However it ends, closed early or by an error, no further item is taken and every thread has ended then.

    Args:
        fn: called in worker threads, each call in a copy of the caller's context.
        items: may be endless.
        max_concurrent: threads, at least 1; never more than there are items, where that can be told.
        ordered: yield in the order of `items`; else as they are done.
        progress: called in the caller's thread with the number done so far.
        fail_fast: raise the first error that happens, whatever the order, instead of yielding it.

    Raises:
        ValueError: `max_concurrent` is below 1.
        Exception: what iterating `items` raised.
        BaseException: what is no Exception (SystemExit, a killed greenlet) and was raised by `fn`.
    """
    if max_concurrent < 1:
        raise ValueError(f"max_concurrent must be at least 1, not {max_concurrent}")
    workers = max(1, min(max_concurrent, length_hint(items, max_concurrent)))
    work = _Work(fn, items, window=4 * max_concurrent)
    return _results(work, workers, ordered=ordered, progress=progress, fail_fast=fail_fast)


def _results(
    work: _Work[T, R], workers: int, *, ordered: bool, progress: Callable[[int], Any] | None, fail_fast: bool
) -> Generator[Result[R], None, None]:
    threads: list[threading.Thread] = []
    early: dict[int, Result[R]] = {}
    wanted = 0
    try:
        for number in range(workers):
            thread = work.thread(number)
            thread.start()
            threads.append(thread)
        for done, result in enumerate(work.done(workers), 1):
            if fail_fast and result.error is not None:
                raise result.error
            if progress is not None:
                progress(done)
            early[wanted if not ordered else result.index] = result
            while wanted in early:
                work.made_room()
                yield early.pop(wanted)
                wanted += 1
    finally:
        work.stop(workers)
        for thread in threads:
            thread.join()
