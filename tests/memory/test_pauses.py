from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
from _parts import REPOSITORY

from perfkit.clock import SYSTEM_CLOCK
from perfkit.memory import GCMonitor
from perfkit.memory.pauses import Pauses
from perfkit.metrics import PerformanceTracker


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker()


@pytest.fixture
def pauses(tracker: PerformanceTracker) -> Pauses:
    return Pauses(SYSTEM_CLOCK.now, lambda: tracker)


def cycle() -> None:
    own: list[object] = []
    own.append(own)


def test_the_callback_is_there_only_while_something_is_watched(pauses: Pauses) -> None:
    assert pauses not in gc.callbacks
    one, two = pauses.tally(), pauses.tally()
    assert gc.callbacks.count(pauses) == 1
    pauses.forget(one)
    assert pauses in gc.callbacks
    pauses.forget(two)
    assert pauses not in gc.callbacks
    pauses.forget(two)


def test_each_collection_is_counted_with_its_pause_and_what_it_found(pauses: Pauses) -> None:
    gc.disable()
    gc.collect()
    with GCMonitor(pauses) as monitor:
        cycle()
        gc.collect(0)
        cycle()
        cycle()
        gc.collect()
    report = monitor.report
    assert report.collections == (1, 0, 1)
    assert report.count == 2
    assert report.found == 3
    assert 0 < report.longest <= report.seconds <= report.elapsed
    assert 0 < report.share <= 1
    assert report.longest_between == 0
    assert report.rss_change is not None


def test_monitors_nest(pauses: Pauses) -> None:
    gc.disable()
    with GCMonitor(pauses) as outer:
        gc.collect(0)
        with GCMonitor(pauses) as inner:
            gc.collect(0)
            assert inner.report.count == 1  # so far
        gc.collect(0)
    gc.collect(0)
    assert (outer.report.count, inner.report.count) == (3, 1)
    assert pauses not in gc.callbacks


def test_a_monitor_ends_with_an_error_of_its_block(pauses: Pauses) -> None:
    monitor = GCMonitor(pauses)
    with pytest.raises(KeyError), monitor:
        raise KeyError
    assert monitor.report.count >= 0
    assert pauses not in gc.callbacks


def test_a_monitor_that_watched_nothing_says_so(pauses: Pauses) -> None:
    with pytest.raises(RuntimeError, match="with"):
        _ = GCMonitor(pauses).report


def test_pauses_go_into_the_tracker_once_for_all_monitors(pauses: Pauses, tracker: PerformanceTracker) -> None:
    gc.disable()
    with GCMonitor(pauses) as outer, GCMonitor(pauses):
        gc.collect(0)
        gc.collect()
    full = {"generation": 2, "between": False}
    assert tracker.get_stats("gc_count")["sum"] == 2
    assert tracker.get_stats("gc_count", tags=full)["sum"] == 1
    assert tracker.get_stats("gc_duration", tags=full)["count"] == 1
    assert tracker.get_stats("gc_duration")["sum"] == pytest.approx(outer.report.seconds)
    assert tracker.get_stats("gc_time_total")["sum"] == pytest.approx(outer.report.seconds)


LOCKED = """
import faulthandler, gc
faulthandler.dump_traceback_later(10, exit=True)
from perfkit._process import background
from perfkit.memory import GCOptimizer
from perfkit.metrics import PerformanceTracker

tracker = PerformanceTracker(statsd="127.0.0.1:9")
tracker.increment("begun")
background.close()  # as in a forked child: there are jobs, and no thread
with GCOptimizer(tracker=tracker).monitor_gc_performance() as monitor:
    with background._lock:
        gc.collect(0)
print(monitor.report.collections[0] >= 1)
"""


def test_a_collection_may_come_while_any_lock_is_held() -> None:
    """Recording in the callback itself would wait for the background thread's lock, held right here."""
    done = subprocess.run(
        [sys.executable, "-c", LOCKED],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr


def test_collections_that_nobody_records_do_not_pile_up(pauses: Pauses) -> None:
    tally = pauses.tally()
    for _ in range(10_050):
        pauses("start", {})
        pauses("stop", {"generation": 0, "collected": 0, "uncollectable": 0})
    assert tally.collections[0] >= 10_050
    assert len(pauses._waiting) == 10_000
    pauses.forget(tally)
    assert sys.getrefcount(tally) == 2
