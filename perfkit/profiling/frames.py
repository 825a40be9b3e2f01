"""Stacks of running threads, as text: function, file and line, never a value, so that no secret gets out.

Looking into other threads' frames has crashed free-threaded builds (cpython#152355) and been reported to crash 3.11
(cpython#99110): whoever looks often, or without being asked to, asks `allowed` first. All look through `current`, since
3.11 may stand still for ever there (cpython#106883).
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from perfkit import _process

if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = ["FREE_THREADED", "Frame", "allowed", "cpu_seconds", "current", "described", "own_place", "stack_of"]

FREE_THREADED = "t" in sys.abiflags
_DEEPEST = 200  # frames of a stack, the innermost
_STANDARD = str(Path(os.__file__).parent)
_ROOMS = ("site-packages", "dist-packages")
_OWN = str(Path(__file__).parent.parent)


class Frame(NamedTuple):
    """One call on a stack; `own` tells that the code is the application's: not installed, not Python's, not ours."""

    function: str
    file: str
    line: int
    own: bool

    def __str__(self) -> str:
        return f"{self.function} ({self.file}:{self.line})"


class _Uncollected:
    """Takes frames while garbage collection is off: the switch is the process's, so one thread at a time."""

    def __init__(self) -> None:
        self._off = False
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # guards the switch; re-entrant, since a signal handler may look, too
        if self._off:
            gc.enable()
        self._off = False

    def frames(self) -> dict[int, FrameType]:
        """Return them; an interrupt in any line leaves the switch as it was."""
        with self._lock:
            enabled = gc.isenabled()
            try:
                if enabled:
                    self._off = True
                    gc.disable()
                return sys._current_frames()  # noqa: SLF001 - its documented name
            finally:
                if enabled:
                    gc.enable()
                    self._off = False


_uncollected = _Uncollected()


def current() -> dict[int, FrameType]:
    """Return the innermost frame of each thread.

    Python 3.11 holds a lock of the interpreter meanwhile, which a thread that ends or begins wants while it holds the
    interpreter itself; a garbage collection in between lets go of that and never gets it back. So there is none.
    """
    if sys.version_info >= (3, 12):  # collects only between two steps of Python code
        return sys._current_frames()  # noqa: SLF001
    return _uncollected.frames()


def allowed(wish: str) -> bool:
    """Tell whether stacks are taken unasked: `wish` is "on", "off" or "auto", which means not on Python 3.11."""
    return wish != "off" and not FREE_THREADED and (wish == "on" or sys.version_info >= (3, 12))


@lru_cache(maxsize=4096)
def _place(path: str) -> tuple[str, bool]:
    """Return a path without what is the same for all, and whether it is the application's."""
    for room in _ROOMS:
        _, found, rest = path.rpartition(f"/{room}/")
        if found:
            return rest, False
    roots = [root for root in (_STANDARD, *sys.path) if root]
    own = not path.startswith(("<", f"{_STANDARD}/", f"{_OWN}/"))
    return min((path.removeprefix(f"{root}/") for root in roots), key=len), own


def described(code: CodeType, line: int) -> Frame:
    """Return a line of code as a frame."""
    file, own = _place(code.co_filename)
    return Frame(code.co_qualname, file, line, own)


def stack_of(frame: FrameType | None) -> tuple[Frame, ...]:
    """Return the calls that lead to a frame, the outermost first, at most 200."""
    found: list[tuple[CodeType, int]] = []
    while frame is not None and len(found) < _DEEPEST:
        found.append((frame.f_code, frame.f_lineno or 0))
        frame = frame.f_back
    return tuple(described(code, line) for code, line in reversed(found))


def own_place(stack: tuple[Frame, ...]) -> Frame | None:
    """Return the innermost call of the application's own code, the innermost of all where there is none."""
    return next((frame for frame in reversed(stack) if frame.own), stack[-1] if stack else None)


def cpu_seconds(thread: int) -> float | None:
    """Return the CPU seconds of another thread, None where that cannot be told.

    Linux numbers the CPU clock of each thread by its native id, see clock_getcpuclockid(3); unlike pthread's way to it,
    asking for one that has ended is an error and no crash.
    """
    native = next((one.native_id for one in threading.enumerate() if one.ident == thread), None)
    if native is None or sys.platform != "linux":
        return None
    try:
        return time.clock_gettime((~native << 3) | 6)
    except OSError:
        return None
