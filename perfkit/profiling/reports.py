"""What the measurements on demand return: CPU, memory, benchmark; each with at least the RAAF guide's keys (7.1)."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.profiling.stacks import Stacks

__all__ = ["BenchmarkReport", "CPUReport", "MemoryReport", "Report"]

Rows = tuple["Mapping[str, Any]", ...]
_NUMBERS = itertools.count(1)


def _new_id() -> str:
    return f"{os.getpid()}-r{next(_NUMBERS)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What all have.

    Attributes:
        operation: what was measured.
        timestamp: when it ended, epoch seconds.
        id: names it in this process.
        kind: what it is stored as, behind the operation.
    """

    kind: ClassVar[str]
    operation: str
    timestamp: float
    id: str = field(default_factory=_new_id)

    def to_dict(self) -> dict[str, Any]:
        """Return it in JSON types, without stacks."""
        shown = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "stacks"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class CPUReport(Report):
    """Where time went.

    Attributes:
        engine: who looked: "pyinstrument" or "sampler".
        total_time: seconds seen, of all threads together.
        samples: how often was looked.
        methods: the 20 functions with the most time: name, total_time, self_time (seconds), calls (None: not counted).
        stacks: all of it.
    """

    kind = "cpu"
    engine: str
    total_time: float
    samples: int
    methods: Rows
    stacks: Stacks


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport(Report):
    """What memory was taken; bytes, None where the engine cannot tell; lists are of the ten largest.

    Attributes:
        engine: who measured: "rss", "tracemalloc", "memray" or "lines".
        total_allocated: the most that was held at one time, over what was held before.
        total_retained: what of it was still held at the end; of "rss" the change of the process, whoever made it.
        rss_before: resident memory of the process before.
        rss_peak: the most it was, looked at every 5 ms.
        rss_after: and at the end.
        allocated_objects: blocks held at the peak by line (memray), or at the end (tracemalloc).
        retained_objects: blocks still held at the end by line.
        allocated_memory_by_file: bytes, likewise.
        allocated_memory_by_location: bytes by file and line.
        text: memory_profiler's table of lines.
    """

    kind = "memory"
    engine: str
    total_allocated: int | None = None
    total_retained: int | None = None
    rss_before: int | None = None
    rss_peak: int | None = None
    rss_after: int | None = None
    allocated_objects: Rows = ()
    retained_objects: Rows = ()
    allocated_memory_by_file: Rows = ()
    allocated_memory_by_location: Rows = ()
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReport(Report):
    """How long a function takes; seconds a call.

    Attributes:
        iterations: samples in each thread.
        loops: calls that each sample is the average of, more than 1 for functions too fast to be timed alone.
        threads: how many called at the same time.
        avg_time: mean of all samples.
        min_time: the fastest.
        max_time: the slowest.
        std_deviation: of all samples, as of a whole population.
        percentiles: p50, p90, p95, p99, nearest rank.
        median: the middle one.
        iqr: between the first quartile and the third.
        outliers_low: samples below the first quartile by more than 1.5 iqr (Tukey), and
        outliers_high: above the third.
        cpu_time: mean CPU seconds of the calling thread; far less than avg_time means waiting, in threads for the GIL.
        throughput: calls a second, of all threads together.
        warnings: what speaks against trusting the figures.
    """

    kind = "benchmark"
    iterations: int
    loops: int
    threads: int
    avg_time: float
    min_time: float
    max_time: float
    std_deviation: float
    percentiles: Mapping[str, float]
    median: float
    iqr: float
    outliers_low: int
    outliers_high: int
    cpu_time: float
    throughput: float
    warnings: tuple[str, ...]
