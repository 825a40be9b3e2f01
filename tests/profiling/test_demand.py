"""CPU, memory and benchmark on demand: right places, right values, and found again."""

from __future__ import annotations

import json
import sys
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
from _parts import needs_module, untraced

from perfkit.clock import FakeClock
from perfkit.errors import UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.profiling import Profiler
from perfkit.profiling.reports import MemoryReport
from perfkit.profiling.results import Results
from perfkit.profiling.stacks import Stacks

CPU_KEYS = {"total_time", "methods"}
MEMORY_KEYS = {
    "total_allocated",
    "total_retained",
    "allocated_objects",
    "retained_objects",
    "allocated_memory_by_file",
    "allocated_memory_by_location",
}
BENCHMARK_KEYS = {"operation", "iterations", "avg_time", "min_time", "max_time", "std_deviation", "percentiles"}


@pytest.fixture
def profiler() -> Profiler:
    return Profiler(tracker=PerformanceTracker(), slow_capture="off")


def spin(seconds: float = 0.3) -> str:
    deadline = time.thread_time() + seconds
    while time.thread_time() < deadline:
        pass
    return "done"


def test_functions_that_only_call_others_are_told_from_the_innermost() -> None:
    callers = tuple(f"caller {number:02}" for number in range(40))
    told = [method["name"] for method in Stacks({(*callers, "work"): 1.0}).methods(3)]
    assert told == ["work", "caller 39", "caller 38"]


@pytest.mark.parametrize("engine", ["pyinstrument", "sampler"])
def test_cpu_profile_of_a_function_returns_its_value_and_finds_the_place(profiler: Profiler, engine: str) -> None:
    needs_module("pyinstrument")
    assert profiler.cpu_profile("spin", fn=spin, engine=engine) == "done"
    [found] = profiler.get_performance_summary("spin_cpu")
    assert found.keys() >= CPU_KEYS
    assert found["engine"] == engine
    assert any(method["name"].startswith("spin ") for method in found["methods"])
    assert set(found["methods"][0]) == {"name", "total_time", "self_time", "calls"}
    assert json.loads(json.dumps(found)) == found


def test_cpu_profile_of_a_block_leaves_its_report(profiler: Profiler) -> None:
    with profiler.cpu_profile("block", engine="sampler") as run:
        spin()
    assert run.report.operation == "block"
    assert profiler.find(run.report.id) is run.report


def test_a_second_profiler_in_a_thread_is_refused_and_the_first_goes_on(profiler: Profiler) -> None:
    needs_module("pyinstrument")
    with profiler.cpu_profile("outer", engine="pyinstrument") as outer:
        with pytest.raises(RuntimeError, match="being profiled already"), profiler.cpu_profile("inner"):
            pass
        spin()
    assert sys.getprofile() is None
    assert outer.report.samples > 0


def test_a_recording_sees_all_threads_and_does_not_hold_up_the_caller(profiler: Profiler) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    recording = profiler.cpu_profile("all", duration=60.0)
    spin()
    report = recording.stop()
    stop.set()
    thread.join()
    names = " ".join(name for stack in report.stacks.seconds for name in stack)
    assert "spin (" in names
    assert "Event.wait (" in names
    assert profiler.get_performance_summary("all_cpu")[0]["id"] == report.id


def test_a_recording_ends_by_itself(profiler: Profiler) -> None:
    assert profiler.cpu_profile("short", 0.05).report.samples >= 1


def test_no_more_than_two_recordings_run_at_a_time(profiler: Profiler) -> None:
    running = [profiler.cpu_profile("a", 60.0) for _ in range(2)]
    with pytest.raises(RuntimeError, match="2 recordings"):
        profiler.cpu_profile("a", 60.0)
    profiler.close()
    assert all(one.report for one in running)
    profiler.cpu_profile("a", 60.0).stop()


@pytest.mark.parametrize("engine", ["rss", "tracemalloc", "memray"])
def test_memory_profile_returns_the_value_and_sees_what_was_taken(profiler: Profiler, engine: str) -> None:
    if engine == "memray":
        needs_module("memray")
    size = 30_000_000
    value = profiler.memory_profile("load", partial(bytearray, size), engine=engine)
    assert len(value) == size
    [found] = profiler.get_performance_summary("load_memory")
    assert found.keys() >= MEMORY_KEYS
    assert found["total_allocated"] > size * 0.8
    assert found["total_retained"] > size * 0.8
    if engine != "rss":
        assert found["allocated_memory_by_location"][0]["bytes"] >= size
        assert len(found["allocated_memory_by_file"]) <= 10


def test_the_peak_of_resident_memory_is_seen_though_it_is_gone_at_the_end(profiler: Profiler) -> None:
    with profiler.memory_profile("peak") as run:
        held = bytearray(50_000_000)
        watcher = run._engine
        deadline = time.monotonic() + 10
        while watcher._peak - watcher._before < 40_000_000 and time.monotonic() < deadline:
            pass
        del held
    assert run.report.rss_peak - run.report.rss_after > 30_000_000


def test_tracemalloc_is_used_by_one_block_at_a_time_and_never_taken_from_the_application(profiler: Profiler) -> None:
    with profiler.memory_profile("a", engine="tracemalloc"):
        with pytest.raises(RuntimeError, match="another block"), profiler.memory_profile("b", engine="tracemalloc"):
            pass
        assert tracemalloc.is_tracing()
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    with pytest.raises(RuntimeError, match="application"), profiler.memory_profile("b", engine="tracemalloc"):
        pass
    assert tracemalloc.is_tracing()
    tracemalloc.stop()


def table(count: int) -> int:
    rows = [0] * count
    return len(rows)


@untraced
def test_lines_of_a_function_come_from_memory_profiler(profiler: Profiler) -> None:
    needs_module("memory_profiler")
    assert profiler.memory_profile("table", partial(table, 1000), engine="lines") == 1000
    [found] = profiler.get_performance_summary("table_memory")
    assert "rows = [0] * count" in found["text"]
    with pytest.raises(TypeError, match="give it as fn"):
        profiler.memory_profile("table", engine="lines")


def test_an_error_of_the_function_passes_and_the_report_is_kept(profiler: Profiler) -> None:
    with pytest.raises(ZeroDivisionError):
        profiler.memory_profile("bad", lambda: 1 / 0)
    assert len(profiler.get_performance_summary("bad_memory")) == 1


def test_results_do_not_overwrite_each_other_and_are_bounded(profiler: Profiler) -> None:
    for _ in range(12):
        profiler.benchmark("none", lambda: None, 1)
    assert len(profiler.get_performance_summary("none_benchmark")) == 10


def test_of_too_many_names_the_first_is_forgotten_for_a_new_one_alone() -> None:
    results = Results(FakeClock())
    for number in range(500):
        results.add(MemoryReport, str(number), {"engine": "rss"})
    results.add(MemoryReport, "499", {"engine": "rss"})
    assert results.names()[0] == "0_memory"
    results.add(MemoryReport, "500", {"engine": "rss"})
    assert (len(results.names()), results.names()[0]) == (500, "1_memory")


def test_benchmark_has_the_keys_of_the_guide_and_loops_for_fast_functions(profiler: Profiler) -> None:
    report = profiler.benchmark("none", lambda: None, iterations=20)
    assert report.to_dict().keys() >= BENCHMARK_KEYS
    assert set(report.percentiles) == {"p50", "p90", "p95", "p99"}
    assert report.iterations == 20
    assert report.loops > 100
    assert report.min_time <= report.median <= report.percentiles["p99"] <= report.max_time


def test_benchmark_calls_a_slow_function_once_a_sample(profiler: Profiler) -> None:
    calls: list[int] = []

    def slow() -> None:
        calls.append(threading.get_ident())
        spin(0.002)

    report = profiler.benchmark("slow", slow, iterations=5, threads=3)
    assert (report.loops, report.threads) == (1, 3)
    warm_up_and_calibration = calls.count(threading.get_ident())
    assert len(calls) - warm_up_and_calibration == 15
    assert len(set(calls)) == 4


def test_benchmark_ends_with_the_error_of_the_function(profiler: Profiler) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        if len(calls) > 20:
            raise LookupError("x")
        spin(0.001)

    with pytest.raises(LookupError):
        profiler.benchmark("bad", fail, threads=2)


@pytest.mark.parametrize("bad", [{"iterations": 0}, {"threads": 0}])
def test_a_benchmark_of_nothing_is_refused(profiler: Profiler, bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        profiler.benchmark("x", lambda: None, **bad)


def test_unknown_engines_are_named_with_the_known_ones(profiler: Profiler) -> None:
    with pytest.raises(UnknownNameError, match="pyinstrument, sampler"):
        profiler.cpu_profile("x", engine="perf")
    with pytest.raises(UnknownNameError, match="memray, rss, tracemalloc"):
        profiler.memory_profile("x", engine="psutil")


def test_export_writes_the_form_of_the_suffix(profiler: Profiler, tmp_path: Path) -> None:
    profiler.cpu_profile("<b>spin", fn=spin, engine="sampler")
    page = profiler.export(tmp_path / "all.html").read_text()
    assert "<svg" in page
    assert "<b>spin" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    document = json.loads(profiler.export(tmp_path / "all.json").read_text())
    [profile] = document["profiles"]
    assert len(profile["samples"]) == len(profile["weights"])
    assert max(place for sample in profile["samples"] for place in sample) < len(document["shared"]["frames"])
    assert sum(profile["weights"]) == pytest.approx(profile["endValue"])
    lines = profiler.export(tmp_path / "all.collapsed").read_text().splitlines()
    assert all(line.rpartition(" ")[2].isdigit() for line in lines)
    with pytest.raises(ValueError, match=r"known: \.html"):
        profiler.export(tmp_path / "all.pdf")
    with pytest.raises(ValueError, match="nothing to export"):
        profiler.export(tmp_path / "none.html", "other")
