"""Forked children that tell what their work returned, and what another thread holds while one is forked."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from perfkit._process import forks

__all__ = ["await_child", "fork_unnoticed", "held_by_another", "in_child", "places_are_free", "start_child"]


def in_child(work: Callable[[], Any], seconds: int = 20, fork: Callable[[], int] = os.fork) -> Any:
    """Fork, do `work` in the child, and return its result; an exception there is raised here."""
    return await_child(*start_child(work, seconds, fork))


def fork_unnoticed() -> int:
    """Fork so that the at-fork hook does nothing, as under uWSGI, which runs none."""
    told, number = os.getpid, os.getpid()
    os.getpid = lambda: number
    try:
        return os.fork()
    finally:
        os.getpid = told


def start_child(work: Callable[[], Any], seconds: int = 20, fork: Callable[[], int] = os.fork) -> tuple[int, int]:
    """Fork and return process id and the descriptor its result comes from."""
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        process = fork()
    if process == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not the handler of the test runner
        signal.alarm(seconds)  # a deadlock in the child ends it
        try:
            os.close(receiving)
            try:
                result: Any = work()
            except BaseException as error:
                result = error
            os.write(sending, pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(sending)
    return process, receiving


def await_child(process: int, receiving: int) -> Any:
    with os.fdopen(receiving, "rb") as pipe:
        data = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code == 0, f"child ended with {code}"
    result = pickle.loads(data)
    if isinstance(result, BaseException):
        raise result
    return result


@contextmanager
def held_by_another(what: AbstractContextManager[object]) -> Iterator[threading.Event]:
    """Have another thread enter `what`, and leave it when the event that is yielded is set, or after the block."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with what:
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert entered.wait(20)
        yield leave
    finally:
        leave.set()
        thread.join(20)


def places_are_free(patience: float = 5.0) -> bool:
    """Return whether a fork here and now would have to wait for no other thread."""
    taken = [place for place in forks._gate.places if place.acquire(timeout=patience)]
    for place in taken:
        place.release()
    return len(taken) == len(forks._gate.places)
