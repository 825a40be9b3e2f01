"""The optimizer: what `gc` is told for a workload, watched, undone, and collected between requests.

Collections belong to the process, so this is about one process whichever instance is used; each remembers what it found
and `restore()` puts that back. Nothing changes before a method is called. The rules are measured (CPython 3.11 and
3.13, a Flask application of 1 million live objects): a full collection takes 150 to 270 ms and 0 ms when all is frozen;
switching collections off and collecting everything when idle was worse than doing nothing.
"""

from __future__ import annotations

import gc
import logging
import threading
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.memory.compaction import Compaction
from perfkit.memory.immortal import forget_lookups, make_immortal
from perfkit.memory.pauses import GCMonitor, Pauses, Tally
from perfkit.memory.rss import can_trim, process_memory
from perfkit.memory.steering import Steering
from perfkit.memory.suggestions import Suggestion, judge, propose
from perfkit.memory.workloads import Collector, Pass, Plan, plan, this_collector
from perfkit.metrics import PerformanceTracker
from perfkit.values import finite

if TYPE_CHECKING:
    from perfkit.memory.pauses import GCReport

__all__ = ["GCOptimizer"]

log = logging.getLogger("perfkit.memory")

_DRAIN = 5.0  # seconds between recordings of the pauses seen
_LOOK = 0.1  # seconds between looks at the resident memory; each costs as much as the rest of what is done per request
_LOOKS = 10  # times per interval that compaction looks for a quiet moment


class GCOptimizer(Shared):
    """Keeps garbage collection out of the way; the shared one is `perfkit.gc_optimizer`.

    Each collection goes to the tracker as gc_duration (seconds), gc_count and gc_time_total (seconds), tagged with the
    generation and whether it was made between requests, from the first workload, monitor or suggestion on. A forked
    child goes on with what its parent set and counts its own collections.

    Args:
        clock: None means the system's.
        tracker: gets the metrics; None means the shared one.
        collector: the row of `workloads.COLLECTORS` to go by; None means that of this Python.
        **settings: keys of the `[gc]` table: `pause` (seconds a collection between requests should take), `deep_age`
            (seconds) and `deep_growth` (part of the resident memory) until all that is frozen is looked at again,
            `much_garbage` (objects found in it that end re-freezing), `immortal`.

    Raises:
        ConfigError: a setting is unknown or cannot be used.
    """

    _table = "gc"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        tracker: PerformanceTracker | None = None,
        collector: Collector | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(settings)
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker = tracker
        self._collector = collector
        self._pauses = Pauses(self._clock.now, self._resolve_tracker)
        self._compaction: Compaction | None = None
        self._lock = threading.RLock()
        self._clear()

    def _clear(self) -> None:
        self._before: tuple[tuple[int, int, int], bool] | None = None  # thresholds and whether it was enabled
        self._ours: tuple[int, int, int] | None = None  # thresholds since
        self._frozen = False
        self._plan: Plan | None = None
        self._steering: Steering | None = None
        self._tally: Tally | None = None
        self._report_before: GCReport | None = None
        self._passes: dict[Pass, int] = {"young": 0, "old": 0, "deep": 0}
        self._looked: tuple[float, int | None] = -_LOOK, None  # when, and the resident memory then

    def _after_fork(self) -> None:
        # guards all that _clear sets; re-entrant, since finalisers run in a pass
        self._lock = threading.RLock()
        self._pauses.after_fork()
        if self._tally is not None:
            self._retally()
        if self._steering is not None:
            self._steering.start(self._clock.now(), None)

    def _apply(self) -> None:
        with self._lock:
            if self._steering is not None:
                self._steering.settings = self.settings
                self._steering.deep_age = self._deep_age()

    def _resolve_tracker(self) -> PerformanceTracker:
        if self._tracker is None:
            self._tracker = PerformanceTracker.instance()
        return self._tracker

    def _row(self) -> Collector:
        if self._collector is None:
            self._collector = this_collector()
        return self._collector

    def _deep_age(self) -> float:
        allowed = self._row().deep_age
        return float(self.settings.deep_age if allowed is None else min(allowed, self.settings.deep_age))

    # --- workloads

    def optimize_for_workload(self, workload: str) -> Plan:
        """Set collections up for a workload, in place of the one before.

        - "fork_server": in the parent, when all is loaded and before it forks: the heap is frozen, so that collections
          in the children leave shared pages alone: they look at what was made since only. With `[gc] immortal`, as it
          is unless set otherwise, on Python 3.12 and 3.13 what lives then is never freed, which `restore` cannot undo,
          and neither does a child's use of it copy pages.
        - "high_throughput": after warm-up: freeze, and collect rarely.
        - "low_latency": the same, and `collect_between_requests` after each response keeps pauses out of requests.
        - "memory_constrained": thresholds stay; frozen garbage is looked for between requests, memory is trimmed.
        - "balanced": freeze, collect less often; frozen garbage is looked for between requests.

        All but the first collect everything once before they freeze: at 1 million objects a pause of 0.2 s.

        Returns:
            What is done, and what is left out because this Python's collector has no use for it.

        Raises:
            UnknownNameError: no workload is called so; nothing has changed then.
        """
        chosen = plan(workload, self._row())
        _process.check()
        with self._lock:
            self._remember()
            self._watch_anew()
            self._plan = chosen
            self._set(chosen)
        before_fork = workload == "fork_server"  # a thread then is what Python 3.12 warns of
        _process.background.every(_DRAIN, self._drain, start=not before_fork)
        if chosen.does.trim and self._compaction is None:
            self.enable_gc_compaction()
        if chosen.left_out:
            log.warning(
                "%s on Python's %s collector without %s", workload, chosen.collector, "; ".join(chosen.left_out)
            )
        return chosen

    def _remember(self) -> None:
        if self._before is None:
            self._before = gc.get_threshold(), gc.isenabled()

    def _watch_anew(self) -> None:
        if self._tally is not None and self._plan is None:
            self._report_before = self._tally.report(self._clock.now(), process_memory.rss())
        self._retally()

    def _retally(self) -> None:
        old, self._tally = self._tally, self._pauses.tally()
        if old is not None:
            self._pauses.forget(old)

    def _set(self, chosen: Plan) -> None:
        does = chosen.does
        if self._before is not None:
            gc.set_threshold(*(does.thresholds if does.thresholds is not None else self._before[0]))
            self._ours = gc.get_threshold()
        gc.enable()
        if chosen.workload == "fork_server":
            forget_lookups()
            if self.settings.immortal and make_immortal() is None:
                log.info("nothing is made immortal: this needs a regular build of Python 3.12 or 3.13")
        if does.freeze:
            self._freeze(collect=does.collect)
        self._steering = None
        if does.passes:
            self._steering = Steering(self.settings, does.passes, self._deep_age(), gc.get_freeze_count())
            self._steering.start(self._clock.now(), process_memory.rss())

    def _freeze(self, *, collect: bool) -> None:
        if collect:
            gc.collect()
        gc.freeze()
        self._frozen = True

    def freeze_after_warm_up(self) -> bool:
        """Collect everything, then leave all that is alive out of later collections.

        Call it when the application is loaded and its caches are warm; `restore()` thaws.

        Returns:
            False where it would not help: on free-threaded builds, which scan frozen objects too.
        """
        if not self._row().freeze:
            log.warning("nothing is frozen: %s", self._row().note)
            return False
        with self._lock:
            self._remember()
            self._freeze(collect=True)
            if self._steering is not None:
                self._steering.resident = gc.get_freeze_count()
                self._steering.start(self._clock.now(), process_memory.rss())
        return True

    def restore(self) -> None:
        """Put thresholds and switch back as they were before the first change, thaw, stop watching and trimming.

        What somebody else has set since stays. Python cannot tell who froze an object: what the application itself had
        frozen is thawed too.
        """
        self.disable_gc_compaction()
        _process.background.cancel(self._drain)
        with self._lock:
            if self._before is not None:
                thresholds, enabled = self._before
                if gc.get_threshold() == self._ours:
                    gc.set_threshold(*thresholds)
                if not enabled:
                    gc.disable()
            if self._frozen:
                gc.unfreeze()
            if self._tally is not None:
                self._pauses.forget(self._tally)
            self._clear()

    # --- between requests

    def collect_between_requests(self, *, idle: bool = True, lull: bool = False) -> Pass | None:
        """Collect what is due, if anything is; call it after each response has been sent.

        Young objects are collected so often that it takes about `[gc] pause` (2 ms), and survivors are frozen. When
        memory has grown or much time has passed, all that is frozen is looked at too; where that finds much garbage,
        survivors are no longer frozen. Threads take turns without waiting. Without a workload it begins "low_latency".

        Args:
            idle: False while other requests run: passes wait longer then.
            lull: True when no request has come for some time, either: the moment that deep passes wait for.

        Returns:
            What was done: "young", "old" (all that is not frozen), "deep" (everything), or None.
        """
        if self._plan is None:
            self.optimize_for_workload("low_latency")
        if self._steering is None or not self._lock.acquire(blocking=False):
            return None
        try:
            return self._collect_due(idle=idle, lull=lull)
        finally:
            self._lock.release()

    def _collect_due(self, *, idle: bool, lull: bool) -> Pass | None:
        steering, now = self._steering, self._clock.now()
        if steering is None:  # restored in the meantime
            return None
        due = steering.choose(now, self._resident(now), _new_objects(), idle=idle, lull=lull)
        if due is not None:
            self._run(due, steering, idle=idle)
        return due

    def _run(self, kind: Pass, steering: Steering, *, idle: bool) -> None:
        _process.background.ensure()
        self._pauses.drain()
        started, new = self._clock.now(), _new_objects()
        self._pauses.between = True
        try:
            if kind == "deep":
                gc.unfreeze()
            found = gc.collect(1 if kind == "young" else 2)
        finally:
            self._pauses.between = False
        now = self._clock.now()
        steering.done(kind, now, now - started, found, self._resident(now, anew=True), self._left(kind, found, new))
        if steering.freezes(kind, now, idle=idle):
            gc.freeze()
            steering.froze(now)
        self._frozen = self._frozen if kind != "deep" else steering.frozen_at == now
        self._passes[kind] += 1

    def _resident(self, now: float, *, anew: bool = False) -> int | None:
        if anew or not 0 <= now - self._looked[0] < _LOOK:
            self._looked = now, process_memory.rss()
        return self._looked[1]

    def _left(self, kind: Pass, found: int, new: int) -> int:
        """Return how many objects a pass has left that are not frozen; a count takes a tenth of what a pass does."""
        if kind == "young":
            return max(0, new - found)
        return len(gc.get_objects(2)) if kind == "old" or found > self.settings.much_garbage else 0

    # --- compaction

    def enable_gc_compaction(self, interval: float = 600.0) -> bool:
        """Give free memory back to the system every `interval` seconds, in a quiet moment; CPython moves no objects.

        Trims that gain less than 1 % make the next ones rarer. Each goes to the tracker as gc_compaction_duration.

        Returns:
            False where there is no `malloc_trim`: it is glibc's.

        Raises:
            ValueError: the interval is not a number above 0.
        """
        finite("interval", interval, above=0)
        if not can_trim():
            log.info("no compaction: this C library has no malloc_trim")
            return False
        self._resolve_tracker()
        self._compaction = Compaction(interval, now=self._clock.now)
        _process.background.every(interval / _LOOKS, self._compact)
        return True

    def disable_gc_compaction(self) -> None:
        """Trim no more."""
        self._compaction = None
        _process.background.cancel(self._compact)

    def _compact(self) -> None:
        compaction = self._compaction
        if compaction is not None and compaction.due():
            self._resolve_tracker().record_metric("gc_compaction_duration", compaction.run())

    # --- watching

    def _drain(self) -> None:
        self._pauses.drain()

    def monitor_gc_performance(self) -> GCMonitor:
        """Return a context manager whose `report` tells the collections of the process while the block ran."""
        return GCMonitor(self._pauses)

    def suggest(self) -> Suggestion:
        """Return one change worth trying, with its figures; later whether a workload was worth it. Applies nothing.

        The first call begins to watch; half a minute under load is the least it needs to say something.
        """
        with self._lock:
            if self._tally is None:
                self._retally()
                _process.background.every(_DRAIN, self._drain)
            report = self._report()
            if self._plan is None:
                return propose(report, self._row())
            return judge(self._report_before, report, self._plan)

    def _report(self) -> GCReport:
        if self._tally is None:
            raise RuntimeError("nothing is being watched")
        return self._tally.report(self._clock.now(), process_memory.rss())

    def stats(self) -> dict[str, Any]:
        """Return settings, pauses (seconds, by generation), passes and memory (bytes); cheap at any heap size."""
        self._pauses.drain()
        tally, steering, compaction = self._tally, self._steering, self._compaction
        return {
            "collector": self._row().name,
            "workload": self._plan.workload if self._plan is not None else None,
            "enabled": gc.isenabled(),
            "thresholds": gc.get_threshold(),
            "counts": gc.get_count(),
            "collections": [generation["collections"] for generation in gc.get_stats()],
            "pauses": tally.figures() if tally is not None else None,
            "frozen": self._frozen,
            "refreezes": steering.refreeze if steering is not None else False,
            "interval": steering.interval if steering is not None else None,
            "passes": dict(self._passes),
            "rss": process_memory.rss(),
            "trims": compaction.trims if compaction is not None else 0,
            "trimmed": compaction.gained if compaction is not None else 0,
        }

    # --- life

    def close(self) -> None:
        """Record the pauses seen; what was set lasts as long as the process, or until `restore`."""
        self._pauses.drain()

    def reset(self) -> None:
        """Restore, and forget what was counted."""
        self.restore()

    def __repr__(self) -> str:
        workload = self._plan.workload if self._plan is not None else "nothing set"
        return f"GCOptimizer({workload}, {self._row().name})"


def _new_objects() -> int:
    """Return how many objects were made, less those freed, since young ones were last collected; automatically too."""
    young, collections, _ = gc.get_count()
    return young + collections * gc.get_threshold()[0]
