"""All that perfkit knows about process life: fork, prefork servers, exit, and its one background thread.

Objects that own locks, threads, sockets or buffers call `bind(self)` once. In a forked child their `_after_fork` makes
new locks, forgets threads, and drops inherited sockets and unsent data (drops, does not close: the parent still uses
the same TLS session); at exit their `close` runs once. Three ways lead into the child, because no single one is enough:
`os.register_at_fork` (plain fork, gunicorn), `uwsgi.post_fork_hook` (uWSGI runs no at-fork hooks), and `check()`,
which compares process ids wherever a thread or a pooled socket is taken (anything else).
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Background", "ProcessBound", "background", "bind", "check", "close_all"]

log = logging.getLogger("perfkit.process")


class ProcessBound(Protocol):
    """An object whose state belongs to one process."""

    def _after_fork(self) -> None: ...

    def close(self) -> None:
        """Flush and let go; safe to call twice."""
        ...


_bound: weakref.WeakSet[ProcessBound] = weakref.WeakSet()
_pid = os.getpid()
_flushed_by: set[str] = set()  # task runners whose exit hook is installed in this process


def bind(obj: ProcessBound) -> None:
    """Run `obj._after_fork()` in forked children and `obj.close()` at exit; `obj` is held weakly."""
    _bound.add(obj)


def check() -> None:
    """Reset everything bound if this process is not the one that last used it."""
    if os.getpid() != _pid:
        _in_child()


def _in_child() -> None:
    global _pid  # noqa: PLW0603 - the process id is the module's one piece of state
    if _pid == os.getpid():
        return
    _pid = os.getpid()
    _flushed_by.clear()
    for obj in list(_bound):
        try:
            obj._after_fork()  # noqa: SLF001 - the protocol's own method, private to users
        except Exception:
            log.exception("reset of %s after fork failed", type(obj).__name__)


def close_all() -> None:
    """Close everything bound: at interpreter exit, and where a server ends workers without running atexit."""
    for obj in list(_bound):
        try:
            obj.close()
        except Exception:
            log.debug("close of %s failed", type(obj).__name__, exc_info=True)


def _hook_uwsgi() -> None:
    try:
        import uwsgi  # exists only inside a uWSGI process
    except ImportError:
        return
    previous = getattr(uwsgi, "post_fork_hook", None)

    def post_fork() -> None:
        if previous is not None:
            previous()
        _in_child()

    uwsgi.post_fork_hook = post_fork


def _hook_exit_of_task_runners() -> None:
    """Flush where atexit does not run: Celery's prefork children and `multiprocessing` workers."""
    signals = sys.modules.get("celery.signals")
    if signals is not None and "celery" not in _flushed_by:
        _flushed_by.add("celery")
        signals.worker_process_shutdown.connect(_on_worker_shutdown, weak=False, dispatch_uid="perfkit")
    workers = sys.modules.get("multiprocessing.util")
    if workers is not None and "multiprocessing" not in _flushed_by:
        _flushed_by.add("multiprocessing")
        workers.Finalize(None, close_all, exitpriority=10)


def _on_worker_shutdown(**_: object) -> None:
    close_all()


class Background:
    """Small periodic jobs on one daemon thread named `perfkit-background`.

    The thread starts with the first job, is started again in a forked child by the next `ensure`, and ends when no job
    is left. Jobs hold their owners weakly and must not block; their errors are logged and the thread goes on.
    """

    def __init__(self) -> None:
        self._jobs: dict[weakref.WeakMethod[Callable[[], None]], tuple[float, float]] = {}
        self._after_fork()
        bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _jobs, _thread and _closed
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def every(self, interval: float, work: Callable[[], None]) -> None:
        """Run the bound method `work` every `interval` seconds while its owner lives; asking again changes it."""
        with self._lock:
            self._jobs[weakref.WeakMethod(work)] = (interval, time.monotonic() + interval)
        self.ensure()
        self._wake.set()

    def cancel(self, work: Callable[[], None]) -> None:
        """Stop running `work`."""
        with self._lock:
            self._jobs.pop(weakref.WeakMethod(work), None)

    def ensure(self) -> None:
        """Start the thread if there are jobs and it does not run in this process; call it on slow paths only."""
        check()
        if self._thread is not None or not self._jobs:
            return
        _hook_exit_of_task_runners()
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="perfkit-background", daemon=True)
                self._thread.start()

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

os.register_at_fork(after_in_child=_in_child)
_hook_uwsgi()
atexit.register(close_all)
