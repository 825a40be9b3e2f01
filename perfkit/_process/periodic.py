"""Small periodic jobs on one background thread."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from perfkit._process.life import bind, check, hook_exit_of_workers, log

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Background", "background"]


class Background:
    """Small periodic jobs on one daemon thread, named `perfkit-background` unless told otherwise.

    The thread starts with the first job, is started again in a forked child by the next `ensure`, and ends when no job
    is left. Jobs hold their owners weakly and must not block; their errors are logged and the thread goes on.
    """

    def __init__(self, name: str = "perfkit-background") -> None:
        self._name = name
        self._jobs: dict[weakref.WeakMethod[Callable[[], None]], tuple[float, float]] = {}
        self._after_fork()
        bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _jobs, _thread and _closed
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def every(self, interval: float, work: Callable[[], None], *, wait: bool = True, start: bool = True) -> bool:
        """Run the bound method `work` every `interval` seconds while its owner lives; asking again changes it.

        Without `wait` it gives up, and returns False, when the lock is held: for code that may interrupt this class.
        Without `start` it waits for the thread that another job or `ensure` starts.
        """
        check()
        hook_exit_of_workers()
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            self._jobs[weakref.WeakMethod(work)] = (interval, time.monotonic() + interval)
            if start:
                self._start()
        finally:
            self._lock.release()
        self._wake.set()
        return True

    def cancel(self, work: Callable[[], None]) -> None:
        """Stop running `work`."""
        with self._lock:
            self._jobs.pop(weakref.WeakMethod(work), None)

    def ensure(self) -> None:
        """Start the thread if there are jobs and it does not run in this process; call it on slow paths only.

        It never waits, since it may interrupt this very class; if it cannot start the thread, the next call does.
        """
        check()
        if self._thread is not None or not self._jobs:
            return
        hook_exit_of_workers()
        if self._lock.acquire(blocking=False):
            try:
                self._start()
            finally:
                self._lock.release()

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            with suppress(RuntimeError):  # no more threads, or the interpreter is ending: the next call tries again
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while (delay := self._run_due()) is not None:
            self._wake.wait(delay)
            self._wake.clear()

    def _run_due(self) -> float | None:
        """Run what is due; return seconds to the next job, None when the thread should end."""
        for reference in self._take_due():
            work = reference()
            try:
                if work is not None:
                    work()
            except Exception:
                log.exception("background job failed")
            del work
        with self._lock:
            if self._closed or not self._jobs:
                self._thread = None
                return None
            return max(0.0, min(due for _, due in self._jobs.values()) - time.monotonic())

    def _take_due(self) -> list[weakref.WeakMethod[Callable[[], None]]]:
        now = time.monotonic()
        with self._lock:
            self._jobs = {job: timing for job, timing in self._jobs.items() if job() is not None}
            due = [] if self._closed else [job for job, (_, at) in self._jobs.items() if at <= now]
            for job in due:
                self._jobs[job] = (self._jobs[job][0], now + self._jobs[job][0])
        return due

    def close(self) -> None:
        """End the thread, waiting at most 2 s; a later `every` may start it again."""
        with self._lock:
            thread, self._closed = self._thread, True
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2.0)
        with self._lock:
            self._closed, self._thread = False, None


background = Background()
