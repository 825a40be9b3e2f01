"""Taking a lock that is held for microseconds only, without queueing for it.

A thread that is woken with the lock in its hand still waits for the interpreter, and whoever runs meanwhile queues up:
from then on every call costs a switch of threads, several times the rest of its work (a lock convoy).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfkit.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    import threading

__all__ = ["NO_WAIT", "taken"]

TRIES = 100  # to get the lock before queueing for it
NO_WAIT = False  # for `acquire`, which takes twice as long to read a keyword
PAUSE = 0.00005  # seconds between them: long enough for whoever holds it to be given the interpreter


def taken(lock: threading.Lock) -> threading.Lock:
    """Take `lock` and return it; the caller releases it in `finally`."""
    if lock.acquire(NO_WAIT):
        return lock
    for _ in range(TRIES):
        SYSTEM_CLOCK.sleep(PAUSE)
        if lock.acquire(NO_WAIT):
            return lock
    lock.acquire()
    return lock
