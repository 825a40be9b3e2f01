from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfkit
from perfkit import _process
from perfkit.clock import FakeClock
from perfkit.errors import ConfigError, UnknownNameError
from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Make = Callable[..., PerformanceTracker]

UTC = dt.UTC


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# --- the guide's own names


def test_timers_record_the_operations_duration(tracker: PerformanceTracker, clock: FakeClock) -> None:
    tracker.start_timer("http_request")
    clock.advance(0.5)
    assert tracker.end_timer("http_request") == 0.5
    assert tracker.get_stats("http_request_duration")["sum"] == 0.5


def test_ending_what_was_not_started_is_none(tracker: PerformanceTracker) -> None:
    tracker.start_timer("a")
    assert tracker.end_timer("b") is None
    assert tracker.end_timer("a") is not None
    assert tracker.end_timer("a") is None
    assert tracker.names() == ["a_duration"]


def test_timers_nest_even_those_of_the_same_operation(tracker: PerformanceTracker, clock: FakeClock) -> None:
    tracker.start_timer("op")
    clock.advance(1)
    tracker.start_timer("op")
    tracker.start_timer("other")
    clock.advance(2)
    assert [tracker.end_timer(name) for name in ("op", "op", "other")] == [2, 3, 2]


def test_a_thread_ends_its_own_timers_first(tracker: PerformanceTracker, clock: FakeClock) -> None:
    tracker.start_timer("op")
    clock.advance(1)
    seen: list[float | None] = []

    def other() -> None:
        tracker.start_timer("op")
        clock.advance(2)
        seen.append(tracker.end_timer("op"))

    in_thread(other)
    assert seen == [2]
    assert tracker.end_timer("op") == 3


def test_a_timer_may_be_ended_in_another_thread_the_oldest_first(tracker: PerformanceTracker, clock: FakeClock) -> None:
    for _ in range(3):
        tracker.start_timer("job")
        clock.advance(10)
    seen: list[float | None] = []
    in_thread(lambda: seen.extend(tracker.end_timer("job") for _ in range(2)))
    assert seen == [30, 20]
    assert tracker.end_timer("job") == 10
    assert tracker.end_timer("job") is None
    assert tracker.get_stats("job_duration")["sum"] == 60


def test_timers_of_threads_that_ended_stay_few(tracker: PerformanceTracker) -> None:
    def start_many() -> None:
        for _ in range(64):
            tracker.start_timer("op")

    for _ in range(100):
        in_thread(start_many)
    assert sum(tracker.end_timer("op") is not None for _ in range(10_000)) == 4096


@pytest.fixture
def switching() -> Iterator[None]:
    """Let threads take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("switching")
def test_no_timer_is_ended_twice_by_threads_that_race(tracker: PerformanceTracker) -> None:
    begun = [0] * 8
    ended = [0] * 8
    barrier = threading.Barrier(8)

    def work(i: int) -> None:
        barrier.wait()
        for _ in range(10_000):
            if i % 2:
                tracker.start_timer("shared")
                begun[i] += 1
            elif tracker.end_timer("shared") is not None:
                ended[i] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = 0
    while tracker.end_timer("shared") is not None:
        left += 1
    assert sum(ended) + left <= sum(begun)
    assert tracker.get_stats("shared_duration")["count"] == sum(ended) + left


def test_timers_that_are_never_ended_stay_few(tracker: PerformanceTracker) -> None:
    for _ in range(1000):
        tracker.start_timer("op")
    ended = 0
    while tracker.end_timer("op") is not None:
        ended += 1
    assert ended == 64


def test_statistics_of_the_guide_and_more(tracker: PerformanceTracker) -> None:
    for value in range(1, 21):
        tracker.record_metric("agent_response_time", value, {"agent": "support"})
    assert tracker.get_stats("agent_response_time") == {
        "count": 20,
        "sum": 210,
        "avg": 10.5,
        "min": 1,
        "max": 20,
        "p50": 10,
        "p90": 18,
        "p95": 19,
        "p99": 20,
        "p99_9": 20,
    }


def test_an_unknown_name_has_no_statistics(tracker: PerformanceTracker) -> None:
    assert tracker.get_stats("nothing") == {}
    assert tracker.get_stats("nothing", tags={"a": 1}) == {}


def test_tags_select_the_series_that_have_at_least_them(tracker: PerformanceTracker) -> None:
    for provider, model, value in (("openai", "a", 1), ("openai", "b", 10), ("groq", "a", 100)):
        tracker.record_metric("x", value, {"provider": provider, "model": model})
    tracker.record_metric("x", 1000)

    def total(tags: Mapping[str, Any] | None) -> float:
        return tracker.get_stats("x", tags=tags).get("sum", 0)

    assert total(None) == total({}) == 1111
    assert total({"provider": "openai"}) == 11
    assert total({"model": "a", "provider": "openai"}) == 1
    assert total({"provider": "other"}) == 0


def test_counters_and_gauges_have_statistics_too(tracker: PerformanceTracker) -> None:
    for n in (1, 1, 5):
        tracker.increment("hits", n)
    tracker.increment("hits")
    for depth in (3, 9, 6):
        tracker.gauge("queue", depth)
    assert (tracker.get_stats("hits")["sum"], tracker.get_stats("hits")["count"]) == (8, 4)
    assert (tracker.get_stats("queue")["max"], tracker.get_stats("queue")["avg"]) == (9, 6)


def test_names_are_those_with_values_of_the_last_day(tracker: PerformanceTracker, clock: FakeClock) -> None:
    tracker.handle("never recorded")
    tracker.increment("b")
    assert tracker.names() == ["b"]
    clock.advance(90_000)
    tracker.record_metric("a", 1.0, {"t": 1})
    assert tracker.names() == ["a"]


# --- time


def test_the_range_is_the_last_hour_unless_given(tracker: PerformanceTracker, clock: FakeClock) -> None:
    for _ in range(24 * 6):
        tracker.record_metric("x", 1.0)
        clock.advance(600)
    assert tracker.get_stats("x")["count"] == 6
    assert tracker.get_stats("x", until=clock.wall() - 2100)["count"] == 6
    assert tracker.get_stats("x", since=0)["count"] == 144


def test_moments_are_epoch_seconds_datetimes_or_time_ago(tracker: PerformanceTracker, clock: FakeClock) -> None:
    for _ in range(12):
        tracker.record_metric("x", 1.0)
        clock.advance(300)
    since = clock.wall() - 1500
    aware = dt.datetime.fromtimestamp(since, UTC)
    naive = dt.datetime.fromtimestamp(since)  # noqa: DTZ006 - local time is what a naive one means
    for moment in (since, int(since), aware, naive, dt.timedelta(seconds=1500), dt.timedelta(minutes=25)):
        assert tracker.get_stats("x", since=moment)["count"] == 5
    assert tracker.get_stats("x", since=dt.timedelta(minutes=26), until=dt.timedelta(minutes=16))["count"] == 2


def test_ranges_reach_across_the_tiers(tracker: PerformanceTracker, clock: FakeClock) -> None:
    for _ in range(24 * 360):
        tracker.record_metric("x", 1.0)
        clock.advance(10)
    for age, width in ((300, 10), (3600, 60), (40_000, 900)):
        count = tracker.get_stats("x", since=dt.timedelta(seconds=age))["count"]
        assert age / 10 <= count <= (age + width) / 10


# --- summary


def test_the_summary_has_a_row_for_each_provider_and_model(tracker: PerformanceTracker) -> None:
    for agent, seconds in (("a", 0.1), ("a", 0.2), ("b", 0.3)):
        tags = {"provider": "openai", "model": "gpt", "agent": agent}
        tracker.record_metric("provider_latency", seconds, tags)
        tracker.record_metric("token_usage", 150, tags)
    tracker.increment("provider_failure", 2, tags={"provider": "openai", "model": "gpt"})
    tracker.record_metric("provider_failure", 1, {"provider": "groq", "model": "llama"})
    tracker.record_metric("provider_latency", 9.0)  # no provider: no row
    summary = tracker.get_performance_summary()
    assert list(summary) == ["groq/llama", "openai/gpt"]
    assert (
        summary["openai/gpt"].items()
        >= {
            "requests": 5,
            "success_rate": 0.6,
            "avg_latency_ms": pytest.approx(200),
            "p50_latency_ms": pytest.approx(200),
            "p95_latency_ms": pytest.approx(300),
            "total_tokens": 450,
            "tokens_per_request": 90,
        }.items()
    )
    assert summary["groq/llama"]["requests"] == 1
    assert summary["groq/llama"]["success_rate"] == 0


def test_the_summary_forgets_what_is_older_than_asked(tracker: PerformanceTracker, clock: FakeClock) -> None:
    tracker.record_metric("provider_latency", 1.0, {"provider": "p", "model": "m"})
    clock.advance(7200)
    assert tracker.get_performance_summary() == {}
    assert tracker.get_performance_summary(since=0)["p/m"]["requests"] == 1


# --- snapshots

values = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.integers(-50, 10**6)), max_size=120)


def recorded(rows: list[tuple[str, int, int]]) -> PerformanceTracker:
    clock = FakeClock()
    tracker = PerformanceTracker(clock=clock)
    for name, tag, value in rows:
        tracker.record_metric(name, value, {"t": tag})
        tracker.increment("n")
        clock.advance(7)
    clock.advance(7 * (120 - len(rows)))
    return tracker


def merged(*trackers: PerformanceTracker) -> dict[str, Any]:
    clock = FakeClock()
    clock.advance(7 * 120)
    result = PerformanceTracker(clock=clock)
    for tracker in trackers:
        result.merge(json.loads(json.dumps(tracker.snapshot())))
    return {name: result.get_stats(name, since=0, tags=tags) for name in ("a", "b", "n") for tags in (None, {"t": 2})}


@given(values, values, values)
def test_merging_snapshots_is_commutative_and_associative(a: Any, b: Any, c: Any) -> None:
    x, y, z = map(recorded, (a, b, c))
    expected = merged(x, y, z)
    assert merged(z, x, y) == expected
    clock = FakeClock()
    clock.advance(7 * 120)
    inner = PerformanceTracker(clock=clock)
    inner.merge(y.snapshot())
    inner.merge(z.snapshot())
    assert merged(x, inner) == expected


@given(values)
def test_a_merged_snapshot_equals_the_tracker_it_came_from(rows: Any) -> None:
    tracker = recorded(rows)
    own = {name: tracker.get_stats(name, since=0, tags=tags) for name in ("a", "b", "n") for tags in (None, {"t": 2})}
    assert merged(tracker) == own


def test_a_snapshot_keeps_times_tags_and_kinds(tracker: PerformanceTracker, make: Make, clock: FakeClock) -> None:
    start = clock.wall()
    for _ in range(3):
        tracker.gauge("queue", 1.0, {"a": 1})
        clock.advance(60)
    other = make()
    other.merge(tracker.snapshot())
    assert other.get_stats("queue", since=start, until=start + 10, tags={"a": 1})["count"] == 1
    assert [handle.kind for handle in other._series.handles()] == ["gauge"]


def test_merging_does_not_send_again(tracker: PerformanceTracker, make: Make) -> None:
    tracker.increment("x")
    other = make()
    memory: Any = other.add_sink("memory")
    other.merge(tracker.snapshot())
    other.increment("x", 2)
    other.flush()
    assert [value for _, _, value, _ in memory.emitted] == [2]
    assert other.get_stats("x")["sum"] == 3


def test_a_snapshot_of_another_version_is_not_merged(tracker: PerformanceTracker) -> None:
    with pytest.raises(ValueError, match="version 99"):
        tracker.merge({"version": 99, "series": []})


# --- sinks


def test_sinks_get_counters_summed_gauges_last_and_values_one_by_one(tracker: PerformanceTracker) -> None:
    memory: Any = tracker.add_sink("memory", size=100)
    for n in (1, 2, 3):
        tracker.increment("hits", n)
        tracker.gauge("queue", n, {"b": 2, "a": 1})
        tracker.record_metric("tokens", n)
        tracker.record_metric("call_duration", n)
    tracker.flush()
    assert sorted(memory.emitted) == [
        ("counter", "hits", 6, {}),
        ("gauge", "queue", 3, {"a": "1", "b": "2"}),
        *(("timing", "call_duration", n, {}) for n in (1, 2, 3)),
        *(("value", "tokens", n, {}) for n in (1, 2, 3)),
    ]
    memory.emitted.clear()
    tracker.flush()
    tracker.get_stats("hits")
    assert not memory.emitted


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gc_compaction_duration", "timing"),
        ("agent_response_time", "timing"),
        ("provider_latency", "timing"),
        ("first_token", "timing"),
        ("token_usage", "value"),
        ("cost", "value"),
        ("gc_time_total", "value"),
    ],
)
def test_the_name_tells_a_duration(tracker: PerformanceTracker, name: str, kind: str) -> None:
    assert tracker.handle(name).kind == kind


class Broken:
    def emit(self, kind: str, name: str, value: float, tags: Mapping[str, str]) -> None:
        raise RuntimeError("broken")

    def flush(self) -> None:
        raise RuntimeError("broken")

    close = flush


def test_a_sink_that_fails_harms_nobody(tracker: PerformanceTracker, caplog: pytest.LogCaptureFixture) -> None:
    tracker.add_sink(Broken())
    memory: Any = tracker.add_sink("memory")
    for _ in range(1000):
        tracker.increment("x")
    tracker.flush()
    tracker.close()
    assert sum(value for _, _, value, _ in memory.emitted) == 1000
    assert tracker.get_stats("x")["sum"] == 1000
    assert [record.levelname for record in caplog.records if "Broken failed" in record.message].count("WARNING") == 1


def test_an_unknown_sink_is_an_error_naming_the_known_ones(tracker: PerformanceTracker) -> None:
    with pytest.raises(UnknownNameError, match="logging, memory, otel, statsd; did you mean 'statsd'"):
        tracker.add_sink("statds")


def test_recording_goes_on_where_no_thread_can_start(make: Make, udp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(_process, "background", _process.Background())
    tracker = make(statsd=udp.address)
    tracker.increment("x")
    tracker.close()
    assert udp.lines() == [b"perfkit.x:1|c"]


def test_sinks_run_outside_the_locks(tracker: PerformanceTracker) -> None:
    class Asking:
        def emit(self, kind: str, name: str, value: float, tags: Mapping[str, str]) -> None:
            seen.append(tracker.get_stats(name)["count"])
            tracker.names()

        def flush(self) -> None: ...

        close = flush

    seen: list[float] = []
    tracker.add_sink(Asking())
    tracker.record_metric("x", 1.0)
    tracker.flush()
    assert seen == [1]


def test_reset_forgets_added_sinks_but_close_does_not(tracker: PerformanceTracker) -> None:
    memory: Any = tracker.add_sink("memory")
    tracker.increment("x")
    tracker.close()
    tracker.increment("x")
    tracker.reset()
    tracker.increment("x")
    tracker.flush()
    assert [value for _, _, value, _ in memory.emitted] == [1, 1]
    assert tracker.get_stats("x")["sum"] == 1


@pytest.mark.parametrize("address", ["nowhere:port", "a:b:c", "host:0", "host:70000", "", "ho st:1", "[::1"])
def test_a_bad_address_changes_nothing(make: Make, address: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.statsd must be host:port"):
        make(statsd=address)
    tracker = make(max_series=7)
    before = tracker.settings
    with pytest.raises(ConfigError):
        tracker.configure(statsd=address, max_series=8)
    assert tracker.settings is before


# --- process


def in_new_process(script: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_nothing_runs_or_opens_before_something_is_recorded() -> None:
    script = """
import json, os, threading
from perfkit.metrics import PerformanceTracker
def state(): return [sorted(t.name for t in threading.enumerate()), len(os.listdir("/proc/self/fd"))]
before = state()
tracker = PerformanceTracker(statsd="127.0.0.1:9")
handle = tracker.handle("x")
tracker.timer("y")(print)
tracker.add_sink("memory")
unchanged = state() == before
handle.record(1.0)
print(json.dumps([unchanged, [t.name for t in threading.enumerate()]]))
"""
    assert in_new_process(script) == [True, ["MainThread", "perfkit-background"]]


def test_without_sinks_there_is_no_thread_at_all() -> None:
    script = """
import json, threading
from perfkit.metrics import PerformanceTracker
tracker = PerformanceTracker()
tracker.increment("x"); tracker.get_stats("x"); tracker.flush()
print(json.dumps([t.name for t in threading.enumerate()]))
"""
    assert in_new_process(script) == ["MainThread"]


def test_importing_metrics_loads_nothing_heavy() -> None:
    script = """
import sys, json
before = set(sys.modules)
import perfkit.metrics
heavy = {"socket", "asyncio", "urllib3", "requests", "numpy", "ssl", "statsd"}
print(json.dumps(sorted(heavy & set(sys.modules) - before)))
"""
    assert in_new_process(script) == []


def test_the_shared_tracker_is_configured_in_place() -> None:
    shared = perfkit.tracker
    assert shared is PerformanceTracker.instance()
    others = list(shared._series._known.values())  # that objects of earlier tests still keep
    perfkit.configure(metrics={"max_series": len(others) + 5})
    assert shared.settings.max_series == len(others) + 5
    for i in range(10):
        shared.record_metric("x", 1.0, {"n": i})
    assert shared.get_stats("x", tags={"perfkit.overflow": "true"})["count"] >= 5  # more if a thread tells of a stall
    assert shared.get_stats("x")["count"] == 10
    perfkit.reset()
    assert shared.names() == []
    assert shared.settings.max_series == 2000


def test_reprs_tell_what_there_is(tracker: PerformanceTracker) -> None:
    tracker.record_metric("x", 1.0, {"a": 1})
    assert repr(tracker) == "PerformanceTracker(1 series, 0 sinks)"
    assert repr(tracker.handle("x", {"a": 1})) == "Handle(x, a=1, value)"
