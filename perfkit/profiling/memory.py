"""Memory of a block, by ever closer and ever dearer looks: the process's RSS, tracemalloc, memray, memory_profiler.

RSS costs nothing worth speaking of and knows no lines. tracemalloc makes requests about five times slower and exists
once a process, so that one block at a time may use it; memray is faster and sees C extensions, and there may be one of
it, too. memory_profiler runs each line a thousand times slower: a look at one function during development.
"""

from __future__ import annotations

import io
import logging
import tempfile
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from perfkit.memory.rss import process_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Memray", "Resident", "Traced", "by_line"]

R = TypeVar("R")

log = logging.getLogger("perfkit.profiling")

_LOOKS = 0.005  # seconds between two looks at RSS
_MOST = 10  # rows of each list
_tracing = threading.Lock()  # guards tracemalloc, which exists once: whoever holds it may start and stop it


class Resident:
    """The process's resident memory before, at its peak and after; a thread looks, nothing is forked."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="perfkit-memory", daemon=True)
        self._before = self._peak = process_memory.rss()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOKS):
            self._look()

    def _look(self) -> int | None:
        now = process_memory.rss()
        if now is not None and self._peak is not None:
            self._peak = max(now, self._peak)
        return now

    def stop(self) -> dict[str, Any]:
        """End, and return the fields of the report."""
        after = self._look()
        self._stop.set()
        self._thread.join()
        before, peak = self._before, self._peak
        known = before is not None and peak is not None and after is not None
        return {
            "engine": "rss",
            "total_allocated": peak - before if known else None,  # type: ignore[operator]
            "total_retained": after - before if known else None,  # type: ignore[operator]
            "rss_before": before,
            "rss_peak": peak,
            "rss_after": after,
        }


class Traced:
    """tracemalloc: what was taken by line, of all threads, and is still held at the end."""

    def __init__(self) -> None:
        self._before: Any = None
        self._held = 0

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: somebody traces already: the first to stop would end it for all.
        """
        import tracemalloc

        if not _tracing.acquire(blocking=False):
            raise RuntimeError("tracemalloc measures another block already; one at a time, or engine='rss'")
        if tracemalloc.is_tracing():
            _tracing.release()
            raise RuntimeError("the application runs tracemalloc itself; stop that first, or use engine='rss'")
        log.warning("tracemalloc is on: the whole process runs about five times slower until the block ends")
        tracemalloc.start(1)
        self._before, self._held = tracemalloc.take_snapshot(), tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()

    def stop(self) -> dict[str, Any]:
        """End, and return the fields of the report."""
        import tracemalloc

        try:
            held, peak = tracemalloc.get_traced_memory()
            snapshot = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
            _tracing.release()
        own = tracemalloc.Filter(inclusive=False, filename_pattern=tracemalloc.__file__)
        lines = snapshot.filter_traces([own]).compare_to(self._before, "lineno")
        rows = [(one.traceback[0].filename, one.traceback[0].lineno, one.size_diff, one.count_diff) for one in lines]
        held_now = _listed(rows)
        return {
            "engine": "tracemalloc",
            "total_allocated": peak - self._held,
            "total_retained": held - self._held,
            "retained_objects": held_now["allocated_objects"],
            **held_now,
        }


class Memray:
    """memray: what was held at the peak, and at the end, by line, of all threads and of C extensions."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="perfkit-memray-")
        self._file = Path(self._directory.name) / "memory.bin"
        self._tracker: Any = None

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: a memray tracker runs already.
        """
        import memray

        tracker = memray.Tracker(self._file)
        tracker.__enter__()
        self._tracker = tracker

    def stop(self) -> dict[str, Any]:
        """End, and return the fields of the report."""
        import memray

        self._tracker.__exit__(None, None, None)
        with self._directory, memray.FileReader(self._file) as reader:
            peak = list(reader.get_high_watermark_allocation_records(merge_threads=True))
            left = list(reader.get_leaked_allocation_records(merge_threads=True))
        return {
            "engine": "memray",
            "total_allocated": sum(one.size for one in peak),
            "total_retained": sum(one.size for one in left),
            "retained_objects": _listed(map(_row, left))["allocated_objects"],
            **_listed(map(_row, peak)),
        }


def _row(record: Any) -> tuple[str, int, int, int]:
    trace = record.stack_trace(1)
    _, file, line = trace[0] if trace else ("", "unknown", 0)
    return file, line, record.size, record.n_allocations


def _listed(rows: Iterable[tuple[str, int, int, int]]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """Return the guide's three lists of file, line, bytes and blocks."""
    files: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    blocks: Counter[str] = Counter()
    for file, line, size, count in rows:
        files[file] += size
        lines[f"{file}:{line}"] += size
        blocks[f"{file}:{line}"] += count
    return {
        "allocated_objects": _top(blocks, "location", "count"),
        "allocated_memory_by_file": _top(files, "file", "bytes"),
        "allocated_memory_by_location": _top(lines, "location", "bytes"),
    }


def _top(counted: Counter[str], name: str, amount: str) -> tuple[Mapping[str, Any], ...]:
    return tuple({name: one, amount: much} for one, much in counted.most_common(_MOST) if much > 0)


def by_line(function: Callable[[], R]) -> tuple[R, dict[str, Any]]:
    """Call a function under memory_profiler; return its value and the fields of the report.

    The lines listed are those of the function itself, of what a `functools.partial` calls, or of a method.
    """
    import memory_profiler

    plain: Any = function.func if isinstance(function, partial) else function
    profiler = memory_profiler.LineProfiler(backend="psutil")
    wrapped = profiler(plain)
    value: R = wrapped(*function.args, **function.keywords) if isinstance(function, partial) else wrapped()
    written = io.StringIO()
    memory_profiler.show_results(profiler, stream=written)
    return value, {"engine": "lines", "text": written.getvalue()}
