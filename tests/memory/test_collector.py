from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest
from _parts import REPOSITORY

import perfkit
from perfkit._process import background
from perfkit.clock import FakeClock
from perfkit.errors import ConfigError, UnknownNameError
from perfkit.memory import GCOptimizer, rss
from perfkit.memory.workloads import collector_of
from perfkit.metrics import PerformanceTracker

GENERATIONAL = collector_of((3, 13, 0), free_threaded=False)
INCREMENTAL = collector_of((3, 14, 2), free_threaded=False)
FREE_THREADED = collector_of((3, 14, 2), free_threaded=True)


class Node:
    """Something that forms a cycle and can be watched dying."""

    def __init__(self) -> None:
        self.own = self


def dying() -> weakref.ref[Node]:
    node = Node()
    return weakref.ref(node)


def frozen_with(node: Node) -> bool:
    return not any(one is node for one in gc.get_objects())


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker()


@pytest.fixture
def optimizer(tracker: PerformanceTracker) -> Iterator[GCOptimizer]:
    made = GCOptimizer(tracker=tracker, collector=GENERATIONAL, immortal=False)
    yield made
    made.restore()


@pytest.fixture
def steered(tracker: PerformanceTracker, clock: FakeClock) -> Iterator[GCOptimizer]:
    made = GCOptimizer(tracker=tracker, collector=GENERATIONAL, clock=clock, immortal=False)
    yield made
    made.restore()


def has_job(optimizer: GCOptimizer) -> bool:
    return weakref.WeakMethod(optimizer._drain) in background._jobs


def state() -> tuple[object, ...]:
    return gc.get_threshold(), gc.isenabled(), gc.get_freeze_count(), list(gc.callbacks), threading.active_count()


def script(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_changes_before_a_method_is_called() -> None:
    before = state()
    made = GCOptimizer(pause=0.001)
    made.configure(deep_age=60)
    perfkit.gc_optimizer.configure(pause=0.003)
    made.stats()
    repr(made)
    made.close()
    assert state() == before
    with pytest.raises(ConfigError, match="did you mean 'deep_age'"):
        GCOptimizer(deep_ages=1)


@pytest.mark.parametrize(
    ("workload", "thresholds"),
    [
        ("fork_server", (2_000, 20, 20)),
        ("high_throughput", (50_000, 50, 50)),
        ("low_latency", (50_000, 50, 50)),
        ("memory_constrained", (701, 11, 12)),
        ("balanced", (10_000, 20, 20)),
    ],
)
def test_a_workload_takes_effect_and_is_taken_back(
    workload: str, thresholds: tuple[int, ...], optimizer: GCOptimizer
) -> None:
    gc.set_threshold(701, 11, 12)
    gc.disable()
    background.close()  # an earlier test's job may still have it
    before, threads = state()[:4], threading.active_count()
    node = Node()
    plan = optimizer.optimize_for_workload(workload)
    assert gc.get_threshold() == thresholds
    assert gc.isenabled()
    assert frozen_with(node)
    assert gc.get_freeze_count() > 10_000
    assert (plan.workload, plan.left_out) == (workload, ())
    assert optimizer.stats()["workload"] == workload
    assert has_job(optimizer)
    assert (background._thread is None) == (workload == "fork_server")
    optimizer.restore()
    assert not has_job(optimizer)
    background.close()
    assert state()[:4] == before
    assert threading.active_count() <= threads  # fewer, where one of an earlier test has ended meanwhile
    assert not frozen_with(node)
    optimizer.restore()


def test_what_somebody_else_has_set_since_stays(optimizer: GCOptimizer) -> None:
    before = gc.get_threshold()
    optimizer.optimize_for_workload("high_throughput")
    gc.set_threshold(12_345, 6, 7)
    gc.disable()
    try:
        optimizer.restore()
        assert (gc.get_threshold(), gc.isenabled()) == ((12_345, 6, 7), False)
    finally:
        gc.set_threshold(*before)
        gc.enable()


def test_garbage_is_collected_before_it_is_frozen(optimizer: GCOptimizer) -> None:
    gc.disable()
    node = dying()
    optimizer.optimize_for_workload("high_throughput")
    assert node() is None


def test_before_a_fork_nothing_is_collected_and_no_thread_begins(optimizer: GCOptimizer) -> None:
    gc.disable()
    background.close()
    node = dying()
    optimizer.optimize_for_workload("fork_server")
    assert node() is not None
    assert background._thread is None


def test_where_counts_are_not_known_nothing_becomes_immortal(
    optimizer: GCOptimizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 11, 7))
    node = Node()
    optimizer.configure(immortal=True)
    with caplog.at_level("INFO", "perfkit.memory"):
        optimizer.optimize_for_workload("fork_server")
    assert sys.getrefcount(node) < 10
    assert "nothing is made immortal" in caplog.text


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on it would cost more than it saves")
def test_before_a_fork_the_names_of_earlier_lookups_are_let_go(optimizer: GCOptimizer) -> None:
    name = "looked_up_nowhere_else"
    assert not hasattr(Node, name)
    before = sys.getrefcount(name)
    optimizer.optimize_for_workload("fork_server")
    assert sys.getrefcount(name) < before


def test_one_workload_takes_the_place_of_another(optimizer: GCOptimizer) -> None:
    before = gc.get_threshold()
    optimizer.optimize_for_workload("high_throughput")
    optimizer.optimize_for_workload("memory_constrained")
    assert gc.get_threshold() == before
    optimizer.optimize_for_workload("balanced")
    optimizer.restore()
    assert gc.get_threshold() == before


def test_an_unknown_workload_changes_nothing(optimizer: GCOptimizer) -> None:
    before = state()
    with pytest.raises(UnknownNameError, match="known: balanced, fork_server"):
        optimizer.optimize_for_workload("turbo")
    assert state() == before


def test_a_frozen_heap_makes_full_collections_short(optimizer: GCOptimizer) -> None:
    gc.disable()
    dead, alive = dying(), Node()
    assert optimizer.freeze_after_warm_up()
    assert dead() is None
    assert frozen_with(alive)
    assert len(gc.get_objects()) < 5_000  # only these would be looked at


# --- between requests


def test_the_first_call_begins_low_latency(steered: GCOptimizer, clock: FakeClock) -> None:
    node = Node()
    assert steered.collect_between_requests() is None  # nothing is due yet
    assert steered.stats()["workload"] == "low_latency"
    assert frozen_with(node)
    clock.advance(0.1)
    assert steered.collect_between_requests() == "young"
    assert steered.collect_between_requests() is None


def test_young_garbage_goes_and_survivors_are_frozen(steered: GCOptimizer, clock: FakeClock) -> None:
    steered.optimize_for_workload("low_latency")
    dead, alive = dying(), Node()
    clock.advance(0.1)
    assert steered.collect_between_requests() == "young"
    assert dead() is None
    assert frozen_with(alive)


def test_survivors_are_not_frozen_while_requests_run(steered: GCOptimizer, clock: FakeClock) -> None:
    steered.optimize_for_workload("low_latency")
    alive = Node()
    clock.advance(0.16)
    assert steered.collect_between_requests(idle=False) == "young"
    assert not frozen_with(alive)


def test_a_cycle_that_dies_frozen_is_found_by_the_deep_pass(steered: GCOptimizer, clock: FakeClock) -> None:
    steered.optimize_for_workload("low_latency")
    node = Node()
    dead = weakref.ref(node)
    clock.advance(0.1)
    steered.collect_between_requests()
    del node
    gc.collect()
    assert dead() is not None  # not even a full collection sees it
    clock.advance(600)
    assert steered.collect_between_requests(lull=True) == "deep"
    assert dead() is None
    assert steered.stats()["passes"] == {"young": 1, "old": 0, "deep": 1}
    assert len(gc.get_objects()) < 5_000  # and the rest is frozen again


def test_much_frozen_garbage_ends_refreezing(steered: GCOptimizer, clock: FakeClock) -> None:
    steered.configure(much_garbage=50)
    steered.optimize_for_workload("low_latency")
    for _ in range(2):
        nodes = [Node() for _ in range(100)]
        clock.advance(0.1)
        steered.collect_between_requests()
        del nodes
        clock.advance(600)
        assert steered.collect_between_requests(lull=True) == "deep"
        assert not steered.stats()["refreezes"]
        alive = Node()
        clock.advance(1)
        assert steered.collect_between_requests() == "young"
        assert not frozen_with(alive)
        clock.advance(600)
        assert steered.collect_between_requests(lull=True) == "deep"  # found nothing
        assert steered.stats()["refreezes"]


def test_nothing_is_collected_for_workloads_without_passes(steered: GCOptimizer, clock: FakeClock) -> None:
    steered.optimize_for_workload("high_throughput")
    clock.advance(10_000)
    assert steered.collect_between_requests() is None
    assert steered.stats()["passes"] == {"young": 0, "old": 0, "deep": 0}


def test_a_preloaded_worker_collects_what_was_made_since_the_fork_and_never_thaws(
    steered: GCOptimizer, clock: FakeClock
) -> None:
    inherited = Node()
    steered.optimize_for_workload("fork_server")
    steered._after_fork()
    gc.disable()  # only what is asked for
    frozen = gc.get_freeze_count()
    dead, alive = dying(), Node()
    clock.advance(0.1)
    assert steered.collect_between_requests() == "young"
    assert dead() is None
    assert not frozen_with(alive)  # it may die in a cycle, and no deep pass would find it
    clock.advance(10_000)
    assert steered.collect_between_requests() == "young"
    living = [Node() for _ in range(60_000)]
    assert steered.collect_between_requests() == "old"
    assert len(living) > steered.stats()["passes"]["deep"] == 0
    assert frozen - 100 < gc.get_freeze_count() <= frozen  # fewer, where one has died meanwhile
    assert frozen_with(inherited)


def test_the_memory_is_read_ten_times_a_second_and_after_each_pass(
    steered: GCOptimizer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    steered.optimize_for_workload("low_latency")
    reads: list[float] = []
    monkeypatch.setattr(rss.process_memory, "rss", lambda: reads.append(clock.now()))
    for _ in range(10):
        assert steered.collect_between_requests() is None
        clock.advance(0.009)
    assert len(reads) == 1
    clock.advance(0.1)
    assert steered.collect_between_requests() == "young"
    assert len(reads) == 3


def test_threads_take_turns_without_waiting(optimizer: GCOptimizer) -> None:
    optimizer.optimize_for_workload("low_latency")
    answers: list[object] = []
    with optimizer._lock:
        thread = threading.Thread(target=lambda: answers.append(optimizer.collect_between_requests()))
        thread.start()
        thread.join(10)
    assert answers == [None]


def test_pauses_between_requests_are_told_from_the_others(optimizer: GCOptimizer, tracker: PerformanceTracker) -> None:
    optimizer.optimize_for_workload("low_latency")
    before = optimizer.stats()["pauses"]
    assert optimizer._steering is not None
    optimizer._steering.interval = 0.0
    assert optimizer.collect_between_requests() == "young"
    pauses = optimizer.stats()["pauses"]
    assert pauses["longest_between"] > before["longest_between"] == 0
    assert pauses["longest"] == before["longest"]
    between = tracker.get_stats("gc_duration", tags={"generation": 1, "between": True})
    assert between["count"] == 1
    assert between["max"] == pytest.approx(pauses["longest_between"], rel=0.01)


SESSIONS = """
import gc, sys
from collections import deque
from perfkit.clock import FakeClock
from perfkit.memory import GCOptimizer
from perfkit.memory.rss import process_memory

class Session:
    def __init__(self):
        self.own, self.data = self, [[n] for n in range(500)]

clock = FakeClock()
optimizer = GCOptimizer(clock=clock, **eval(sys.argv[1]))
optimizer.optimize_for_workload("low_latency")
living, base = deque(maxlen=200), process_memory.rss()
for n in range(5_000):
    living.append(Session())
    if n % 50 == 0:
        clock.advance(1)
        optimizer.collect_between_requests()
print((process_memory.rss() - base) // 2**20, optimizer.stats()["passes"]["deep"], optimizer.stats()["refreezes"])
"""


def sessions(settings: str) -> list[str]:
    return script(SESSIONS.replace("sys.argv[1]", repr(settings))).split()


def test_what_dies_in_cycles_is_found_without_a_look_at_the_clock_or_the_memory(
    steered: GCOptimizer, clock: FakeClock
) -> None:
    steered.configure(much_garbage=50)
    steered.optimize_for_workload("low_latency")
    nodes = [Node() for _ in range(100)]
    clock.advance(0.1)
    steered.collect_between_requests()
    del nodes
    clock.advance(600)
    assert steered.collect_between_requests(lull=True) == "deep"
    living = [Node() for _ in range(60_000)]
    dead = weakref.ref(living[0])
    assert steered.collect_between_requests() == "old"
    living.clear()
    living.extend(Node() for _ in range(60_000))
    assert dead() is not None
    assert steered.collect_between_requests() == "old"
    assert dead() is None


def test_sessions_that_die_in_cycles_do_not_fill_the_memory() -> None:
    """5,000 sessions of 50 KB, 200 at a time: without deep passes all of them would stay."""
    grown, deep, refreezes = sessions("{}")
    leaked, none, _ = sessions("{'deep_growth': 1000.0}")
    assert int(none) == 0
    assert int(deep) >= 1
    assert refreezes == "False"
    assert int(leaked) > 150
    assert int(grown) < int(leaked) / 3


# --- monitoring


def test_a_monitor_works_with_and_without_a_workload(optimizer: GCOptimizer) -> None:
    with optimizer.monitor_gc_performance() as alone:
        gc.collect(0)
    optimizer.optimize_for_workload("high_throughput")
    with optimizer.monitor_gc_performance() as outer, optimizer.monitor_gc_performance() as inner:
        gc.collect()
    assert alone.report.collections[0] >= 1
    assert outer.report.collections[2] == inner.report.collections[2] == 1
    assert optimizer.stats()["pauses"]["count"][2] >= 1


def test_stats_call_nothing_that_grows_with_the_heap(optimizer: GCOptimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer.optimize_for_workload("low_latency")

    def grows() -> None:
        pytest.fail("O(n)")

    monkeypatch.setattr(gc, "get_freeze_count", grows)
    monkeypatch.setattr(gc, "get_objects", grows)
    stats = optimizer.stats()
    assert stats["collector"] == "generational"
    assert stats["rss"] > 2**20
    assert len(stats["collections"]) == len(stats["counts"]) == 3


def test_suggestions_watch_and_apply_nothing(steered: GCOptimizer, clock: FakeClock) -> None:
    before = gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()
    assert steered.suggest().change is None
    clock.advance(60)
    suggested = steered.suggest()
    assert suggested.before is not None
    assert suggested.before.elapsed == 60
    assert (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()) == before
    steered.optimize_for_workload("high_throughput")
    clock.advance(60)
    judged = steered.suggest()
    assert judged.before is not None
    assert judged.before.elapsed == 60
    assert judged.after is not None
    assert judged.after.elapsed == 60


# --- compaction


def test_compaction_trims_and_says_how_long_it_took(
    steered: GCOptimizer, tracker: PerformanceTracker, clock: FakeClock
) -> None:
    if not rss.can_trim():
        pytest.skip("this C library has no malloc_trim")
    assert steered.enable_gc_compaction(60)
    steered._compact()
    assert steered.stats()["trims"] == 0
    clock.advance(120)
    steered._compact()
    assert steered.stats()["trims"] == 1
    assert tracker.get_stats("gc_compaction_duration")["count"] == 1
    steered.disable_gc_compaction()
    clock.advance(1200)
    steered._compact()
    assert tracker.get_stats("gc_compaction_duration")["count"] == 1


def test_compaction_is_refused_without_glibc(optimizer: GCOptimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rss, "_malloc_trim", lambda: None)
    threads = threading.active_count()
    assert not optimizer.enable_gc_compaction()
    assert threading.active_count() == threads
    with pytest.raises(ValueError, match="interval"):
        optimizer.enable_gc_compaction(0)


# --- other collectors


def test_free_threaded_builds_freeze_nothing(tracker: PerformanceTracker, caplog: pytest.LogCaptureFixture) -> None:
    optimizer = GCOptimizer(tracker=tracker, collector=FREE_THREADED, clock=FakeClock())
    frozen = gc.get_freeze_count()
    assert not optimizer.freeze_after_warm_up()
    assert optimizer.collect_between_requests() is None
    assert gc.get_freeze_count() == frozen
    assert gc.get_threshold() == (50_000, 50, 50)
    assert "scans the whole heap" in caplog.text
    optimizer.restore()


def test_the_incremental_collector_gets_a_deep_pass_every_minute(
    tracker: PerformanceTracker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    before = gc.get_threshold()
    optimizer = GCOptimizer(tracker=tracker, collector=INCREMENTAL, clock=clock)
    assert optimizer.collect_between_requests() is None
    assert gc.get_threshold() == before
    assert "use 3.14.5" in caplog.text
    clock.advance(59)
    assert optimizer.collect_between_requests() is None
    clock.advance(1)
    assert optimizer.collect_between_requests(lull=True) == "deep"
    optimizer.restore()


# --- fork


FORK = """
import gc, os
import perfkit
from perfkit.memory.rss import process_memory
optimizer = perfkit.gc_optimizer
optimizer.optimize_for_workload("fork_server")
gc.collect(0); gc.collect(0)
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    first = sum(optimizer.stats()["pauses"]["count"])
    gc.collect()
    stats = optimizer.stats()
    block = bytearray(os.urandom(1)) * (64 << 20)
    grown = process_memory.rss() - stats["rss"] > 60 << 20
    count = perfkit.tracker.get_stats("gc_count", tags={"generation": 2})["sum"]
    answer = (first <= 1, stats["pauses"]["count"][2], count, stats["workload"], gc.get_threshold(), grown,
              gc.get_freeze_count() > 1000)
    os.write(write, repr(answer).encode())
    os._exit(0)
os.waitpid(pid, 0)
print(os.read(read, 1000).decode())
"""


def test_a_child_goes_on_and_counts_its_own() -> None:
    assert script(FORK).strip() == "(True, 1, 1.0, 'fork_server', (2000, 20, 20), True, True)"


def test_the_shared_instance_is_restored_by_reset() -> None:
    before = gc.get_threshold()
    perfkit.gc_optimizer.optimize_for_workload("balanced")
    perfkit.reset()
    assert gc.get_threshold() == before
    assert perfkit.gc_optimizer.stats()["workload"] is None
