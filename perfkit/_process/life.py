"""What is done in a forked child, and at exit, for all objects whose state belongs to one process.

Three ways lead into the child, because no single one is enough: `os.register_at_fork` (plain fork, gunicorn, Celery),
`uwsgi.post_fork_hook` (uWSGI runs no at-fork hooks), and `check()`, which compares process ids where a call begins and
a thread or a pooled socket is taken (anything else).
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import types
import weakref
from typing import Protocol

__all__ = ["ProcessBound", "bind", "check", "close_all", "hook_exit_of_workers", "in_child", "log"]

log = logging.getLogger("perfkit.process")
logging.getLogger("perfkit").addHandler(logging.NullHandler())  # the application decides what is shown


class ProcessBound(Protocol):
    """An object whose state belongs to one process; a `close` it has flushes and lets go, and may be called twice."""

    def _after_fork(self) -> None: ...


_bound: dict[weakref.ref[ProcessBound], None] = {}  # in the order of binding; each step on it is atomic, so no lock
_turns: dict[int, threading.RLock] = {}  # by process: one thread resets; a parent's lock might be held for ever here
_pid = _resetting = os.getpid()  # the process that all bound objects are fit for, or are just made fit for
_finalized: set[int] = set()  # processes that multiprocessing runs `close_all` in


def bind(obj: ProcessBound) -> None:
    """Run `obj._after_fork()` in forked children, and `obj.close()` at exit if it has that; `obj` is held weakly."""
    _bound[weakref.ref(obj, lambda reference, bound=_bound: bound.pop(reference, None))] = None  # type: ignore[misc]


def _all_bound() -> list[ProcessBound]:
    return [obj for reference in list(_bound) if (obj := reference()) is not None]


def check() -> None:
    """Reset everything bound if this process is not the one that last used it."""
    if os.getpid() != _pid:
        in_child()


def in_child() -> None:
    """Reset everything bound, once in each process."""
    global _pid, _resetting  # noqa: PLW0603 - the process is the module's state
    pid = os.getpid()
    with _turns.setdefault(pid, threading.RLock()):
        if pid in (_pid, _resetting):  # done by another thread, or begun by this one, which a finaliser made ask again
            return
        _resetting = pid
        for obj in _all_bound():
            try:
                obj._after_fork()
            except Exception:
                log.exception("reset of %s after fork failed", type(obj).__name__)
        _pid = pid


def close_all() -> None:
    """Close everything bound: at interpreter exit, and where a server ends workers without running atexit."""
    check()
    for obj in _all_bound():
        close = getattr(obj, "close", None)
        try:
            if close is not None:
                close()
        except Exception:
            log.debug("close of %s failed", type(obj).__name__, exc_info=True)


def _hook_uwsgi() -> None:
    """Run `in_child` first in each worker, whatever hook the application or `uwsgidecorators` sets, and when."""
    try:
        import uwsgi  # exists only inside a uWSGI process
    except ImportError:
        return
    theirs = [getattr(uwsgi, "post_fork_hook", None)]

    def post_fork() -> None:
        in_child()
        if theirs[0] is not None:
            theirs[0]()

    class Hooked(types.ModuleType):
        post_fork_hook = property(lambda _: theirs[0], lambda _, hook: theirs.__setitem__(0, hook))

    vars(uwsgi)["post_fork_hook"] = post_fork  # uWSGI looks here, everybody else gets and sets the property
    uwsgi.__class__ = Hooked


def hook_exit_of_workers() -> None:
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


os.register_at_fork(after_in_child=in_child)
_hook_uwsgi()
atexit.register(close_all)
