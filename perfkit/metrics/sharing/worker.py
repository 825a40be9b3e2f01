"""What a process that shares its metrics tells of itself."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Worker"]

_STATM = Path("/proc/self/statm")


class Worker(NamedTuple):
    """A process that shares its metrics.

    Attributes:
        id: unique among all processes.
        host: where it runs.
        pid: its process id there.
        reported: epoch seconds of its last report.
        ended: it has said that it would not report again.
        memory: bytes resident then; None where /proc does not tell.
        collections: how often garbage had been collected then, by generation.
    """

    id: str
    host: str
    pid: int
    reported: float
    ended: bool = False
    memory: int | None = None
    collections: Sequence[int] = ()

    @classmethod
    def here(cls, name: str, host: str, now: float, *, ended: bool = False) -> Worker:
        """Return this process as it is now."""
        memory = None
        with suppress(OSError, ValueError, IndexError):
            memory = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        collections = [generation["collections"] for generation in gc.get_stats()]
        return cls(name, host, os.getpid(), now, ended, memory, collections)
