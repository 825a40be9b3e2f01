"""All that perfkit knows about process life: fork, prefork servers, exit, and its one background thread.

Objects that own locks, threads, sockets or buffers call `bind(self)` once. In a forked child their `_after_fork` makes
new locks, forgets threads, and drops inherited sockets and unsent data (drops, does not close: the parent still uses
the same TLS session); at exit their `close` runs once. Three ways lead into the child, because no single one is enough:
`os.register_at_fork` (plain fork, gunicorn, Celery), `uwsgi.post_fork_hook` (uWSGI runs no at-fork hooks), and
`check()`, which compares process ids where a call begins and a thread or a pooled socket is taken (anything else).
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import types
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Background", "Deferred", "ProcessBound", "background", "bind", "check", "close_all", "deferred"]

log = logging.getLogger("perfkit.process")
_SOON = 0.2  # seconds until deferred work is done
logging.getLogger("perfkit").addHandler(logging.NullHandler())  # the application decides what is shown


class ProcessBound(Protocol):
    """An object whose state belongs to one process; `close` flushes and lets go, and may be called twice."""

    def _after_fork(self) -> None: ...

    def close(self) -> None: ...


_bound: dict[weakref.ref[ProcessBound], None] = {}  # in the order of binding; each step on it is atomic, so no lock
_turns: dict[int, threading.RLock] = {}  # by process: one thread resets; a parent's lock might be held for ever here
_pid = _resetting = os.getpid()  # the process that all bound objects are fit for, or are just made fit for
_finalized: set[int] = set()  # processes that multiprocessing runs `close_all` in


def bind(obj: ProcessBound) -> None:
    """Run `obj._after_fork()` in forked children and `obj.close()` at exit; `obj` is held weakly."""
    _bound[weakref.ref(obj, lambda reference, bound=_bound: bound.pop(reference, None))] = None  # type: ignore[misc]


def _all_bound() -> list[ProcessBound]:
    return [obj for reference in list(_bound) if (obj := reference()) is not None]


def check() -> None:
    """Reset everything bound if this process is not the one that last used it."""
    if os.getpid() != _pid:
        _in_child()


def _in_child() -> None:
    global _pid, _resetting  # noqa: PLW0603 - the process is the module's state
    pid = os.getpid()
    with _turns.setdefault(pid, threading.RLock()):
        if pid in (_pid, _resetting):  # done by another thread, or begun by this one, which a finaliser made ask again
            return
        _resetting = pid
        for obj in _all_bound():
            try:
                obj._after_fork()  # noqa: SLF001 - the protocol's own method, private to users
            except Exception:
                log.exception("reset of %s after fork failed", type(obj).__name__)
        _pid = pid


def close_all() -> None:
    """Close everything bound: at interpreter exit, and where a server ends workers without running atexit."""
    check()
    for obj in _all_bound():
        try:
            obj.close()
        except Exception:
            log.debug("close of %s failed", type(obj).__name__, exc_info=True)


def _hook_uwsgi() -> None:
    """Run `_in_child` first in each worker, whatever hook the application or `uwsgidecorators` sets, and when."""
    try:
        import uwsgi  # exists only inside a uWSGI process
    except ImportError:
        return
    theirs = [getattr(uwsgi, "post_fork_hook", None)]

    def post_fork() -> None:
        _in_child()
        if theirs[0] is not None:
            theirs[0]()

    class Hooked(types.ModuleType):
        post_fork_hook = property(lambda _: theirs[0], lambda _, hook: theirs.__setitem__(0, hook))

    vars(uwsgi)["post_fork_hook"] = post_fork  # uWSGI looks here, everybody else gets and sets the property
    uwsgi.__class__ = Hooked


def _hook_exit_of_workers() -> None:
    """Flush where atexit does not run: Celery's prefork children and those of `multiprocessing`."""
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_process_shutdown.connect(lambda **_: close_all(), weak=False, dispatch_uid="perfkit")
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None and os.getpid() not in _finalized:
        from multiprocessing.util import Finalize

        _finalized.add(os.getpid())
        Finalize(None, close_all, exitpriority=10)
        atexit.unregister(close_all)  # where it does run, in spawned children, it would be the second time


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

    def every(self, interval: float, work: Callable[[], None], *, wait: bool = True) -> bool:
        """Run the bound method `work` every `interval` seconds while its owner lives; asking again changes it.

        Without `wait` it gives up, and returns False, when the lock is held: for code that may interrupt this class.
        """
        check()
        _hook_exit_of_workers()
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            self._jobs[weakref.WeakMethod(work)] = (interval, time.monotonic() + interval)
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
        _hook_exit_of_workers()
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


class Deferred:
    """Work that finalizers leave for a better moment.

    The collector runs a finalizer inside any line of any thread, which may hold any lock, so a finalizer must take
    none: it adds its work here. The background thread does it within 0.2 s, or a call that begins before.
    """

    def __init__(self) -> None:
        self._work: deque[Callable[[], object]] = deque()  # each step on it and on _watched is atomic, so no lock
        self._watched: set[weakref.finalize[..., Any]] = set()
        self._inherited: list[Callable[[], object]] = []  # kept: a generator let go of would be closed there and then
        self._ticking = False
        bind(self)

    def _after_fork(self) -> None:
        self._work.extend(self._let_go())
        self._inherited.extend(self._work)  # the parent does it
        self._work.clear()

    def _let_go(self) -> list[Callable[[], object]]:
        """Stop waiting for the owners that are still there; return the work they left."""
        found = [finalizer.detach() for finalizer in list(self._watched)]  # at exit, calling one has no effect
        self._watched.clear()
        return [told[2][0] for told in found if told is not None]

    def add(self, work: Callable[[], object]) -> None:
        """Have `work` done soon; safe in finalizers, gc callbacks and signal handlers."""
        self._work.append(work)

    def when_gone(self, owner: object, work: Callable[[], object]) -> weakref.finalize[..., Any]:
        """Have `work` done soon after `owner` is gone, unless what is returned is detached before.

        `work`, and all it refers to, lives on until then; `owner` must not be among it.
        """
        finalizer = weakref.finalize(owner, self.add, work)
        finalizer.atexit = False
        self._watched.add(finalizer)
        if self._ticking:
            background.ensure()
        else:
            self._tick_on()
        return finalizer

    def _tick_on(self) -> None:
        self._ticking = True
        background.every(_SOON, self._tick)

    def _tick(self) -> None:
        self.run()
        for finalizer in list(self._watched):
            if not finalizer.alive:
                self._watched.discard(finalizer)
        if not self._watched:
            self._ticking = False
            background.cancel(self._tick)
            if self._watched or self._work:  # come meanwhile
                self._tick_on()

    def run(self) -> None:
        """Do what has gathered; only where no lock is held."""
        while self._work:
            check()
            try:
                work = self._work.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                work()
            except Exception:
                log.exception("deferred work failed")

    def close(self) -> None:
        """Do what is left, also for owners that are still there: the process ends."""
        self._work.extend(self._let_go())
        self.run()


deferred = Deferred()

os.register_at_fork(after_in_child=_in_child)
_hook_uwsgi()
atexit.register(close_all)
