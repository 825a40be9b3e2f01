"""What could be changed, said with the figures that speak for it; after the change, whether it was worth it.

In the manner of Ruby's autotuner: one change at a time, measured before and after, and never applied by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfkit.memory.pauses import GCReport
    from perfkit.memory.workloads import Collector, Plan

__all__ = ["Suggestion", "judge", "propose"]

_WATCHED = 30.0  # seconds below which figures say little
_PAUSE = 0.010  # seconds in the way of a request that are worth avoiding
_SHARE = 0.03  # part of the time in collections that is worth lowering
_WORTH = 0.9  # what must have come down to less than this part of itself


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One proposal.

    Attributes:
        change: the call to make, None when there is none to propose.
        reason: the figures behind it.
        before: what was measured without the workload, None when nothing was watched then.
        after: what was measured with it, None before there is one.
    """

    change: str | None
    reason: str
    before: GCReport | None = None
    after: GCReport | None = None


def _short(report: GCReport) -> Suggestion | None:
    if report.elapsed >= _WATCHED:
        return None
    return Suggestion(
        None, f"watched for {report.elapsed:.0f} s with {report.count} collections; ask again after {_WATCHED:.0f} s"
    )


def propose(report: GCReport, collector: Collector) -> Suggestion:
    """Return what to try, from collections watched without any workload."""
    short = _short(report)
    if short is not None:
        return Suggestion(None, short.reason, before=report)
    if collector.name == "incremental":
        return Suggestion("upgrade to Python 3.14.5", collector.note, before=report)
    if report.longest >= _PAUSE and collector.young:
        reason = f"a collection paused the process for {report.longest * 1000:.0f} ms"
        return Suggestion("optimize_for_workload('low_latency')", reason, before=report)
    if report.share >= _SHARE:
        reason = f"{report.share:.0%} of the time went into {report.count} collections"
        return Suggestion("optimize_for_workload('high_throughput')", reason, before=report)
    reason = (
        f"longest pause {report.longest * 1000:.1f} ms, {report.share:.1%} of the time in collections: fine as it is"
    )
    return Suggestion(None, reason, before=report)


def judge(before: GCReport | None, after: GCReport, plan: Plan) -> Suggestion:
    """Return whether to keep a workload, from what was watched before and since."""
    short = _short(after)
    if short is not None or before is None or before.elapsed < _WATCHED:
        reason = short.reason if short is not None else f"nothing to compare {plan.workload!r} with was watched before"
        return Suggestion(None, reason, before, after)
    change = f"longest pause {before.longest * 1000:.1f} -> {after.longest * 1000:.1f} ms, "
    change += f"share of time {before.share:.1%} -> {after.share:.1%}"
    worth = after.longest < before.longest * _WORTH or after.share < before.share * _WORTH
    return Suggestion(None if worth else "restore()", f"{plan.workload}: {change}", before, after)
