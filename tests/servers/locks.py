"""Every lock in perfkit, held by a thread that a forked child will not have.

They are found by looking, not by a list: a room that comes later is held to it too.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

__all__ = ["held", "hold", "release", "stuck"]

KINDS = (type(threading.Lock()), type(threading.RLock()))
MOST = 0.5  # seconds a lock is held
PARKING = 0.02  # seconds: C code must not fork while a thread waits for the interpreter, whose own lock would be lost

held: set[str] = set()  # classes whose locks were held at some time
_released = threading.Event()


def hold() -> None:
    """Return once another thread holds all locks; it lets go on `release`, or after half a second."""
    _released.clear()
    taken = threading.Event()
    threading.Thread(target=_run, args=(taken,), name="holder", daemon=True).start()
    taken.wait()
    time.sleep(PARKING)


def release() -> None:
    """Let go."""
    _released.set()


@cache
def stuck(_process: int) -> list[str]:
    """Return the classes with a lock that cannot be had within a second; looked at once a process."""
    return [owner for owner, lock in list(_locks()) if not _to_be_had(lock)]


def _to_be_had(lock: Any) -> bool:
    if not lock.acquire(timeout=1.0):
        return False
    lock.release()
    return True


def _run(taken: threading.Event) -> None:
    mine = []
    for owner, lock in _locks():
        if lock.acquire(blocking=False):  # what is busy is held by another thread, as is wanted
            mine.append(lock)
        held.add(owner)
    taken.set()
    _released.wait(MOST)
    for lock in mine:
        lock.release()


def _locks() -> Iterator[tuple[str, Any]]:
    for owner in gc.get_objects():
        name = owner.__name__ if isinstance(owner, ModuleType) else type(owner).__module__
        if name.startswith("perfkit"):
            for value in {id(value): value for value in _attributes(owner)}.values():
                if isinstance(value, KINDS):
                    yield type(owner).__name__, value


def _attributes(owner: object) -> Iterator[object]:
    yield from gc.get_referents(owner)
    yield from getattr(owner, "__dict__", {}).values()
