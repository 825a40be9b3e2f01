"""Slow runs are caught in the act, with the right stack, and nothing else is."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.operations import Operations, Step
from perfkit.profiling import Profiler, SlowRun, frames
from perfkit.profiling.pauses import Pause
from perfkit.profiling.slow import INTERVAL


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=5.0)


@pytest.fixture
def profiler(clock: FakeClock) -> Profiler:
    """Return a profiler whose watchdog looks only when told to."""
    tracker = PerformanceTracker(clock=clock)
    return Profiler(clock=clock, tracker=tracker, running=Operations(clock.now), slow_capture="off", slow_threshold=0.5)


class Worker:
    """A thread inside of a profiled call, held at a lock in a line of its own."""

    def __init__(self, profiler: Profiler, name: str = "work") -> None:
        self._gate, self._inside = threading.Lock(), threading.Event()
        self._gate.acquire()
        self.thread = threading.Thread(target=profiler.profile(name)(self.hold), name=f"worker-{name}")
        self.thread.start()
        assert self._inside.wait(10)

    def hold(self) -> None:
        self._inside.set()
        self._gate.acquire()

    def finish(self) -> None:
        self._gate.release()
        self.thread.join()


@pytest.fixture
def start(profiler: Profiler) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def begin(name: str = "work") -> Worker:
        workers.append(Worker(profiler, name))
        return workers[-1]

    yield begin
    for worker in workers:
        if worker.thread.is_alive():
            worker.finish()


def scan(profiler: Profiler, clock: FakeClock, seconds: float) -> None:
    """Let time pass as a watchdog sees it that always gets its turn."""
    for _ in range(round(seconds / INTERVAL)):
        clock.advance(INTERVAL)
        profiler._watchdog.scan()


def test_a_run_is_caught_once_past_the_threshold_and_again_at_two_and_four_times(
    profiler: Profiler, clock: FakeClock, start: Callable[..., Worker]
) -> None:
    worker = start()
    scan(profiler, clock, 0.45)
    assert profiler.slow_captures() == []
    scan(profiler, clock, 5.0)
    [slow] = profiler.slow_captures()
    assert [round(one.age, 2) for one in slow.captures] == [0.5, 1.0, 2.0]
    assert (slow.operation, slow.thread, slow.began, slow.duration) == ("work", "worker-work", 5.0, None)
    where = slow.where
    assert where is not None
    assert where.function == "Worker.hold"
    worker.finish()
    assert slow.duration == pytest.approx(5.45)
    [told] = profiler.get_performance_summary("work_slow")
    assert told["where"].startswith("Worker.hold (")
    assert told["captures"][0]["stack"][-1].startswith("Worker.hold")


def test_slow_runs_are_on_the_exported_page_and_among_the_stacks(
    profiler: Profiler, clock: FakeClock, start: Callable[..., Worker], tmp_path: Path
) -> None:
    start("<b>work")
    scan(profiler, clock, 1.2)
    page = profiler.export(tmp_path / "slow.html").read_text()
    assert page.count("<h3>after ") == 2
    assert "Worker.hold" in page
    assert "<b>work" not in page
    assert "Worker.hold" in profiler.export(tmp_path / "slow.collapsed").read_text()


def test_an_operation_that_is_always_slow_is_left_alone_until_it_is_slower_still(
    profiler: Profiler, clock: FakeClock, start: Callable[..., Worker]
) -> None:
    for _ in range(30):
        with profiler.profile("work"):
            clock.advance(1.0)
    start()
    scan(profiler, clock, 2.8)
    assert profiler.slow_captures() == []
    scan(profiler, clock, 0.3)
    [slow] = profiler.slow_captures()
    assert slow.limit == pytest.approx(3.0, rel=0.01)


def test_quick_runs_beside_a_slow_one_are_not_caught(
    profiler: Profiler, clock: FakeClock, start: Callable[..., Worker]
) -> None:
    start("stuck")
    for _ in range(30):
        with profiler.profile("quick"):
            scan(profiler, clock, INTERVAL)
    assert [slow.operation for slow in profiler.slow_captures()] == ["stuck"]


def test_what_fell_into_the_time_of_a_slow_run_is_told(
    profiler: Profiler, clock: FakeClock, start: Callable[..., Worker]
) -> None:
    worker = start()
    thread = worker.thread.ident
    assert thread is not None
    running = profiler._running
    began = clock.now()
    running.finished.append(running_step("connection", thread, began + 0.1, began + 0.3))
    running.finished.append(running_step("connection", thread + 1, began + 0.1, began + 0.3))
    running.finished.append(running_step("provider", thread, began - 2.0, began - 1.0))
    running.open[1] = running_step("provider", thread, began + 0.3, None)[:4]
    profiler._seen._pauses.append(gc_pause(began + 0.2, began + 0.25))
    scan(profiler, clock, 0.6)
    [slow] = profiler.slow_captures()
    told = {one["kind"]: round(one["seconds"], 2) for one in slow.overlapped}
    assert told == {"gc": 0.05, "connection": 0.2, "provider": 0.2}
    profiler._seen._pauses.clear()


def running_step(kind: str, thread: int, began: float, ended: float | None) -> Step:
    return Step(kind, "a", thread, began, ended)


def gc_pause(began: float, ended: float) -> Pause:
    return Pause(2, began, ended)


def test_runs_that_only_waited_for_the_interpreter_are_not_blamed(
    profiler: Profiler, clock: FakeClock, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    guilty, innocent = start("guilty"), start("innocent")
    scan(profiler, clock, 0.1)
    used = {guilty.thread.ident: 1e9, innocent.thread.ident: 0.0}
    monkeypatch.setattr("perfkit.profiling.slow.cpu_seconds", used.get)
    clock.advance(0.8)  # nobody else, the watchdog included, gets a turn
    profiler._watchdog.scan()
    [slow] = profiler.slow_captures()
    assert slow.operation == "guilty"
    assert slow.held == pytest.approx(0.8)


def test_the_first_run_after_a_standstill_takes_the_stacks_before_the_caller_goes_on(
    profiler: Profiler, clock: FakeClock, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    guilty, innocent = start("guilty"), start("innocent")
    used = {guilty.thread.ident: 1e9, innocent.thread.ident: 0.0}
    monkeypatch.setattr("perfkit.profiling.slow.cpu_seconds", used.get)
    profiler._around.stand_in = profiler._watchdog.stand_in  # as in a profiler whose watchdog runs
    clock.advance(0.8)
    with profiler.profile("next"):
        guilty.finish()  # and has ended when the watchdog gets its turn
    profiler._watchdog.scan()
    [slow] = profiler.slow_captures()
    assert (slow.operation, round(slow.held, 2), round(slow.duration or 0.0, 2)) == ("guilty", 0.8, 0.8)
    assert slow.where is not None
    assert slow.where.function == "Worker.hold"
    scan(profiler, clock, 1.0)
    assert [slow.operation for slow in profiler.slow_captures()] == ["innocent", "guilty"]


def test_nobody_stands_in_for_a_watchdog_that_is_in_time_or_not_wanted(
    profiler: Profiler, clock: FakeClock, start: Callable[..., Worker]
) -> None:
    start()
    profiler._around.stand_in = profiler._watchdog.stand_in
    for _ in range(10):
        scan(profiler, clock, INTERVAL)
        with profiler.profile("next"):
            clock.advance(0.09)
    assert not profiler._watchdog._early
    profiler._watchdog.stand_in(clock.now() + 1.0)
    assert profiler._watchdog._early
    scan(profiler, clock, INTERVAL)
    assert not profiler._watchdog._early  # what is left over would be taken for the next standstill's
    profiler.configure(slow_threshold=0.1)
    clock.advance(0.8)
    with profiler.profile("next"):
        pass
    assert not profiler._watchdog._early


def test_captures_are_limited(profiler: Profiler, clock: FakeClock, start: Callable[..., Worker]) -> None:
    for number in range(12):
        start(f"work {number}")
    scan(profiler, clock, 10.0)
    captures = sum(len(slow.captures) for slow in profiler.slow_captures())
    assert captures == 30
    tracker = profiler._tracker
    assert tracker is not None
    assert tracker.get_stats("slow_captures")["sum"] == 12
    assert tracker.get_stats("slow_captures_skipped")["sum"] > 0
    profiler._watchdog.rest()
    scan(profiler, clock, INTERVAL)
    assert sum(len(slow.captures) for slow in profiler.slow_captures()) == 36


def test_a_run_whose_thread_is_gone_is_forgotten(profiler: Profiler, clock: FakeClock) -> None:
    left = profiler.profile("left")
    thread = threading.Thread(target=left.__enter__)
    thread.start()
    thread.join()
    scan(profiler, clock, 1.0)
    assert profiler.slow_captures() == []
    assert not profiler._running.running
    left.__exit__(None, None, None)
    assert left.report is not None
    assert left.report.cpu_time is None


def test_only_the_slowest_are_kept(profiler: Profiler, clock: FakeClock, start: Callable[..., Worker]) -> None:
    profiler.configure(slowest=2)
    for seconds in (0.6, 3.0, 1.0, 0.7):
        clock.advance(60.0)
        profiler._watchdog.rest()
        worker = start()
        scan(profiler, clock, seconds)
        worker.finish()
    assert sorted(round(slow.age, 1) for slow in profiler.slow_captures("work")) == [1.0, 3.0]


# --- the real thing: a real watchdog thread, real stalls, 63 other threads at work


def _asleep() -> None:
    threading.Event().wait(0.5)


def _in_a_regex() -> None:
    _until_it_takes_long(lambda size: re.match(r"(a|aa)+$", f"{'a' * size}b"), 32, 2)


def _in_a_c_call() -> None:
    _until_it_takes_long(lambda size: sum(range(1 << size)), 23, 1)


def _until_it_takes_long(call: Callable[[int], object], size: int, step: int) -> None:
    """Make calls that hold the interpreter's lock, each of twice the size of the one before, up to half a second."""
    took = 0.0
    while took < 0.5:
        began = time.thread_time()
        call(size)
        took, size = time.thread_time() - began, size + step


def _go_on() -> None:
    """Do what a request does after its slowest call, too."""
    deadline = time.thread_time() + 0.05
    while time.thread_time() < deadline:
        pass


@pytest.mark.skipif(frames.FREE_THREADED, reason="stacks are not taken on free-threaded builds")
@pytest.mark.parametrize("stall", [_asleep, _in_a_regex, _in_a_c_call])
def test_a_stall_among_64_busy_threads_is_caught_in_its_line_and_nothing_else(stall: Callable[[], None]) -> None:
    for _ in range(3):  # on a machine that is too busy a watchdog may come too late, and others be slow indeed
        caught = _stalled_once(stall)
        functions = {frame.function for one in caught for took in one.captures for frame in took.stack}
        if {slow.thread for slow in caught} == {"culprit"} and stall.__name__ in functions:
            break
    assert {slow.thread for slow in caught} == {"culprit"}
    assert stall.__name__ in functions


def _stalled_once(stall: Callable[[], None]) -> list[SlowRun]:
    profiler = Profiler(tracker=PerformanceTracker(), slow_capture="on", slow_threshold=0.25)
    over = threading.Event()

    @profiler.profile("request")
    def request() -> None:
        sum(range(500))
        over.wait(0.02)

    def serve() -> None:
        while not over.is_set():
            request()

    @profiler.profile("request")
    def stalled() -> None:
        stall()
        _go_on()

    crew = [threading.Thread(target=serve) for _ in range(63)]
    culprit = threading.Thread(target=stalled, name="culprit")
    for one in (*crew, culprit):
        one.start()
    culprit.join()
    over.set()
    for one in crew:
        one.join()
    profiler.close()
    return profiler.slow_captures()


def test_stacks_are_not_taken_where_it_is_not_wanted_or_not_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, free, expected in (
        ((3, 11), False, (False, False, True)),
        ((3, 12), False, (False, True, True)),
        ((3, 14), True, (False, False, False)),
    ):
        monkeypatch.setattr("sys.version_info", version)
        monkeypatch.setattr(frames, "FREE_THREADED", free)
        assert tuple(frames.allowed(wish) for wish in ("off", "auto", "on")) == expected


def test_no_thread_runs_before_the_first_run_nor_after_the_end() -> None:
    def names() -> list[str]:
        return [one.name for one in threading.enumerate() if one.name == "perfkit-watchdog"]

    profiler = Profiler(tracker=PerformanceTracker(), slow_capture="on")
    work = profiler.profile("work")(lambda: None)
    assert names() == []
    if frames.FREE_THREADED:
        return
    work()
    assert names() == ["perfkit-watchdog"]
    profiler.close()
    assert names() == []
    work()
    assert names() == ["perfkit-watchdog"]
    profiler.close()
