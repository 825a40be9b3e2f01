"""CPU profiles of a block of one thread: by pyinstrument, or by the own sampler where that is not installed."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from typing import Any

from perfkit.profiling.sampling import Sampler
from perfkit.profiling.stacks import Stacks

__all__ = ["INTERVAL", "OwnThread", "Pyinstrument", "sampled"]

INTERVAL = 0.01  # seconds between two looks


def sampled(sampler: Sampler) -> dict[str, Any]:
    """Return what a stopped sampler saw, as fields of a CPUReport."""
    stacks = Stacks(sampler.seconds())
    return _seen("sampler", stacks, stacks.total, sampler.samples)


def _seen(engine: str, stacks: Stacks, total: float, samples: int) -> dict[str, Any]:
    methods = tuple(stacks.methods())
    return {"engine": engine, "total_time": total, "samples": samples, "methods": methods, "stacks": stacks}


class OwnThread:
    """The own sampler, looking at this thread only."""

    def __init__(self) -> None:
        self._sampler = Sampler(interval=INTERVAL, thread=threading.get_ident())

    def start(self) -> None:
        """Begin."""
        self._sampler.start()

    def stop(self) -> dict[str, Any]:
        """End, and return the fields of the report."""
        self._sampler.stop()
        return sampled(self._sampler)


class Pyinstrument:
    """pyinstrument 5: it is told of each call, which slows a request by 60 to 90 %: not for live traffic."""

    def __init__(self) -> None:
        from pyinstrument import Profiler

        self._profiler = Profiler(interval=INTERVAL, async_mode="disabled")

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: something else profiles this thread.
        """
        other = sys.getprofile()
        if other is not None:
            raise RuntimeError(f"this thread is being profiled already, by {type(other).__name__}: stop that first")
        self._profiler.start()

    def stop(self) -> dict[str, Any]:
        """End, and return the fields of the report."""
        session = self._profiler.stop()
        seconds: defaultdict[tuple[str, ...], float] = defaultdict(float)
        root = session.root_frame(trim_stem=False)
        waiting: list[tuple[Any, tuple[str, ...]]] = [(root, ())] if root is not None else []
        while waiting:
            frame, above = waiting.pop()
            stack = above if frame.is_synthetic or frame.file_path is None else (*above, _called(frame))
            own = frame.time - sum(child.time for child in frame.children)
            if own > 0 and stack:
                seconds[stack] += own
            waiting.extend((child, stack) for child in frame.children)
        return _seen("pyinstrument", Stacks(dict(seconds)), session.duration, session.sample_count)


def _called(frame: Any) -> str:
    return f"{frame.function} ({frame.file_path_short or frame.file_path}:{frame.line_no})"
