"""The measured path: what is read when a run begins and ends, and where the result goes.

The thread's CPU clock costs most of it, 0.5 us a reading, and is not read again after a run so short that its duration
tells as much. Resident memory is that of the process, whatever thread asked for it, and is read after runs of more than
a millisecond only; what it was before is a reading at most 0.1 s older than the run, shared by all threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import get_ident
from time import thread_time
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from perfkit import _process
from perfkit.memory.rss import process_memory
from perfkit.metrics.operations import Operations, Running

if TYPE_CHECKING:
    from perfkit.clock import Clock
    from perfkit.profiling.pauses import Collections, Total

__all__ = ["BRIEF", "SLOW", "Operation", "Profile", "Surroundings", "failure"]

BRIEF = 20e-6  # seconds up to which a run's CPU time is taken to be its duration, which it cannot exceed
SLOW = 0.001  # seconds from which on memory is read
_STALE = 0.1  # seconds a reading of memory may be older than a run

P = ParamSpec("P")
R = TypeVar("R")
Recorder = Callable[[float, float], None]  # of a duration, and the clock reading at its end
Row = tuple[float, float | None, "Total", "Total", int | None, str | None, float]


@dataclass(frozen=True, slots=True)
class Profile:
    """One run, with the keys of the RAAF guide (7.1) and more.

    Attributes:
        operation: its name.
        duration: seconds; of a generator those spent inside of it.
        cpu_time: CPU seconds of the thread, None when it ended in another than it began; after less than 20 us the
            duration, which bounds it.
        gc_time: seconds that garbage collections stopped the process for meanwhile.
        gc_count: how many there were.
        memory_delta: change of the resident memory of the whole process, in bytes; None after a run of less than 1 ms.
        success: whether it ended without an error.
        error: class of the error.
        timestamp: when it ended, epoch seconds.
    """

    operation: str
    duration: float
    cpu_time: float | None
    gc_time: float
    gc_count: int
    memory_delta: int | None
    success: bool
    error: str | None
    timestamp: float

    @classmethod
    def of(cls, operation: str, row: Row, clock: Clock) -> Profile:
        """Return the profile that a kept row stands for; rows hold clock readings, which are cheaper."""
        duration, cpu_time, before, after, delta, error, ended = row
        gc_count, gc_time = _between(before, after)
        timestamp = clock.wall() - clock.now() + ended
        return cls(operation, duration, cpu_time, gc_time, gc_count, delta, error is None, error, timestamp)


class Surroundings:
    """What all operations of a profiler read.

    Attributes:
        ready: False until the profiler's own work runs in this process.
        stand_in: told the time at each look while slow runs are caught; see Watchdog.
        rss: resident bytes at the last reading, None when unknown.
        due: clock reading from which on that is too old.
    """

    __slots__ = ("clock", "collections", "due", "operations", "ready", "recorder", "rss", "stand_in", "start")

    def __init__(
        self,
        clock: Clock,
        operations: Operations,
        collections: Collections,
        start: Callable[[], None],
        recorder: Callable[[str, bool], Recorder],
    ) -> None:
        self.clock, self.operations, self.collections = clock, operations, collections
        self.start, self.recorder = start, recorder
        self.ready = False
        self.stand_in: Callable[[float], None] | None = None
        self.rss: int | None = None
        self.due = 0.0

    def look(self, now: float) -> int | None:
        """Read the resident memory; see that the profiler's own work runs, too, as this is not done at every run."""
        _process.check()
        if not self.ready:
            self.start()
        if self.stand_in is not None:
            self.stand_in(now)
        self.due = now + _STALE
        self.rss = process_memory.rss()
        return self.rss


class Operation:
    """All runs of one name.

    Attributes:
        name: what it is called.
        runs: the latest, as rows that `Profile.of` reads.
        limit: seconds after which a run counts as slow, and
        limit_due: the clock reading from which on that is worked out anew.
    """

    __slots__ = (
        "_around", "_clock_now", "_collections", "_fail", "_floor", "_lock", "_operations", "_slowest", "_succeed",
        "keep", "limit", "limit_due", "name", "runs",
    )  # fmt: skip

    def __init__(self, name: str, around: Surroundings, history: int, keep: int) -> None:
        self.name = name
        self.keep = keep
        self._around = around
        self._operations, self._collections = around.operations, around.collections
        self._clock_now = around.clock.now
        self._succeed: Recorder = self._first
        self._fail: Recorder = self._first_failure
        self.runs: deque[Row] = deque(maxlen=history)
        self.renew()
        self.forget()

    def renew(self) -> None:
        """Make the lock new in a forked child."""
        self._lock = threading.RLock()  # guards _slowest and _floor; re-entrant, since generators end in finalisers too

    def forget(self) -> None:
        """Drop what was kept; whoever measures for this operation goes on."""
        with self._lock:
            self.runs.clear()
            self._slowest: list[Row] = []
            self._floor = -1.0
        self.limit, self.limit_due = float("inf"), 0.0

    def resize(self, history: int, keep: int) -> None:
        """Keep so many runs from now on."""
        with self._lock:
            self.runs, self.keep = deque(self.runs, history), keep
            self._trim()

    def begin(self) -> Running:
        """Read what is needed before a run, and enter it among the running ones."""
        around = self._around
        run = Running()
        run.operation = self
        run.thread = get_ident()
        run.slow = None
        run.collections = self._collections.total
        run.cpu = thread_time()
        run.started = now = self._clock_now()
        run.rss = around.rss if now < around.due else around.look(now)
        self._operations.running[run] = None
        return run

    def end(self, run: Running, error: str | None = None) -> Row:
        """Take a run out and keep what it cost; `error` is the class of what it raised."""
        now = self._clock_now()
        duration = now - run.started
        cpu = run.cpu
        if cpu is not None:
            cpu = duration if duration < BRIEF else thread_time() - cpu
        self._operations.running.pop(run, None)
        rss = run.rss
        delta = self._growth(rss) if duration > SLOW and rss is not None else None
        row = (duration, cpu, run.collections, self._collections.total, delta, error, now)
        self.runs.append(row)
        if duration > self._floor:
            self._keep(row)
        if run.slow is not None:
            run.slow.ended(duration, error)
        (self._succeed if error is None else self._fail)(duration, now)
        return row

    def measured(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function with each call measured: `begin` and `end`, without the calls of these."""
        around, seen, operations, clock = self._around, self._collections, self._operations, self._clock_now

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            run = Running()
            run.operation = self
            run.thread = get_ident()
            run.slow = None
            before = seen.total
            run.cpu = cpu = thread_time()
            run.started = now = clock()
            rss = around.rss if now < around.due else around.look(now)
            operations.running[run] = None
            try:
                # to hand on an empty mapping costs 50 ns
                value = function(*args, **kwargs) if kwargs else function(*args)  # type: ignore[call-arg]
            except BaseException as error:
                run.collections, run.rss = before, rss
                self.end(run, failure(error))
                raise
            now = clock()
            duration = now - run.started
            cpu = duration if duration < BRIEF else thread_time() - cpu
            operations.running.pop(run, None)
            delta = self._growth(rss) if duration > SLOW and rss is not None else None
            row = (duration, cpu, before, seen.total, delta, None, now)
            self.runs.append(row)
            if duration > self._floor:
                self._keep(row)
            if run.slow is not None:
                run.slow.ended(duration, None)
            self._succeed(duration, now)
            return value

        return call

    def _first(self, duration: float, now: float) -> None:
        self._succeed = self._around.recorder(self.name, True)
        self._succeed(duration, now)

    def _first_failure(self, duration: float, now: float) -> None:
        self._fail = self._around.recorder(self.name, False)
        self._fail(duration, now)

    def _growth(self, before: int) -> int | None:
        after = self._around.look(self._clock_now())
        return None if after is None else after - before

    def pause(self, run: Running) -> None:
        """Count nothing for a run until `resume`: a generator has handed out a value."""
        self._operations.running.pop(run, None)
        run.cpu = thread_time() - run.cpu if run.cpu is not None else None
        run.collections = _between(run.collections, self._collections.total)
        run.started = self._clock_now() - run.started

    def resume(self, run: Running) -> None:
        """Go on with it, perhaps in another thread."""
        run.thread = get_ident()
        run.collections = _between(run.collections, self._collections.total)
        run.started = self._clock_now() - run.started
        run.cpu = thread_time() - run.cpu if run.cpu is not None else None
        self._operations.running[run] = None

    def _keep(self, row: Row) -> None:
        _process.check()
        with self._lock:
            self._slowest.append(row)
            self._trim()

    def _trim(self) -> None:
        self._slowest = sorted(self._slowest, key=lambda row: -row[0])[: self.keep]
        self._floor = self._slowest[-1][0] if len(self._slowest) == self.keep else -1.0

    def profile_of(self, row: Row) -> Profile:
        """Return the profile that a row stands for."""
        return Profile.of(self.name, row, self._around.clock)

    def latest(self) -> list[Profile]:
        """Return the kept runs, oldest first."""
        while True:
            try:
                return [self.profile_of(row) for row in tuple(self.runs)]
            except RuntimeError:  # a run has ended meanwhile
                continue

    def slowest(self) -> list[Profile]:
        """Return the slowest runs, the slowest first."""
        with self._lock:
            return [self.profile_of(row) for row in self._slowest]

    def __repr__(self) -> str:
        return f"Operation({self.name}, {len(self.runs)} runs)"


def _between(before: Total, after: Total) -> Total:
    return after[0] - before[0], after[1] - before[1]


def failure(error: BaseException | None) -> str | None:
    """Return the class of what a run raised; a generator that is left early has not failed."""
    return None if error is None or isinstance(error, GeneratorExit) else type(error).__name__
