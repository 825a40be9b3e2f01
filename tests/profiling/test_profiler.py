from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from _servers import environment

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.profiling import Profiler


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker()


@pytest.fixture
def profiler(tracker: PerformanceTracker) -> Profiler:
    return Profiler(clock=FakeClock(wall=5.0), tracker=tracker, history=3, slow_capture="off")


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


def test_static_and_class_methods_are_measured_below_and_above_their_decorators(profiler: Profiler) -> None:
    class Shop:
        @profiler.profile("sum")
        @staticmethod
        def total(*prices: int) -> int:
            return sum(prices)

        @profiler.profile
        @classmethod
        def name(cls) -> str:
            return cls.__name__

        @classmethod
        @profiler.profile
        def again(cls) -> str:
            return cls.__name__

    assert (Shop.total(1, 2), Shop().total(3)) == (3, 3)
    assert (Shop.name(), Shop().name(), Shop.again()) == ("Shop", "Shop", "Shop")
    assert len(profiler.get_performance_summary("sum")) == 2
    assert len(profiler.get_performance_summary(Shop.name.__qualname__)) == 2


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
    with pytest.raises(TypeError, match="measures functions, not 3"):
        profiler.profile("three")(3)  # type: ignore[arg-type]


def test_time_between_the_steps_of_a_generator_is_not_its_own(tracker: PerformanceTracker) -> None:
    clock = FakeClock()
    profiler = Profiler(clock=clock, tracker=tracker, slow_capture="off")

    @profiler.profile("gen")
    def work() -> Iterator[int]:
        clock.advance(1.0)
        yield 1
        clock.advance(2.0)

    for _ in work():
        clock.advance(100.0)
    [run] = profiler.get_performance_summary("gen")
    assert run["duration"] == pytest.approx(3.0)


def test_a_generator_gets_what_is_sent_and_thrown_and_returns_its_value(profiler: Profiler) -> None:
    @profiler.profile("gen")
    def echo() -> Generator[Any, Any, str]:
        got = yield "ready"
        try:
            yield got
        except LookupError:
            return "thrown"
        return "sent"

    generator = echo()
    assert next(generator) == "ready"
    assert generator.send(5) == 5
    with pytest.raises(StopIteration, match="thrown"):
        generator.throw(LookupError())
    assert profiler.get_performance_summary("gen")[0]["success"]


def test_asynchronous_functions_are_refused(profiler: Profiler) -> None:
    async def work() -> None:
        """Do nothing."""

    with pytest.raises(TypeError, match="asynchronous"):
        profiler.profile(work)


def test_a_block_that_is_measuring_cannot_be_entered_again(profiler: Profiler) -> None:
    run = profiler.profile("op")
    with run, pytest.raises(RuntimeError, match="call profile"), run:
        pass
    with run:
        pass
    assert len(profiler.get_performance_summary("op")) == 2


def test_collections_during_a_run_are_counted_with_their_time(profiler: Profiler) -> None:
    with profiler.profile("first"):
        pass
    with profiler.profile("op") as run:
        gc.collect()
    assert run.report is not None
    assert run.report.gc_count >= 1
    assert run.report.gc_time > 0


def test_memory_is_read_after_slow_runs_only(tracker: PerformanceTracker) -> None:
    clock = FakeClock()
    profiler = Profiler(clock=clock, tracker=tracker, slow_capture="off")
    with profiler.profile("quick") as quick:
        pass
    with profiler.profile("slow") as slow:
        clock.advance(0.01)
        held = bytearray(60_000_000)
    assert quick.report is not None
    assert quick.report.memory_delta is None
    assert slow.report is not None
    assert slow.report.memory_delta is not None
    assert slow.report.memory_delta > len(held) / 2


def test_cpu_time_is_that_of_the_thread_alone(tracker: PerformanceTracker) -> None:
    profiler, stop = Profiler(tracker=tracker, slow_capture="off"), threading.Event()

    def busy() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=busy)
    with profiler.profile("op") as run:
        thread.start()
        stop.wait(0.2)
        stop.set()
        thread.join()
    assert run.report is not None
    assert run.report.cpu_time is not None
    assert run.report.cpu_time < 0.1


def test_of_a_run_too_short_for_the_cpu_clock_the_duration_is_taken(tracker: PerformanceTracker) -> None:
    clock = FakeClock()
    profiler = Profiler(clock=clock, tracker=tracker, slow_capture="off")
    work = profiler.profile("function")(clock.advance)
    for seconds in (10e-6, 50.0):
        work(seconds)
        with profiler.profile("block"):
            clock.advance(seconds)
    for name in ("function", "block"):
        brief, long = profiler.get_performance_summary(name)
        assert brief["cpu_time"] == brief["duration"] == pytest.approx(10e-6, rel=0.01)
        assert 0 < long["cpu_time"] < 10


def test_the_slowest_runs_outlive_the_ring(tracker: PerformanceTracker) -> None:
    clock = FakeClock()
    profiler = Profiler(clock=clock, tracker=tracker, slow_capture="off", history=2, slowest=3)
    for seconds in (1.0, 9.0, 2.0, 8.0, 3.0, 0.5):
        with profiler.profile("op"):
            clock.advance(seconds)
    assert [round(run.duration) for run in profiler.slowest("op")] == [9, 8, 3]


def test_too_many_names_share_one_place(profiler: Profiler) -> None:
    for number in range(510):
        with profiler.profile(f"user {number}"):
            pass
    summary = profiler.get_performance_summary()
    assert len(summary) == 501
    assert len(summary["perfkit.overflow"]) == 3


def test_decorated_functions_are_measured_on_after_a_reset(profiler: Profiler) -> None:
    work = profiler.profile("op")(lambda: None)
    work()
    profiler.reset()
    work()
    assert len(profiler.get_performance_summary("op")) == 1


FORKED_BARE = """
import ctypes, os, signal, sys, threading
from perfkit.profiling import Profiler

profiler = Profiler(slow_capture="off")
known = profiler.profile("known")(lambda: None)
held, locks = threading.Event(), [profiler._lock, profiler.operation("known")._lock]

def hold():
    for lock in locks:
        lock.acquire()
    held.set()
    threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
sys.setswitchinterval(5.0)  # nobody may be asking for the interpreter
pid = ctypes.PyDLL(None).fork()  # as C code does it: no hook runs
if pid == 0:
    signal.alarm(5)
    {first}
    os._exit(0)
os._exit(os.waitpid(pid, 0)[1] != 0)
"""


@pytest.mark.parametrize("first", ["known()", "profiler.profile('new')(lambda: None)()"])
def test_a_child_forked_without_hooks_profiles_though_its_parent_held_the_locks(first: str) -> None:
    program = FORKED_BARE.format(first=first)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
