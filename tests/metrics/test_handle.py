from __future__ import annotations

import decimal
import fractions
import gc
import math
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from _forks import in_child

from perfkit.clock import SYSTEM_CLOCK
from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from perfkit.clock import FakeClock


def counted(tracker: PerformanceTracker, name: str = "x") -> float:
    return tracker.get_stats(name).get("count", 0)


# --- values


@pytest.mark.parametrize("value", [1, 1.5, 0, -2.5, 10**20, fractions.Fraction(1, 4), decimal.Decimal("2.5")])
def test_finite_numbers_are_taken(tracker: PerformanceTracker, value: Any) -> None:
    tracker.handle("x").record(value)
    stats = tracker.get_stats("x")
    assert (stats["count"], stats["sum"], stats["p50"]) == (1, float(value), float(value))
    assert tracker.get_stats("metrics_refused") == {}


REFUSED = [math.nan, math.inf, -math.inf, True, False, None, "1", b"1", 1j, [1.0], object(), 10**400]


@pytest.mark.parametrize(
    "value", [*REFUSED, decimal.Decimal("NaN"), decimal.Decimal("sNaN")], ids=lambda value: type(value).__name__
)
def test_everything_else_is_refused_and_counted(tracker: PerformanceTracker, value: Any) -> None:
    handle = tracker.handle("x")
    handle.record(1.0)
    handle.record(value)
    handle.record(2.0)
    assert tracker.get_stats("x")["sum"] == 3.0
    assert tracker.get_stats("metrics_refused")["sum"] == 1


def test_a_refused_value_does_not_cost_its_batch(tracker: PerformanceTracker) -> None:
    handle = tracker.handle("x")
    for i in range(1000):
        handle.record(math.nan if i % 10 == 0 else 1.0)
    assert tracker.get_stats("x")["count"] == 900
    assert tracker.get_stats("metrics_refused")["sum"] == 100


def test_values_recorded_one_by_one_and_in_batches_are_all_counted(tracker: PerformanceTracker) -> None:
    handle = tracker.handle("x")
    for i in range(1, 1001):
        handle.record(i)
        if i in {1, 255, 256, 257, 511, 512, 1000}:
            assert tracker.get_stats("x")["count"] == i
    assert tracker.get_stats("x")["sum"] == 500_500


# --- slots


def test_a_value_belongs_to_the_slot_it_was_recorded_in(tracker: PerformanceTracker, clock: FakeClock) -> None:
    handle, start = tracker.handle("x"), clock.wall()
    for _ in range(4):
        handle.record(1.0)
        clock.advance(10)
    for at in (start, start + 10, start + 20, start + 30):
        assert tracker.get_stats("x", since=at, until=at + 10)["count"] == 1


def test_slots_begin_at_multiples_of_ten_seconds(tracker: PerformanceTracker, clock: FakeClock) -> None:
    """So that the slots of all processes fit on one another."""
    handle, start = tracker.handle("x"), clock.wall()
    clock.advance(7)
    handle.record(1.0)
    clock.advance(5)
    handle.record(1.0)
    assert [tracker.get_stats("x", since=at, until=at + 10)["count"] for at in (start, start + 10)] == [1, 1]


def test_values_left_in_the_buffer_keep_their_time(tracker: PerformanceTracker, clock: FakeClock) -> None:
    start = clock.wall()
    tracker.handle("x").record(1.0)
    clock.advance(3000)
    assert tracker.get_stats("x", since=start, until=start + 10)["count"] == 1
    assert tracker.get_stats("x", since=start + 60) == {}


def test_a_clock_set_back_loses_nothing(tracker: PerformanceTracker, clock: FakeClock) -> None:
    handle = tracker.handle("x")
    handle.record(1.0)
    clock._wall -= 300
    clock.advance(10)
    handle.record(2.0)
    assert tracker.get_stats("x")["count"] == 2


# --- threads, signals, collector


def test_threads_lose_nothing_while_others_query() -> None:
    tracker = PerformanceTracker()
    handle, threads, each = tracker.handle("x"), 8, 100_000
    barrier, done = threading.Barrier(threads + 1), threading.Event()

    def record() -> None:
        barrier.wait()
        for _ in range(each):
            handle.record(1.0)

    def query() -> None:
        seen = 0.0
        while not done.is_set():
            now = counted(tracker)
            assert now >= seen
            seen = now

    workers = [threading.Thread(target=record) for _ in range(threads)]
    reader = threading.Thread(target=query)
    for thread in (*workers, reader):
        thread.start()
    barrier.wait()
    for thread in workers:
        thread.join()
    done.set()
    reader.join()
    stats = tracker.get_stats("x")
    assert (stats["count"], stats["sum"]) == (threads * each, threads * each)


def test_threads_making_the_same_series_share_it(tracker: PerformanceTracker) -> None:
    barrier = threading.Barrier(8)

    def record() -> None:
        barrier.wait()
        for i in range(200):
            tracker.record_metric("x", 1.0, {"n": i})

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.get_stats("x")["count"] == 1600
    assert len(tracker._series.handles()) == 200


def test_recording_does_not_wait_for_a_lock_that_is_taken(tracker: PerformanceTracker, clock: FakeClock) -> None:
    handle = tracker.handle("x")
    handle.record(1.0)
    with handle._lock:  # a query, or this very thread interrupted
        for _ in range(2000):
            handle.record(1.0)
        clock.advance(10)
        handle.record(1.0)
    assert counted(tracker) == 2002


def test_a_value_that_comes_during_a_drain_is_not_lost(tracker: PerformanceTracker) -> None:
    class Busy(list[float]):
        """Another thread appends as soon as the buffer has been read."""

        def __getitem__(self, key: Any) -> Any:
            read = super().__getitem__(key)
            if read:
                late.append(1.0)
                self.append(1.0)
            return read

    handle, late = tracker.handle("x"), list[float]()
    handle.record(1.0)
    handle._buffer = Busy(handle._buffer)
    assert [counted(tracker) for _ in range(3)] == [1, 2, 3]
    assert len(late) == 3


def test_a_series_may_be_made_while_this_thread_makes_one(tracker: PerformanceTracker) -> None:
    """A collector callback or signal handler may record in the midst of it."""
    with tracker._series._lock:
        tracker.increment("new")
    assert counted(tracker, "new") == 1


def test_signal_handlers_and_collector_callbacks_may_record() -> None:
    tracker = PerformanceTracker()
    handle, interrupts = tracker.handle("x"), 0

    def interrupt(*_: object) -> None:
        nonlocal interrupts
        interrupts += 1
        handle.record(1.0)
        tracker.record_metric("new", 1.0, {"n": interrupts})

    def collected(phase: str, _: dict[str, int]) -> None:
        tracker.increment("gc_count", tags={"phase": phase})

    previous = signal.signal(signal.SIGALRM, interrupt)
    gc.callbacks.append(collected)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        recorded, deadline = 0, time.monotonic() + 20
        while interrupts < 200 and time.monotonic() < deadline:
            handle.record(1.0)
            recorded += 1
            gc.collect(0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        gc.callbacks.remove(collected)
    assert counted(tracker) == recorded + interrupts
    assert counted(tracker, "new") == interrupts
    assert counted(tracker, "gc_count") >= 2 * recorded


# --- increment, timer


def test_increment_counts_beside_the_values_of_the_same_name(tracker: PerformanceTracker) -> None:
    memory = tracker.add_sink("memory")
    handle = tracker.handle("x", {"a": "b"})
    handle.increment()
    handle.increment(4)
    handle.record(10.0)
    tracker.flush()
    assert tracker.get_stats("x")["sum"] == 15
    assert {(kind, value) for kind, _, value, _ in memory.emitted} == {("counter", 5.0), ("value", 10.0)}  # type: ignore[attr-defined]
    assert {tuple(tags.items()) for *_, tags in memory.emitted} == {(("a", "b"),)}  # type: ignore[attr-defined]


def test_a_timer_records_the_seconds_of_its_block(tracker: PerformanceTracker, clock: FakeClock) -> None:
    with tracker.handle("x", {"a": "b"}).timer() as timer:
        clock.advance(1.25)
    assert timer.seconds == 1.25
    assert tracker.get_stats("x", tags={"a": "b"})["sum"] == 1.25


def test_a_timer_records_failing_blocks_too(tracker: PerformanceTracker, clock: FakeClock) -> None:
    def fail() -> None:
        with tracker.timer("x"):
            clock.advance(2)
            raise LookupError

    for work in (fail, tracker.timer("x")(fail)):
        with pytest.raises(LookupError):
            work()
    assert (tracker.get_stats("x")["count"], tracker.get_stats("x")["sum"]) == (3, 6)


def test_a_decorated_function_is_timed_on_every_call_even_nested(tracker: PerformanceTracker, clock: FakeClock) -> None:
    @tracker.timer("x")
    def count_down(n: int, *, step: float) -> str:
        """Doc."""
        clock.advance(step)
        return count_down(n - 1, step=step) if n else "done"

    assert count_down(2, step=1.0) == "done"
    assert (count_down.__name__, count_down.__doc__) == ("count_down", "Doc.")
    stats = tracker.get_stats("x")
    assert (stats["count"], stats["min"], stats["max"], stats["sum"]) == (3, 1.0, 3.0, 6.0)


def test_a_long_timer_counts_in_the_slot_of_its_end(tracker: PerformanceTracker, clock: FakeClock) -> None:
    start = clock.wall()
    with tracker.timer("x"):
        clock.advance(600)
    assert tracker.get_stats("x", since=start + 600)["count"] == 1


# --- fork and reset


def test_a_forked_child_counts_only_its_own(tracker: PerformanceTracker) -> None:
    handle = tracker.handle("x")
    for _ in range(300):  # some in the sketch, some in the buffer
        handle.record(1.0)
    tracker.start_timer("op")

    def work() -> Any:
        before = (tracker.names(), tracker.end_timer("op"))
        handle.record(5.0)
        tracker.record_metric("x", 5.0)
        return (*before, tracker.get_stats("x")["sum"], counted(tracker))

    assert in_child(work) == ([], None, 10.0, 2)
    assert counted(tracker) == 300


def test_locks_held_at_fork_do_not_hang_the_child(tracker: PerformanceTracker) -> None:
    handle = tracker.handle("x")
    handle.record(1.0)

    def work() -> Any:
        handle.record(1.0)
        tracker.record_metric("new", 1.0)
        tracker.add_sink("memory")
        tracker.flush()
        return [counted(tracker), tracker.names()]

    with handle._lock, tracker._series._lock, tracker._lock:
        assert in_child(work) == [1, ["new", "x"]]


def test_where_no_fork_hook_runs_the_process_id_tells(
    tracker: PerformanceTracker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> Any:
        tracker.record_metric("x", 1.0)
        monkeypatch.setattr(os, "getpid", lambda: 1)  # as after a fork whose hooks have not run
        clock.advance(10)
        tracker.record_metric("x", 1.0)
        return sum(slot[2]["count"] for handle in tracker._series.handles() for slot in handle._window.dump())

    assert in_child(lambda: [work(), counted(tracker)]) == [0, 1]


def test_a_handle_flushed_before_its_first_value_counts_all(tracker: PerformanceTracker) -> None:
    handle = tracker.handle("x")
    handle.flush()
    handle.record(1.0)
    assert counted(tracker) == 1


def test_a_handle_stays_good_after_reset(tracker: PerformanceTracker) -> None:
    handle = tracker.handle("x", {"a": 1})
    handle.record(1.0)
    tracker.reset()
    assert tracker.get_stats("x") == {}
    assert tracker.names() == []
    handle.record(2.0)
    tracker.record_metric("x", 3.0, {"a": 1})
    assert tracker.get_stats("x")["sum"] == 5.0
    assert tracker.handle("x", {"a": 1}) is handle


def test_the_system_clock_reads_without_a_python_frame() -> None:
    assert PerformanceTracker().handle("x")._now is SYSTEM_CLOCK.now is time.monotonic
