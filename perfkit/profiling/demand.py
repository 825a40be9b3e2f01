"""Measurements on demand, put together: an engine, the report made of what it returns, and where that is stored."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from perfkit.profiling.cpu import INTERVAL, sampled
from perfkit.profiling.engines import CPU_ENGINES, MEMORY_ENGINES, best_cpu_engine
from perfkit.profiling.reports import BenchmarkReport, CPUReport, MemoryReport
from perfkit.profiling.sampling import Sampler
from perfkit.profiling.stats import described, measured
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from perfkit.profiling.engines import Engine
    from perfkit.profiling.results import Results

__all__ = ["Block", "Recording", "benchmarked", "cpu_block", "memory_block", "memory_lines", "recording"]

T = TypeVar("T", CPUReport, MemoryReport)


class Block(Generic[T]):
    """Measures what runs inside of `with`; once.

    Attributes:
        report: what was found, None before the end.
    """

    def __init__(self, engine: Engine, stored: Callable[[dict[str, Any]], T]) -> None:
        self._engine = engine
        self._stored: Callable[[dict[str, Any]], T] = stored
        self.report: T | None = None

    def __enter__(self) -> Self:
        self._engine.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.report = self._stored(self._engine.stop())


class Recording:
    """A recording of all threads, which runs beside them until its time is over or `stop` is called."""

    def __init__(self, name: str, duration: float, results: Results) -> None:
        self._name, self._results = name, results
        self._sampler = Sampler(interval=INTERVAL, duration=duration, ended=self._ended)
        self._report: CPUReport | None = None

    def start(self) -> Self:
        """Begin.

        Raises:
            RuntimeError: two recordings are running already, or this Python has no GIL.
        """
        self._results.admit(self._sampler)
        try:
            self._sampler.start()
        except BaseException:
            self._results.dismiss(self._sampler)
            raise
        return self

    def _ended(self) -> None:
        self._results.dismiss(self._sampler)
        self._report = self._results.add(CPUReport, self._name, sampled(self._sampler))

    def stop(self) -> CPUReport:
        """End it now, and return what was found."""
        self._sampler.stop()
        return self.report

    @property
    def report(self) -> CPUReport:
        """What was found; waits for the end.

        Raises:
            RuntimeError: it failed; the log of threads says why.
        """
        self._sampler.wait()
        if self._report is None:
            raise RuntimeError(f"the recording of {self._name!r} has ended without a result")
        return self._report


def recording(name: str, duration: float, results: Results) -> Recording:
    """Begin a recording of all threads."""
    return Recording(name, finite("duration", duration, above=0), results).start()


def cpu_block(name: str, engine: str | None, results: Results) -> Block[CPUReport]:
    """Return what profiles a block of this thread."""
    made = CPU_ENGINES.get(engine if engine is not None else best_cpu_engine())
    return Block(made(), partial(results.add, CPUReport, name))


def memory_block(name: str, engine: str, results: Results) -> Block[MemoryReport]:
    """Return what measures the memory that a block takes."""
    return Block(MEMORY_ENGINES.get(engine)(), partial(results.add, MemoryReport, name))


def memory_lines(name: str, fn: Callable[[], Any] | None, results: Results) -> Any:
    """Call a function under memory_profiler and return its value.

    Raises:
        TypeError: there is no function.
    """
    from perfkit.profiling.memory import by_line

    if fn is None:
        raise TypeError("engine='lines' is about the lines of one function: give it as fn")
    value, fields = by_line(fn)
    results.add(MemoryReport, name, fields)
    return value


def benchmarked(
    name: str, fn: Callable[[], object], iterations: int, threads: int, results: Results
) -> BenchmarkReport:
    """Time a function and store the result."""
    for label, value in (("iterations", iterations), ("threads", threads)):
        if value < 1:
            raise ValueError(f"{label} must be at least 1, not {value}")
    samples, loops, throughput = measured(fn, iterations, threads)
    terms = {"iterations": iterations, "loops": loops, "threads": threads, "throughput": throughput}
    return results.add(BenchmarkReport, name, terms | described(samples))
