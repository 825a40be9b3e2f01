from __future__ import annotations

from collections.abc import Iterator

import pytest

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.profiling import Profiler


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker()


@pytest.fixture
def profiler(tracker: PerformanceTracker) -> Profiler:
    return Profiler(clock=FakeClock(wall=5.0), tracker=tracker, history=3)


def test_a_decorated_function_keeps_its_value_name_and_signature(profiler: Profiler) -> None:
    @profiler.profile
    def double(n: int) -> int:
        """Twice."""
        return 2 * n

    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    [run] = profiler.get_performance_summary(double.__qualname__)
    assert run["success"]
    assert run["error"] is None
    assert run["timestamp"] == 5.0
    assert run["duration"] >= 0


def test_a_failing_function_raises_its_own_error_and_is_recorded(profiler: Profiler) -> None:
    @profiler.profile("op")
    def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        fail()
    [run] = profiler.get_performance_summary("op")
    assert (run["success"], run["error"]) == (False, "LookupError")


def test_a_block_leaves_its_report(profiler: Profiler) -> None:
    with profiler.profile("block") as run:
        before = run.report
    assert before is None
    assert run.report is not None
    assert run.report.operation == "block"


def test_a_recursive_function_is_measured_at_every_depth(profiler: Profiler) -> None:
    @profiler.profile("down")
    def down(n: int) -> int:
        return n if n == 0 else down(n - 1)

    assert down(2) == 0
    durations = [run["duration"] for run in profiler.get_performance_summary("down")]
    assert len(durations) == 3
    assert durations == sorted(durations)


def test_a_generator_is_measured_until_it_ends_or_is_left(profiler: Profiler) -> None:
    @profiler.profile("gen")
    def count() -> Iterator[int]:
        yield 1
        yield 2

    assert list(count()) == [1, 2]
    left = count()
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert [run["success"] for run in profiler.get_performance_summary("gen")] == [True, True]


def test_only_the_latest_runs_are_kept(profiler: Profiler) -> None:
    for _ in range(10):
        with profiler.profile("op"):
            pass
    assert len(profiler.get_performance_summary("op")) == 3
    profiler.configure(history=2)
    assert len(profiler.get_performance_summary()["op"]) == 2
    profiler.reset()
    assert profiler.get_performance_summary() == {}


def test_durations_go_to_the_tracker(profiler: Profiler, tracker: PerformanceTracker) -> None:
    with profiler.profile("op"):
        pass
    assert tracker.get_stats("operation_duration", tags={"operation": "op", "success": True})["count"] == 1


def test_anything_else_is_refused(profiler: Profiler) -> None:
    with pytest.raises(TypeError, match="name or a function"):
        profiler.profile(3)  # type: ignore[call-overload]
