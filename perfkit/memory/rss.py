"""How much memory the process holds, and giving back to the system what its allocator keeps.

Linux tells the first in /proc/self/statm: reading a descriptor that is kept open takes 1.3 us, four times less than
opening the file each time. That descriptor tells of the process that opened it, so a forked child opens its own. The
second is glibc's `malloc_trim`; elsewhere there is nothing to call, and both say None.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from perfkit import _process

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ProcessMemory", "can_trim", "process_memory", "trim"]

_STATM = "/proc/self/statm"
_FIELDS = 7  # numbers in it, the second the resident pages; see proc(5)


class ProcessMemory:
    """Reads the resident memory of this process."""

    def __init__(self) -> None:
        self._open: tuple[int, os.stat_result] | None = None  # descriptor, and what it was when opened
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        # guards _open, whose number must not be used anew during a read; re-entrant, since finalisers may ask
        self._lock = threading.RLock()
        self.close()

    def close(self) -> None:
        """Close the descriptor; the next reading opens it again."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._open is None:
            return
        (descriptor, opened), self._open = self._open, None
        with suppress(OSError):  # a daemon that closed all descriptors may have given the number to another file
            if os.path.samestat(os.fstat(descriptor), opened):
                os.close(descriptor)

    def rss(self) -> int | None:
        """Return the bytes resident now, within some 50 pages; None where /proc does not tell."""
        with self._lock:
            for _ in range(2):  # the second time with a new descriptor
                with suppress(OSError, ValueError):
                    return self._read()
                self._let_go()
        return None

    def _read(self) -> int:
        if self._open is None:
            descriptor = os.open(_STATM, os.O_RDONLY)
            self._open = descriptor, os.fstat(descriptor)
        fields = os.pread(self._open[0], 256, 0).split()
        if len(fields) != _FIELDS:
            raise ValueError("not a statm file")
        return int(fields[1]) * _page_size()

    def __repr__(self) -> str:
        return f"ProcessMemory({self.rss()} bytes)"


@cache
def _page_size() -> int:
    return os.sysconf("SC_PAGE_SIZE")


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    import ctypes

    try:
        function = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return None
    function.argtypes, function.restype = [ctypes.c_size_t], ctypes.c_int
    return function


def can_trim() -> bool:
    """Tell whether this process's C library has `malloc_trim`."""
    return _malloc_trim() is not None


def trim() -> int | None:
    """Give free memory of the C allocator back to the system: 0.1 s a gigabyte, with the GIL released.

    Returns:
        Bytes that RSS fell by, 0 when it did not; None where that cannot be done or read.
    """
    function, before = _malloc_trim(), process_memory.rss()
    if function is None:
        return None
    function(0)
    after = process_memory.rss()
    return None if before is None or after is None else max(0, before - after)


process_memory = ProcessMemory()
