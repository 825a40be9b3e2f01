from __future__ import annotations

from dataclasses import replace

import pytest

from perfkit.memory.pauses import GCReport
from perfkit.memory.suggestions import judge, propose
from perfkit.memory.workloads import collector_of, plan

CALM = GCReport(60.0, (500, 50, 5), 0.1, 0.002, 0.0, 10, 0, 0)
GENERATIONAL = collector_of((3, 13, 0), free_threaded=False)
LATENCY = plan("low_latency", GENERATIONAL)


def test_a_short_look_proposes_nothing() -> None:
    proposed = propose(replace(CALM, elapsed=3.0, longest=1.0), GENERATIONAL)
    assert proposed.change is None
    assert "watched for 3 s" in proposed.reason


@pytest.mark.parametrize(
    ("report", "change"),
    [
        (CALM, None),
        (replace(CALM, longest=0.010), "optimize_for_workload('low_latency')"),
        (replace(CALM, longest_between=0.2), None),
        (replace(CALM, seconds=1.8), "optimize_for_workload('high_throughput')"),
    ],
)
def test_the_figures_decide(report: GCReport, change: str | None) -> None:
    assert propose(report, GENERATIONAL).change == change


def test_the_incremental_collector_is_to_be_left() -> None:
    assert propose(CALM, collector_of((3, 14, 1), free_threaded=False)).change == "upgrade to Python 3.14.5"


def test_free_threaded_builds_are_told_of_thresholds_only() -> None:
    row = collector_of((3, 14, 1), free_threaded=True)
    assert propose(replace(CALM, longest=0.1), row).change is None
    assert propose(replace(CALM, longest=0.1, seconds=3), row).change == "optimize_for_workload('high_throughput')"


def test_a_workload_that_gained_is_kept() -> None:
    judged = judge(replace(CALM, longest=0.2), CALM, LATENCY)
    assert judged.change is None
    assert "200.0 -> 2.0 ms" in judged.reason


def test_a_workload_that_gained_nothing_is_to_be_restored() -> None:
    assert judge(CALM, CALM, LATENCY).change == "restore()"


def test_without_figures_of_before_nothing_is_judged() -> None:
    assert judge(None, CALM, LATENCY).change is None
    assert judge(replace(CALM, elapsed=1.0), CALM, LATENCY).change is None
