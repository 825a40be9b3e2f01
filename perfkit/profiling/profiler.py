"""The profiler: `@profile` and `with profile(...)` measure each run of a piece of work and keep the latest of each.

A run costs two clock readings and two of the thread's CPU clock; percentiles come from the tracker, to which every
duration goes as `operation_duration` with the tags operation and success (RAAF guide 7.1).
"""

from __future__ import annotations

import functools
import inspect
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast, overload

from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

__all__ = ["Profile", "Profiler"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Profile:
    """One run: seconds of wall time and of the thread's CPU, outcome, and when it ended (epoch seconds)."""

    operation: str
    duration: float
    cpu_time: float
    success: bool
    error: str | None
    timestamp: float


class _Run:
    """One run under way; as a context manager it measures a block, and leaves its `report` behind."""

    __slots__ = ("_cpu", "_operation", "_profiler", "_wall", "report")

    def __init__(self, profiler: Profiler, operation: str) -> None:
        self._profiler = profiler
        self._operation = operation
        self.report: Profile | None = None

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cpu, wall = time.thread_time() - self._cpu, time.perf_counter() - self._wall
        self.report = self._profiler._record(self._operation, wall, cpu, kind)  # noqa: SLF001 - one class in two parts

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Measure every call of `function`; of a generator, the time until it is exhausted."""
        profiler, operation = self._profiler, self._operation
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generate(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
                with _Run(profiler, operation):
                    return (yield from function(*args, **kwargs))

            return cast("Callable[P, R]", generate)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with _Run(profiler, operation):
                return function(*args, **kwargs)

        return call


class Profiler(Shared):
    """Measures operations and keeps the latest runs of each.

    Args:
        clock: gives the timestamps; None means the system's.
        tracker: gets every duration; None means the shared one.
        **settings: keys of the `[profiler]` table: `history`, the runs kept per operation (1000).
    """

    _table = "profiler"

    def __init__(
        self, *, clock: Clock | None = None, tracker: PerformanceTracker | None = None, **settings: Any
    ) -> None:
        super().__init__(settings)
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker = tracker
        self._after_fork()
        self._runs: dict[str, deque[Profile]] = {}

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _runs itself; appending to a run's deque is atomic

    def _apply(self) -> None:
        with self._lock:
            self._runs = {name: deque(runs, self.settings.history) for name, runs in self._runs.items()}

    @overload
    def profile(self, name: str) -> _Run: ...
    @overload
    def profile(self, name: Callable[P, R]) -> Callable[P, R]: ...
    def profile(self, name: Any) -> Any:
        """Measure each call of a function, or one run of a block.

        Use it as `@profile`, `@profile("name")` or `with profile("name") as run`. The value of the function and its
        errors pass through unchanged; after a block, `run.report` is its Profile.

        Raises:
            TypeError: `name` is neither text nor a function.
        """
        if isinstance(name, str):
            return _Run(self, name)
        if callable(name):
            return _Run(self, getattr(name, "__qualname__", repr(name)))(name)
        raise TypeError(f"profile takes a name or a function, not {name!r}")

    def _record(self, operation: str, wall: float, cpu: float, error: type[BaseException] | None) -> Profile:
        failure = None if error is None or error is GeneratorExit else error.__name__
        report = Profile(operation, wall, cpu, failure is None, failure, self._clock.wall())
        runs = self._runs.get(operation)
        if runs is None:
            with self._lock:
                runs = self._runs.setdefault(operation, deque(maxlen=self.settings.history))
        runs.append(report)
        if self._tracker is None:
            self._tracker = PerformanceTracker.instance()
        self._tracker.record_metric("operation_duration", wall, {"operation": operation, "success": failure is None})
        return report

    def get_performance_summary(self, name: str | None = None) -> Any:
        """Return the kept runs of an operation, oldest first, as dicts; without a name, of all by name."""
        if name is not None:
            return [asdict(run) for run in list(self._runs.get(name, ()))]
        with self._lock:
            names = list(self._runs)
        return {operation: self.get_performance_summary(operation) for operation in names}

    def close(self) -> None:
        """Nothing to flush."""

    def reset(self) -> None:
        """Forget every run."""
        with self._lock:
            self._runs = {}

    def __repr__(self) -> str:
        return f"Profiler({len(self._runs)} operations)"
