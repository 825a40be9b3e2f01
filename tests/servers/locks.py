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
PARKING = 0.2  # seconds: C code must not fork while a thread waits for the interpreter, whose own lock would be lost

_owners: list[object] = []  # objects and modules of perfkit that had locks when last looked for
_released = threading.Event()


def hold() -> None:
    """Return once another thread holds all locks; it lets go on `release`, or after half a second."""
    _released.clear()
    _owners[:] = [owner for owner in gc.get_objects() if _is_of_perfkit(owner) and any(_locks(owner))]
    taken = threading.Event()
    threading.Thread(target=_run, args=(taken,), name="holder", daemon=True).start()
    taken.wait()
    time.sleep(PARKING)


def release() -> None:
    """Let go."""
    _released.set()


def held() -> list[str]:
    """Return the classes whose locks were held at the latest fork."""
    return sorted({type(owner).__name__ for owner in _owners})


@cache
def stuck(_process: int) -> list[str]:
    """Return the classes with a lock that cannot be had within five seconds; looked at once a process."""
    return [type(owner).__name__ for owner in _owners for lock in _locks(owner) if not _to_be_had(lock)]


def _to_be_had(lock: Any) -> bool:
    if not lock.acquire(timeout=5.0):
        return False
    lock.release()
    return True


def _run(taken: threading.Event) -> None:
    locks = [lock for owner in _owners for lock in _locks(owner)]
    mine = [lock for lock in locks if lock.acquire(blocking=False)]  # what is busy is held by another thread: as wanted
    taken.set()
    _released.wait(MOST)
    for lock in mine:
        lock.release()


def _is_of_perfkit(owner: object) -> bool:
    module = owner.__name__ if isinstance(owner, ModuleType) else type(owner).__module__
    return isinstance(module, str) and module.startswith("perfkit")  # some C types have a descriptor there


def _locks(owner: object) -> Iterator[Any]:
    """Yield each lock among the attributes, slots or not."""
    values = [*gc.get_referents(owner), *getattr(owner, "__dict__", {}).values()]
    yield from {id(value): value for value in values if isinstance(value, KINDS)}.values()
