from __future__ import annotations

import sys

import pytest

from perfkit.errors import UnknownNameError
from perfkit.memory.workloads import WORKLOADS, collector_of, plan, this_collector


@pytest.mark.parametrize(
    ("version", "free_threaded", "name"),
    [
        ((3, 11, 0), False, "generational"),
        ((3, 13, 9), False, "generational"),
        ((3, 14, 0), False, "incremental"),
        ((3, 14, 4), False, "incremental"),
        ((3, 14, 5), False, "generational"),
        ((3, 15, 0), False, "generational"),
        ((3, 13, 0), True, "free-threaded"),
        ((3, 14, 2), True, "free-threaded"),
        ((3, 15, 1), True, "free-threaded"),
    ],
)
def test_each_python_has_its_collector(version: tuple[int, int, int], free_threaded: bool, name: str) -> None:
    assert collector_of(version, free_threaded=free_threaded).name == name


def test_this_python_has_one() -> None:
    assert this_collector().first <= sys.version_info[:3] <= this_collector().last


def test_an_unknown_workload_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'low_latency'"):
        plan("low_latencies", this_collector())


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_generational_collector_gets_the_whole_bundle(workload: str) -> None:
    made = plan(workload, collector_of((3, 13, 0), free_threaded=False))
    assert made.does == WORKLOADS[workload]
    assert made.left_out == ()


@pytest.mark.parametrize("workload", WORKLOADS)
def test_free_threaded_builds_get_thresholds_only(workload: str) -> None:
    made = plan(workload, collector_of((3, 14, 0), free_threaded=True))
    assert made.does.thresholds == WORKLOADS[workload].thresholds
    assert (made.does.freeze, made.does.collect, made.does.passes) == (False, False, ())
    assert any("freeze: each collection scans the whole heap" in reason for reason in made.left_out)


def test_the_incremental_collector_keeps_its_thresholds_and_gets_no_young_passes() -> None:
    made = plan("low_latency", collector_of((3, 14, 3), free_threaded=False))
    assert made.does.thresholds is None
    assert made.does.passes == ("old", "deep")
    assert made.does.freeze
    assert any("use 3.14.5" in reason for reason in made.left_out)
