from __future__ import annotations

import enum
import gc
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.clock import FakeClock
    from perfkit.metrics import PerformanceTracker

    Make = Callable[..., PerformanceTracker]

DAY = 86_400


class Provider(str, enum.Enum):  # noqa: UP042 - what many apps have; str() of it is "Provider.OPENAI"
    OPENAI = "openai"


def test_tags_in_any_order_name_the_same_series(tracker: PerformanceTracker) -> None:
    assert tracker.handle("x", {"a": 1, "b": 2}) is tracker.handle("x", {"b": 2, "a": 1})
    assert tracker.handle("x", {}) is tracker.handle("x")


def test_tag_values_are_kept_as_text(tracker: PerformanceTracker) -> None:
    handle = tracker.handle("x", {"n": 1, "ratio": 0.5, "stream": True, "provider": Provider.OPENAI, "s": "t"})
    assert dict(handle.tags) == {"n": "1", "ratio": "0.5", "stream": "true", "provider": "openai", "s": "t"}
    assert tracker.handle("x", {"provider": "openai"}) is tracker.handle("x", {"provider": Provider.OPENAI})


def test_unhashable_tag_values_work_slowly(tracker: PerformanceTracker) -> None:
    tags: Any = {"models": ["a", "b"]}
    tracker.record_metric("x", 1.0, tags)
    tracker.record_metric("x", 1.0, tags)
    assert tracker.get_stats("x", tags={"models": "['a', 'b']"})["count"] == 2


class Untellable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("name", "tags"), [(None, None), (3, None), (["x"], None), ("x", "tags"), ("x", 5), ("x", {"a": Untellable()})]
)
def test_unusable_names_and_tags_are_refused_without_raising(tracker: PerformanceTracker, name: Any, tags: Any) -> None:
    tracker.record_metric(name, 1.0, tags)
    tracker.increment(name, 1, tags)
    tracker.gauge(name, 1.0, tags)
    tracker.handle(name, tags).record(1.0)
    tracker.handle(name, tags).increment()
    with tracker.timer(name, tags), tracker.handle(name, tags).timer():
        pass
    assert tracker.get_stats("metrics_refused")["sum"] == 7
    assert tracker.names() == ["metrics_refused"]


def test_beyond_the_limit_a_name_keeps_its_total(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    tracker = make(max_series=10)
    for i in range(1000):
        tracker.record_metric("x", 1.0, {"user": i})
    assert tracker.get_stats("x")["count"] == 1000
    assert tracker.get_stats("x", tags={"perfkit.overflow": "true"})["count"] == 990
    assert tracker.get_stats("x", tags={"user": 3})["count"] == 1
    assert len(tracker._series.handles()) == 11
    assert [record.message for record in caplog.records] == [
        "10 series, no room for 'x': new tags are counted under perfkit.overflow"
    ]


def test_the_limit_holds_for_names_too(make: Make) -> None:
    tracker = make(max_series=10)
    for i in range(1000):
        tracker.record_metric(f"x{i}", 1.0)
    assert len(tracker._series.handles()) == 21
    assert tracker.get_stats("metrics_overflow")["count"] == 980


def test_the_limit_can_be_changed_while_running(make: Make, clock: FakeClock) -> None:
    tracker = make(max_series=1)
    tracker.record_metric("x", 1.0, {"n": 1})
    tracker.configure(max_series=100)
    tracker.record_metric("x", 1.0, {"n": 2})
    assert tracker.get_stats("x", tags={"n": 2})["count"] == 1


def test_series_idle_for_a_day_make_room(make: Make, clock: FakeClock) -> None:
    tracker = make(max_series=10)
    for i in range(12):
        tracker.record_metric("old", 1.0, {"n": i})
    clock.advance(DAY / 2)
    tracker.record_metric("old", 1.0, {"n": 0})
    clock.advance(DAY / 2 + 3600)
    for i in range(9):
        tracker.record_metric("new", 1.0, {"n": i})
    assert [tracker.get_stats("new", tags={"n": i})["count"] for i in range(9)] == [1] * 9
    assert {handle.tags.get("n") for handle in tracker.series() if handle.name == "old"} == {"0"}


def test_a_handle_kept_by_someone_survives_its_series_making_room(make: Make, clock: FakeClock) -> None:
    tracker = make(max_series=2)
    kept = tracker.handle("kept")
    kept.record(1.0)
    clock.advance(DAY + 3600)
    tracker.record_metric("a", 1.0)
    tracker.record_metric("b", 1.0)
    kept.record(2.0)
    tracker.record_metric("kept", 3.0)
    assert tracker.get_stats("kept")["sum"] == 5.0


def test_idle_series_are_searched_for_once_a_minute(make: Make, clock: FakeClock) -> None:
    tracker = make(max_series=1)
    tracker.record_metric("x", 1.0, {"n": 0})
    tracker.record_metric("x", 1.0, {"n": 1})
    searched = tracker._series._next_search
    clock.advance(59)
    tracker.record_metric("x", 1.0, {"n": 2})
    assert tracker._series._next_search == searched
    clock.advance(1)
    tracker.record_metric("x", 1.0, {"n": 3})
    assert tracker._series._next_search > searched


def test_the_memory_of_spellings_is_bounded(make: Make) -> None:
    tracker = make(max_series=5)
    for i in range(20_000):
        tracker.increment("x", tags={"n": i})
    assert len(tracker._cache) <= 8192
    assert tracker.get_stats("x")["sum"] == 20_000


def test_handles_nobody_keeps_are_freed_on_reset(tracker: PerformanceTracker) -> None:
    for i in range(50):
        tracker.record_metric("x", 1.0, {"n": i})
    tracker.reset()
    gc.collect()
    assert len(tracker._series._known) == 0


def test_memory_is_shared_between_the_series(make: Make, clock: FakeClock) -> None:
    tracker = make(max_bytes=2**20)
    handles = [tracker.handle("x", {"n": n}) for n in range(50)]
    for step in range(60):
        for handle in handles:
            for i in range(80):
                handle.record(1.02**i * (step + 1))
        clock.advance(10)
    tracker.flush()
    held = sum(slot.nbytes for h in handles for slots in h._window._tiers for slot in slots.values())
    assert 2**19 < held <= 2**20 + 50 * 9000  # of each the slot being filled is not packed yet
    assert tracker.get_stats("x", since=clock.wall() - 20)["count"] >= 50 * 80
