"""What is done for which workload, and what of it the collector of the Python at hand can make use of: two tables.

CPython has had three collectors. The generational one (3.11 to 3.13, and again from 3.14.5) profits from all of it. The
incremental one of 3.14.0 to 3.14.4 let memory grow up to five times (cpython#148726), which larger thresholds make
worse. The one of free-threaded builds looks at the whole heap each time, frozen or not, with the world stopped
(cpython, InternalDocs/garbage_collector.md), so that only rarer collections help.
"""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass
from typing import Literal

from perfkit.errors import UnknownNameError

__all__ = ["COLLECTORS", "WORKLOADS", "Collector", "Pass", "Plan", "Workload", "collector_of", "plan", "this_collector"]

Version = tuple[int, int, int]
Pass = Literal["young", "old", "deep"]

_ANY: Version = (99, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """One row: which Pythons have this collector, and what helps there.

    Attributes:
        name: what it is called.
        first: the first version of it.
        last: the last one.
        free_threaded: whether the build is without the GIL.
        thresholds: larger thresholds help.
        freeze: collections leave out what is frozen.
        young: there is a young generation worth collecting by itself.
        deep_age: seconds between deep passes at most, None means as set.
        note: what a user should know.
    """

    name: str
    first: Version
    last: Version
    free_threaded: bool = False
    thresholds: bool = True
    freeze: bool = True
    young: bool = True
    deep_age: float | None = None
    note: str = ""


COLLECTORS = (
    Collector(
        name="free-threaded", first=(3, 13, 0), last=_ANY, free_threaded=True, freeze=False, young=False,
        note="each collection scans the whole heap, frozen or not: only the thresholds are changed",
    ),
    Collector(
        name="incremental", first=(3, 14, 0), last=(3, 14, 4), thresholds=False, young=False, deep_age=60.0,
        note="the collector of 3.14.0 to 3.14.4 may let memory grow up to five times: use 3.14.5 or newer",
    ),
    Collector(name="generational", first=(3, 11, 0), last=_ANY),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One bundle.

    Attributes:
        thresholds: for `gc.set_threshold`, None leaves those of before.
        collect: collect everything once, before it is frozen. Not before a fork: freed holes would be written to. There
            the threshold is low too: garbage that waits to be collected is memory of each worker's own.
        freeze: leave what is alive now out of collections.
        passes: what `collect_between_requests` may do.
        trim: give the allocator's free memory back when idle.
    """

    thresholds: Version | None = None
    collect: bool = True
    freeze: bool = True
    passes: tuple[Pass, ...] = ()
    trim: bool = False


WORKLOADS = {
    "fork_server": Workload(thresholds=(2_000, 20, 20), collect=False, passes=("young", "old")),
    "high_throughput": Workload(thresholds=(50_000, 50, 50)),
    "low_latency": Workload(thresholds=(50_000, 50, 50), passes=("young", "old", "deep")),
    "memory_constrained": Workload(passes=("old", "deep"), trim=True),
    "balanced": Workload(thresholds=(10_000, 20, 20), passes=("old", "deep")),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A workload as it is done here.

    Attributes:
        workload: its name.
        collector: the collector's name.
        does: the bundle, without what does not help here.
        left_out: what was left out, with the reason.
    """

    workload: str
    collector: str
    does: Workload
    left_out: tuple[str, ...] = ()


def collector_of(version: Version, *, free_threaded: bool) -> Collector:
    """Return the first row that fits a version, for example `sys.version_info[:3]`."""
    return next(
        row for row in COLLECTORS if row.first <= version <= row.last and (free_threaded or not row.free_threaded)
    )


def this_collector() -> Collector:
    """Return the row of this process."""
    return collector_of(sys.version_info[:3], free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")))


def plan(workload: str, collector: Collector) -> Plan:
    """Return what to do for a workload with a collector.

    Raises:
        UnknownNameError: no workload is called so.
    """
    bundle = WORKLOADS.get(workload)
    if bundle is None:
        raise UnknownNameError.of("workload", workload, WORKLOADS)
    does = Workload(
        thresholds=bundle.thresholds if collector.thresholds else None,
        collect=bundle.collect and collector.freeze,
        freeze=bundle.freeze and collector.freeze,
        passes=tuple(p for p in bundle.passes if collector.freeze and (collector.young or p != "young")),
        trim=bundle.trim,
    )
    parts = ("thresholds", "freeze", "passes")
    lost = [part for part in parts if getattr(does, part) != getattr(bundle, part)]
    return Plan(workload, collector.name, does, tuple(f"{part}: {collector.note}" for part in lost))
