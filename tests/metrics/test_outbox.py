from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from _forks import in_child

from perfkit.metrics import PerformanceTracker
from perfkit.metrics.outbox import Outbox

if TYPE_CHECKING:
    from perfkit.clock import FakeClock


@pytest.fixture
def quiet(make: Callable[..., PerformanceTracker]) -> PerformanceTracker:
    """Return a tracker whose background thread has nothing to do in the time of a test."""
    return make(flush_interval=3600)


class Refusing:
    """A sink that must not be reached from where values are recorded."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.allowed = False

    def emit(self, kind: str, name: str, value: float, tags: Any) -> None:
        assert self.allowed
        self.values.append(value)

    def flush(self) -> None: ...
    def close(self) -> None: ...


def test_recording_leaves_the_sinks_alone_and_flushing_gives_them_all_in_order(quiet: PerformanceTracker) -> None:
    sink: Any = quiet.add_sink(Refusing())
    handle = quiet.handle("x")
    for n in range(10_000):
        handle.record(float(n))
    sink.allowed = True
    quiet.flush()
    assert sink.values == list(range(10_000))


def test_what_waits_is_bounded_and_the_oldest_is_dropped_and_counted(clock: FakeClock) -> None:
    tracker = PerformanceTracker(clock=clock, flush_interval=3600)
    sink: Any = tracker.add_sink("memory", size=1_000_000)
    handle = tracker.handle("x")
    for n in range(500_000):
        handle.record(float(n))
    dropped = tracker.get_stats("metrics_dropped")["sum"]
    tracker.flush()
    values = [one.value for one in sink.emitted if one.name == "x"]
    assert len(values) + dropped == 500_000
    assert values == [float(n) for n in range(500_000 - len(values), 500_000)]
    assert 100_000 < len(values) < 200_000
    assert [one.value for one in sink.emitted if one.name == "metrics_dropped"] == [dropped]


def test_without_sinks_nothing_waits(quiet: PerformanceTracker) -> None:
    for _ in range(10_000):
        quiet.record_metric("x", 1.0)
    assert len(quiet._series._outbox._batches) == 0


def test_a_sink_that_fails_does_not_cost_the_others_theirs(quiet: PerformanceTracker) -> None:
    quiet.add_sink(Refusing())
    good: Any = quiet.add_sink("memory")
    for _ in range(1000):
        quiet.record_metric("x", 1.0)
    quiet.flush()
    assert len(good.emitted) == 1000


def test_threads_lose_nothing_while_another_delivers(quiet: PerformanceTracker) -> None:
    sink: Any = quiet.add_sink("memory", size=1_000_000)
    handle, done = quiet.handle("x"), threading.Event()

    def deliver() -> None:
        while not done.is_set():
            quiet._series.deliver()

    def record() -> None:
        for _ in range(20_000):
            handle.record(1.0)

    delivering, threads = threading.Thread(target=deliver), [threading.Thread(target=record) for _ in range(4)]
    for thread in (delivering, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    delivering.join()
    quiet.flush()
    dropped = quiet.get_stats("metrics_dropped").get("sum", 0)
    assert sum(one.name == "x" for one in sink.emitted) + dropped == 80_000


def test_a_forked_child_does_not_hand_on_what_its_parent_has_waiting(quiet: PerformanceTracker) -> None:
    sink: Any = quiet.add_sink("memory")
    handle = quiet.handle("x")
    for _ in range(1000):
        handle.record(1.0)

    def work() -> int:
        quiet.flush()
        return len(sink.emitted)

    assert in_child(work) == 0
    quiet.flush()
    assert len(sink.emitted) == 1000


def test_making_room_may_record_itself() -> None:
    """Losing is counted by a metric, whose own batches come here too."""
    told: list[int] = []

    def dropped(n: int) -> None:
        told.append(n)
        outbox.put(None, [1.0])  # type: ignore[arg-type]

    outbox = Outbox(dropped)
    for _ in range(1000):
        outbox.put(None, [1.0] * 1000)  # type: ignore[arg-type]
    assert told
