"""Slow runs caught in the act: where the thread of a run is when the run has taken far longer than its kind does.

One watchdog looks twenty times a second at what runs. When a run is older than the threshold, and than some times the
95th percentile of its operation, the stack of its thread is taken, again at twice and at four times that age, with the
garbage collections, waits and providers that fell into its time.

While a C call holds the interpreter's lock the watchdog stands still like everything else. Whoever gets the lock next
is a matter of luck, and after 5 ms may be the caller again, already in its next line. So the first run to begin after a
standstill takes the stacks for the watchdog, in whatever thread that is. The CPU clocks of the threads tell whose call
it was; the others are not blamed for the time. What cannot be told: a call that holds the lock without using the CPU (a
foreign library that sleeps with it), and one whose thread is the first to go on.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.profiling.frames import Frame, cpu_seconds, current, own_place, stack_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from perfkit.clock import Clock
    from perfkit.metrics import PerformanceTracker
    from perfkit.metrics.operations import Operations, Running
    from perfkit.profiling.pauses import Collections

__all__ = ["INTERVAL", "Capture", "SlowRun", "Watchdog"]

INTERVAL = 0.05  # seconds between two looks
_AGAIN = (1.0, 2.0, 4.0)  # times the limit at which stacks are taken
_LATE = 0.01  # seconds the watchdog may be late before it asks why, and
_STANDSTILL = 0.1  # before that is counted
_SHARE = 0.2  # of that time, CPU that the thread it was for must have used
_PER_MINUTE = 30  # stacks taken at most
_KNOWN = 20  # runs of an operation from which on its percentile counts
_RENEWED = 30.0  # seconds until it is worked out anew
_NUMBERS = itertools.count(1)


class Capture(NamedTuple):
    """The stack of a run at an age (seconds), the outermost call first."""

    age: float
    stack: tuple[Frame, ...]


class SlowRun:
    """One run that was, or still is, slow.

    Attributes:
        id: names it in this process and on its host's dashboard.
        operation: whose run it is.
        thread: name of the thread.
        began: epoch seconds.
        limit: seconds after which it counted as slow.
        held: seconds for which it kept every other thread from running, 0.0 when it did not.
        captures: one to three stacks.
        overlapped: what fell into its time: {"kind": "gc", "provider" or what was waited for, "name", "seconds"}.
        duration: seconds, None while it runs.
        error: class of the error it ended with.
    """

    __slots__ = ("began", "captures", "duration", "error", "held", "id", "limit", "operation", "overlapped", "thread")

    def __init__(self, operation: str, thread: str, began: float, limit: float) -> None:
        self.id = f"{os.getpid()}-{next(_NUMBERS)}"
        self.operation, self.thread, self.began, self.limit = operation, thread, began, limit
        self.held = 0.0
        self.captures: tuple[Capture, ...] = ()
        self.overlapped: tuple[dict[str, Any], ...] = ()
        self.duration: float | None = None
        self.error: str | None = None

    def ended(self, duration: float, error: str | None) -> None:
        """Note how the run ended."""
        self.error, self.duration = error, duration

    @property
    def where(self) -> Frame | None:
        """The application's own line that took long, at the last capture."""
        return own_place(self.captures[-1].stack) if self.captures else None

    @property
    def age(self) -> float:
        """Seconds it took, or had taken when it was last looked at."""
        return self.duration if self.duration is not None else self.captures[-1].age

    def to_dict(self) -> dict[str, Any]:
        """Return it in JSON types."""
        captures = [{"age": one.age, "stack": [str(frame) for frame in one.stack]} for one in self.captures]
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {
            **plain,
            "age": self.age,
            "where": str(self.where) if self.where is not None else None,
            "captures": captures,
            "overlapped": list(self.overlapped),
        }

    def __repr__(self) -> str:
        return f"SlowRun({self.operation}, {self.age:.3f} s at {self.where})"


class Watchdog:
    """Looks for slow runs; `scan` is called every INTERVAL seconds.

    Args:
        settings: returns the `[profiler]` table.
        operations: where runs are entered.
        collections: knows the garbage collections.
        clock: the profiler's.
        tracker: returns the tracker, for percentiles and `slow_captures`.
        found: is told of each run once, when its first stack has been taken.
    """

    def __init__(
        self,
        settings: Callable[[], Any],
        operations: Operations,
        collections: Collections,
        clock: Clock,
        tracker: Callable[[], PerformanceTracker],
        found: Callable[[SlowRun], None],
    ) -> None:
        self._settings, self._operations, self._collections = settings, operations, collections
        self._clock, self._tracker, self._found = clock, tracker, found
        self.rest()

    def rest(self) -> None:
        """Begin anew: it did not look until now."""
        self._looked = self._clock.now()
        self._taken: deque[float] = deque(maxlen=_PER_MINUTE)  # when stacks were taken
        self._early: dict[Running, tuple[Frame, ...]] = {}  # stacks that were taken for the next look
        self._excused: dict[Running, float] = {}  # seconds a run lost to others, and
        self._held: dict[Running, float] = {}  # seconds others lost to it

    def stand_in(self, now: float) -> None:
        """Take the stacks in a thread that got its turn after a standstill before the watchdog did; takes no lock."""
        if now - self._looked > INTERVAL + _STANDSTILL and not self._early:
            self._early = self._stacks(self._running(), now)

    def scan(self) -> None:
        """Look once."""
        now = self._clock.now()
        late = now - self._looked - INTERVAL
        self._looked = now  # and not the end of this look: a standstill in the middle of it counts at the next
        running, seen = self._running(), {}
        early, self._early = self._early, {}
        if late > _LATE and running:
            seen = self._stacks(running, now) | early  # before all else: the threads go on meanwhile
            running |= dict.fromkeys(early)
            self._stood_still(running, now, late)
        for lost in (self._excused, self._held):
            for gone in lost.keys() - running.keys():
                del lost[gone]
        due = [run for run in running if self._is_due(run, now)]
        if due:
            self._capture(due, now, seen or self._stacks(due, now))

    def _running(self) -> dict[Running, None]:
        while True:
            try:
                return dict(self._operations.running)
            except RuntimeError:  # changed meanwhile
                continue

    def _stood_still(self, running: dict[Running, None], now: float, late: float) -> None:
        """Find out who kept all others from running, and excuse the rest."""
        culprits = _culprits(running, late)
        if late > _STANDSTILL:
            self._tracker().record_metric("standstill_duration", late, {"known": bool(culprits)})
            late += INTERVAL  # it may have begun just after the last look
        for run in running:
            lost = self._held if run in culprits else self._excused
            lost[run] = lost.get(run, 0.0) + min(late, now - run.started)

    def _age(self, run: Running, now: float) -> float:
        return now - run.started - self._excused.get(run, 0.0)

    def _is_due(self, run: Running, now: float) -> bool:
        age = self._age(run, now)
        if age < self._settings().slow_threshold:
            return False
        taken = len(run.slow.captures) if run.slow is not None else 0
        return taken < len(_AGAIN) and age >= self._limit(run.operation, now) * _AGAIN[taken]

    def _limit(self, operation: Any, now: float) -> float:
        if now >= operation.limit_due:
            settings = self._settings()
            stats = self._tracker().get_stats(
                "operation_duration", timedelta(hours=1), tags={"operation": operation.name}
            )
            usual = stats["p95"] if stats and stats["count"] >= _KNOWN else 0.0
            operation.limit = max(settings.slow_threshold, settings.slow_factor * usual)
            operation.limit_due = now + _RENEWED
        return float(operation.limit)

    def _stacks(self, runs: Iterable[Running], now: float) -> dict[Running, tuple[Frame, ...]]:
        """Return where those are that may be slow, and have not ended before that was known."""
        least = self._settings().slow_threshold
        frames = current()
        found = {run: stack_of(frames.get(run.thread)) for run in runs if now - run.started >= least}
        return {run: stack for run, stack in found.items() if run in self._operations.running}

    def _capture(self, due: list[Running], now: float, stacks: Mapping[Running, tuple[Frame, ...]]) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for run in due:
            stack = stacks.get(run)
            if stack == ():  # the thread has ended without ending its run
                self._operations.running.pop(run, None)
            elif stack is not None and self._admitted(now):
                self._note(run, now, Capture(self._age(run, now), stack), names.get(run.thread, "?"))

    def _admitted(self, now: float) -> bool:
        taken = self._taken  # which another thread may begin anew
        if len(taken) == _PER_MINUTE and now - taken[0] < 60.0:  # noqa: PLR2004 - a minute
            self._tracker().increment("slow_captures_skipped")
            return False
        taken.append(now)
        return True

    def _note(self, run: Running, now: float, capture: Capture, thread: str) -> None:
        slow = run.slow
        if slow is None:
            began = self._clock.wall() - (now - run.started)
            slow = SlowRun(run.operation.name, thread, began, float(run.operation.limit))
        slow.captures, slow.held = (*slow.captures, capture), self._held.get(run, 0.0)
        slow.overlapped = self._overlapped(run, now)
        if run.slow is None:
            run.slow = slow
            if run not in self._operations.running:  # it has ended since: nobody else will tell
                slow.ended(now - run.started, None)
            self._found(slow)
            self._tracker().increment("slow_captures", tags={"operation": slow.operation})

    def _overlapped(self, run: Running, now: float) -> tuple[dict[str, Any], ...]:
        pauses = self._collections.between(run.started, now)
        found = [("gc", f"generation {one.generation}", one.began, one.ended) for one in pauses]
        steps = self._operations.steps(run.thread, run.started)
        found += [(one.kind, one.name, one.began, now if one.ended is None else one.ended) for one in steps]
        return tuple(
            {"kind": kind, "name": name, "seconds": ended - max(began, run.started)}
            for kind, name, began, ended in found
        )


def _culprits(running: Iterable[Running], late: float) -> list[Running]:
    """Return the runs whose threads used the CPU while nobody else could; on a busy machine only part of the time."""
    used = {run: _cpu_of(run) for run in running}
    most = max(used.values(), default=0.0)
    return [run for run, cpu in used.items() if cpu >= max(_SHARE * late, most / 2)]


def _cpu_of(run: Running) -> float:
    used = cpu_seconds(run.thread)
    return used - run.cpu if used is not None and run.cpu is not None else 0.0
