"""The profiler: every run of an operation measured, on demand where its time and memory go, the slow ones caught.

`@profile` is made to stay on: it costs two microseconds. The rest is asked for: `cpu_profile`, `memory_profile`,
`benchmark`. All results are found again by `get_performance_summary` (RAAF guide 7.1).
"""

from __future__ import annotations

import threading
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from perfkit import _process
from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.operations import Operations, operations
from perfkit.profiling.frames import allowed
from perfkit.profiling.pauses import Collections, collections
from perfkit.profiling.results import Results
from perfkit.profiling.runs import Operation, Profile, Recorder, Surroundings
from perfkit.profiling.slow import INTERVAL, SlowRun, Watchdog
from perfkit.profiling.wrapping import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.profiling.demand import Block
    from perfkit.profiling.reports import BenchmarkReport, CPUReport

__all__ = ["Profiler"]

P = ParamSpec("P")
R = TypeVar("R")

_OPERATIONS = 500  # names measured apart; of more, all that come share one
_OVERFLOW = "perfkit.overflow"


class Profiler(Shared):
    """Measures operations; the shared one is `perfkit.profiler`, and `perfkit.profile` its decorator.

    Args:
        clock: None means the system's.
        tracker: gets every duration as `operation_duration` (tags operation and success) and answers for percentiles;
            None means the shared one.
        running: where runs are entered, for the watchdog; None means the process's own.
        seen: counts garbage collections; None means the process's own.
        **settings: keys of the `[profiler]` table: `history` and `slowest` (runs kept per operation), `slow_capture`
            ("auto", "on" or "off"), `slow_threshold` (seconds) and `slow_factor` (times the 95th percentile).

    Raises:
        ConfigError: a setting is unknown or cannot be used.
    """

    _table = "profiler"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        tracker: PerformanceTracker | None = None,
        running: Operations | None = None,
        seen: Collections | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(settings)
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker = tracker
        self._running = running if running is not None else operations
        self._seen = seen if seen is not None else collections
        self._around = Surroundings(self._clock, self._running, self._seen, self._start, self._recorder)
        self._watchdog = Watchdog(
            lambda: self.settings, self._running, self._seen, self._clock, self._resolve_tracker, self._found
        )
        self._beat: _process.Background | None = None
        self._operations: dict[str, Operation] = {}
        self._slow: dict[str, list[SlowRun]] = {}
        self._results = Results(self._clock)
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # guards _operations, _slow and _beat; re-entrant, for finalisers profile too
        self._around.ready = False
        self._around.stand_in = None
        self._around.due = 0.0
        self._results.after_fork()
        for operation in self._operations.values():
            operation.renew()

    def _apply(self) -> None:
        with self._lock:
            for operation in self._operations.values():
                operation.resize(self.settings.history, self.settings.slowest)
                operation.limit_due = 0.0
            if self.captures_slow != (self._around.stand_in is not None):
                self._rest()
        self._running.watched = True  # until it is asked for again

    def _resolve_tracker(self) -> PerformanceTracker:
        if self._tracker is None:
            self._tracker = PerformanceTracker.instance()
        return self._tracker

    def _recorder(self, name: str, success: bool) -> Recorder:
        tracker = self._resolve_tracker()
        handle = tracker.handle("operation_duration", {"operation": name, "success": success})
        if tracker.clock is self._clock:
            return handle.record_at
        return lambda duration, _: handle.record(duration)

    # --- the measured path

    def _start(self) -> None:
        """Do once a process what runs rely on: count collections, and look for slow runs where that is wanted."""
        with self._lock:
            if self._around.ready:
                return
            self._around.ready = True
            self._seen.watch()
            if allowed(self.settings.slow_capture):
                self._watchdog.rest()
                self._beat = self._beat if self._beat is not None else _process.Background("perfkit-watchdog")
                self._around.ready = self._beat.every(INTERVAL, self._watchdog.scan, wait=False)
                self._around.stand_in = self._watchdog.stand_in

    def _rest(self) -> None:
        """End the watchdog; the next run starts it again if it is wanted then."""
        self._around.ready = False
        self._around.stand_in = None
        self._around.due = 0.0
        if self._beat is not None:
            self._beat.cancel(self._watchdog.scan)

    @property
    def captures_slow(self) -> bool:
        """Whether slow runs are caught in this process."""
        return allowed(self.settings.slow_capture)

    def watches(self) -> bool:
        """See that slow runs are caught from now on, where that is wanted; return whether it is.

        Web requests and chat calls ask, and are profiled then though nobody said so.
        """
        if not self._around.ready:
            self._start()
        self._running.watched = self.captures_slow
        return self._running.watched

    def operation(self, name: str) -> Operation:
        """Return what is kept for a name, made on first use."""
        found = self._operations.get(name)
        if found is None:
            _process.check()
            with self._lock:
                if len(self._operations) >= _OPERATIONS:
                    name = _OVERFLOW
                if name not in self._operations:
                    made = Operation(name, self._around, self.settings.history, self.settings.slowest)
                    self._operations[name] = made
                found = self._operations[name]
        return found

    @overload
    def profile(self, name: str) -> Measurement: ...
    @overload
    def profile(self, name: Callable[P, R]) -> Callable[P, R]: ...
    def profile(self, name: Any) -> Any:
        """Measure each call of a function or generator function, or one run of a block.

        Use it as `@profile`, `@profile("name")` or `with profile("name") as run`. The value of the function and its
        errors pass through unchanged; after a block, `run.report` is its Profile. A call within a call of the same
        function is measured by itself too; of a generator, only the time spent inside of it counts.

        Raises:
            TypeError: `name` is neither text nor a function, or the function is asynchronous.
        """
        if isinstance(name, str):
            return Measurement(self.operation(name))
        if callable(name) or isinstance(name, classmethod):
            return Measurement(self.operation(getattr(name, "__qualname__", repr(name))))(name)
        raise TypeError(f"profile takes a name or a function, not {name!r}")

    # --- on demand

    def cpu_profile(
        self,
        name: str,
        duration: float | None = None,
        fn: Callable[[], Any] | None = None,
        *,
        engine: str | None = None,
    ) -> Any:
        """Find out where time goes.

        - `with cpu_profile("x") as run`: this thread, while the block runs; `run.report` is the CPUReport.
        - `cpu_profile("x", fn=work)`: the same while `work()` runs, whose value is returned.
        - `cpu_profile("x", 30)`: all threads for 30 seconds, beside what runs; returns at once. `.report` waits for it.

        Args:
            name: what the result is stored under, as `<name>_cpu`.
            duration: seconds; not looked at when there is a function.
            fn: the function.
            engine: for a block or function "pyinstrument", which slows it by more than half, or "sampler", which does
                not; None for the first where it is installed (extra `profiling`).

        Raises:
            RuntimeError: this thread is being profiled already, two recordings are running, or this Python has no GIL.
            UnknownNameError: no engine is called so.
            ValueError: the duration is not a number above 0.
        """
        from perfkit.profiling.demand import cpu_block, recording

        if duration is not None and fn is None:
            return recording(name, duration, self._results)
        return _done(cpu_block(name, engine, self._results), fn)

    def memory_profile(self, name: str, fn: Callable[[], Any] | None = None, *, engine: str = "rss") -> Any:
        """Find out what memory a block or function takes; stored as `<name>_memory`.

        Args:
            name: what is measured.
            fn: a function, whose value is returned; None for `with memory_profile("x") as run`, then `run.report`.
            engine: "rss" (the process's memory before, at its peak and after; cheap), "tracemalloc" (by line; five
                times slower), "memray" (by line, with C extensions; where installed), "lines" (memory_profiler's
                table of one function, a thousand times slower; where installed).

        Raises:
            RuntimeError: the engine measures something else at the moment.
            UnknownNameError: no engine is called so.
            TypeError: "lines" without a function.
        """
        from perfkit.profiling.demand import memory_block, memory_lines

        if engine == "lines":
            return memory_lines(name, fn, self._results)
        return _done(memory_block(name, engine, self._results), fn)

    def benchmark(
        self, name: str, fn: Callable[[], object], iterations: int = 100, *, threads: int = 1
    ) -> BenchmarkReport:
        """Time a function, warmed up, in samples of as many calls as the clock needs; stored as `<name>_benchmark`.

        Args:
            name: what is measured.
            fn: called without arguments; an error ends the benchmark.
            iterations: samples in each thread.
            threads: how many call at the same time, begun together.

        Raises:
            ValueError: `iterations` or `threads` is less than 1.
        """
        from perfkit.profiling.demand import benchmarked

        return benchmarked(name, fn, iterations, threads, self._results)

    # --- slow runs

    def _found(self, slow: SlowRun) -> None:
        with self._lock:
            self._slow[slow.operation] = [*self._slowest(slow.operation), slow]

    def _slowest(self, name: str) -> list[SlowRun]:
        """Return the slowest that have ended, and all that have not: nobody knows yet how slow these are."""
        kept = self._slow.get(name, ())
        ended = sorted((one for one in kept if one.duration is not None), key=lambda one: -one.age)
        return ended[: self.settings.slowest] + [one for one in kept if one.duration is None]

    def slow_captures(self, name: str | None = None) -> list[SlowRun]:
        """Return the slowest runs that were caught in the act, the latest first, of one operation or of all."""
        with self._lock:
            found = [one for known in self._slow if name in (None, known) for one in self._slowest(known)]
        return sorted(found, key=lambda one: -one.began)

    def slowest(self, name: str) -> list[Profile]:
        """Return the slowest runs of an operation since the start, the slowest first."""
        found = self._operations.get(name)
        return found.slowest() if found is not None else []

    def latest(self, most: int) -> list[Profile]:
        """Return the runs that ended last, of all operations together, the latest first."""
        with self._lock:
            kept = list(self._operations.values())
        runs = [run for operation in kept for run in operation.latest()[-most:]]
        return sorted(runs, key=lambda run: -run.timestamp)[:most]

    # --- what was found

    def get_performance_summary(self, name: str | None = None) -> Any:
        """Return what is stored under a name, oldest first, as dicts; without a name, everything by name.

        Names are those of operations, and `<name>_cpu`, `<name>_memory`, `<name>_benchmark` and `<name>_slow` of what
        was measured on demand or caught. Percentiles: `perfkit.tracker.get_stats("operation_duration",
        tags={"operation": name})`.
        """
        if name is not None:
            return self._stored().get(name, list)()
        return {stored: found() for stored, found in self._stored().items()}

    def _stored(self) -> dict[str, Callable[[], list[dict[str, Any]]]]:
        with self._lock:
            kept = [one for one in self._operations.values() if one.runs]
            slow = list(self._slow)
        found: dict[str, Callable[[], list[dict[str, Any]]]] = {one.name: partial(_dicts, one.latest) for one in kept}
        found.update((f"{name}_slow", partial(self._slow_dicts, name)) for name in slow)
        found.update((name, partial(self._results.dicts, name)) for name in self._results.names())
        return found

    def _slow_dicts(self, name: str) -> list[dict[str, Any]]:
        return [one.to_dict() for one in reversed(self.slow_captures(name))]

    def find(self, number: str) -> CPUReport | SlowRun | None:
        """Return the CPU profile or slow run with an `id`, None where there is none, or no more."""
        report = self._results.find(number)
        return report if report is not None else next((one for one in self.slow_captures() if one.id == number), None)

    def cpu_reports(self) -> list[CPUReport]:
        """Return the stored CPU profiles, the latest first."""
        return self._results.cpu_reports()

    def export(self, path: str | Path, name: str | None = None) -> Path:
        """Write the stored CPU profiles and slow runs to a file, in the form its suffix asks for.

        - ".html": a page of flame graphs and stacks that needs nothing else.
        - ".json": for speedscope.
        - ".txt" or ".collapsed": a line for each stack, as flamegraph.pl reads.

        Args:
            path: the file; it is replaced.
            name: only this operation.

        Returns:
            The path.

        Raises:
            ValueError: the suffix is another, or there is nothing to write.
        """
        from perfkit.profiling.export import write

        reports = [one for one in self.cpu_reports() if name in (None, one.operation)]
        return write(Path(path), reports, self.slow_captures(name))

    # --- life

    def close(self) -> None:
        """End the watchdog; the next run starts it again."""
        with self._lock:
            self._rest()
            beat, self._beat = self._beat, None
        if beat is not None:
            beat.close()
        self._results.close()

    def reset(self) -> None:
        """Forget every run and result; decorated functions go on being measured."""
        self.close()
        self._results.clear()
        with self._lock:
            self._slow = {}
            for operation in self._operations.values():
                operation.forget()

    def __repr__(self) -> str:
        return f"Profiler({len(self._operations)} operations, {len(self._slow)} with slow runs)"


def _dicts(profiles: Callable[[], list[Profile]]) -> list[dict[str, Any]]:
    return [asdict(one) for one in profiles()]


def _done(block: Block[Any], fn: Callable[[], R] | None) -> Block[Any] | R:
    if fn is None:
        return block
    with block:
        return fn()
