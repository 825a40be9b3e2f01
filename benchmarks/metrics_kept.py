"""What the tracker keeps: nothing lost, percentiles right, memory bounded, queries and merges quick.

    python benchmarks/metrics_kept.py [--quick] [--json] [--check]

Not compared with others: they either keep nothing in process or everything. `--check` exits with 1 when a bound is
missed; `--quick` records a tenth, and fewer series.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.window import DAY

THREADS = 16
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}

Row = tuple[str, float, float]  # what, measured, at most


def lost(n: int) -> Iterator[Row]:
    """Record from 16 threads while others drain, query and fork."""
    tracker, over = PerformanceTracker(), threading.Event()
    handle = tracker.handle("x")

    def record(_: int) -> None:
        for _ in range(n // THREADS):
            handle.record(1.5)

    def disturb() -> None:
        while not over.is_set():
            tracker.get_stats("x", since=0)
            tracker.flush()

    def fork() -> list[int]:
        wrong = []
        while not over.wait(0.02):
            pid = os.fork()
            if pid == 0:
                handle.record(1.0)
                os._exit(tracker.get_stats("x", since=0)["count"] != 1)
            wrong.append(os.waitpid(pid, 0)[1])
        return wrong

    with ThreadPoolExecutor(THREADS + 2) as threads:
        disturbing, forking = threads.submit(disturb), threads.submit(fork)
        list(threads.map(record, range(THREADS)))
        over.set()
        disturbing.result()
        wrong = forking.result()
    stats = tracker.get_stats("x", since=0)
    yield f"lost of {n} records from {THREADS} threads, with {len(wrong)} forks", n - stats["count"], 0
    yield "children with another count than their own", sum(map(bool, wrong)), 0
    yield "error of the sum", abs(stats["sum"] - 1.5 * n), 0


def errors(n: int) -> Iterator[Row]:
    """Compare percentiles with those of the sorted values."""
    source = random.Random(7)
    kinds: dict[str, Callable[[], float]] = {
        "lognormal, median 1.35 s": lambda: source.lognormvariate(0.3, 0.9),
        "30 % of 2 ms, 70 % of 2.5 s": lambda: (
            source.gauss(2e-3, 2e-4) if source.random() < 0.3 else source.gauss(2.5, 0.3)
        ),
        "gap at the median": lambda: source.gauss(2e-3, 2e-4) if source.random() < 0.495 else source.gauss(2.5, 0.3),
    }
    for kind, draw in kinds.items():
        tracker = PerformanceTracker()
        values = [abs(draw()) for _ in range(n)]
        for value in values:
            tracker.record_metric("x", value)
        values.sort()
        stats = tracker.get_stats("x", since=0)
        exact = {name: values[max(1, math.ceil(q * n)) - 1] for name, q in QUANTILES.items()}
        worst = max(abs(stats[name] / value - 1) * 100 for name, value in exact.items())
        yield f"greatest error of p50 to p99.9 in %, {kind}", worst, 0.55


def memory() -> Iterator[Row]:
    """Fill a day, and more tag sets than there is room for."""
    clock, source = FakeClock(), random.Random(7)
    tracker = PerformanceTracker(clock=clock)
    for _ in range(int(DAY / 5)):
        for _ in range(10):
            tracker.record_metric("x", source.lognormvariate(0.3, 0.9))
        clock.advance(5)
    [handle] = tracker.series()
    handle.flush()
    window = handle._window
    held = window._total.nbytes + sum(slot.nbytes for slots in window._tiers for slot in slots.values())
    yield "bytes of one series, 2 records/s for 24 h", held, 320_000
    yield from query("get_stats of an hour of it, ms", lambda: tracker.get_stats("x"), 4)
    yield from query("get_stats of a day of it, ms", lambda: tracker.get_stats("x", since=0), math.inf)
    many = PerformanceTracker()
    for i in range(10_000):
        many.record_metric("x", 1.0, {"n": i})
    yield "series kept of 10 000 tag sets", len(many.series()), many.settings.max_series + 1
    yield "of which lost", 10_000 - many.get_stats("x")["count"], 0


def query(what: str, work: Callable[[], Any], most: float) -> Iterator[Row]:
    times = []
    for _ in range(15):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    yield what, min(times) * 1000, most


def merging(directory: str, series: int, minutes: int) -> Iterator[Row]:
    """Share what 8 workers record."""
    clock, source = FakeClock(), random.Random(7)
    workers = [PerformanceTracker(clock=clock, store=directory) for _ in range(8)]
    handles = [[worker.handle("x_duration", {"n": i}) for i in range(series)] for worker in workers]
    for worker in workers:
        worker._started = True  # told by hand, in step with the clock
    for _ in range(minutes * 6):
        for handle in itertools.chain(*handles):
            handle.record(source.lognormvariate(0.3, 0.9))
            handle.record(source.lognormvariate(0.3, 0.9))
        clock.advance(10)
        for worker in workers:
            worker._share()
    total = minutes * 6 * 2 * 8 * series
    reader = PerformanceTracker(clock=clock, store=directory)
    started = time.perf_counter()
    view = reader.merged()
    cold = time.perf_counter() - started
    yield f"merge of 8 workers, {series} series, {minutes} minutes: first view of a process, ms", cold * 1000, 50
    yield from query("a further view, ms", reader.merged, 50)
    yield from query(
        "get_stats of an hour of one merged series, ms", lambda: view.get_stats("x_duration", tags={"n": 7}), 50
    )
    yield from query(
        "get_stats of the last 10 minutes of all series, ms",
        lambda: view.get_stats("x_duration", since=clock.wall() - 600),
        math.inf,
    )
    yield "values lost or doubled", abs(total - view.get_stats("x_duration", since=0)["count"]), 0
    yield "bytes in the store", sum(path.stat().st_size for path in Path(directory).iterdir()), math.inf
    yield "files in the store", len(list(Path(directory).iterdir())), 5 + 1 + 32 + 8


def show(rows: list[Row]) -> None:
    for what, measured, most in rows:
        state = "" if most == math.inf else f"at most {most:g}: {'kept' if measured <= most else 'MISSED'}"
        print(f"{what:78}{measured:>14.6g}  {state}".rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description="What the tracker keeps.")
    parser.add_argument("--quick", action="store_true", help="record a tenth")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    options = parser.parse_args()
    part = 10 if options.quick else 1
    rows = [*lost(10_000_000 // part), *errors(1_000_000 // part), *memory()]
    with tempfile.TemporaryDirectory() as directory:
        rows += merging(directory, 20 if options.quick else 100, 15 if options.quick else 60)
    if options.json:
        found = [
            {"what": what, "measured": measured, "most": most if math.isfinite(most) else None}
            for what, measured, most in rows
        ]
        print(json.dumps({"python": platform.python_version(), "load": os.getloadavg()[0], "rows": found}))
    else:
        print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
        show(rows)
    return int(options.check and any(measured > most for _, measured, most in rows))


if __name__ == "__main__":
    sys.exit(main())
