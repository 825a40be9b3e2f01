"""What recording a metric costs, beside list.append (the least anything can cost) and the clients people use.

    python benchmarks/metrics.py [--quick] [--json] [--check]

Clients that send do so to a loopback socket that nobody reads. Rounds of all cases alternate, and the best of
each counts, since what else the machine does only adds. `--check` exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import socket
import sys
import threading
import time
import timeit
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 8
LIMIT = "list.append"
TAGS = {"provider": "openai", "model": "gpt-4.1", "agent": "default"}
Cases = dict[str, tuple[str, dict[str, Any]]]  # label to statement and its names
Row = dict[str, Any]

# What must hold: at most so many times list.append in the same run, or so many nanoseconds.
BUDGETS: dict[str, tuple[float, float]] = {
    "perfkit handle.record": (25, 325),
    "perfkit tracker.record_metric, 3 tags": (60, 800),
}


def ours(address: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    tracker, sending = PerformanceTracker(), PerformanceTracker(statsd=address)
    names = {"t": tracker, "h": tracker.handle("x_duration"), "s": sending.handle("x_duration"), "tags": TAGS}
    names["f"] = tracker.timer("decorated")(lambda: None)
    yield "perfkit handle.record", "h.record(1.5)", names
    yield "perfkit handle.record, to StatsD", "s.record(1.5)", names
    yield "perfkit tracker.record_metric", "t.record_metric('x_duration', 1.5)", names
    yield "perfkit tracker.record_metric, 3 tags", "t.record_metric('x_duration', 1.5, tags)", names
    yield "perfkit tracker.increment, 3 tags", "t.increment('hits', tags=tags)", names
    yield "perfkit with handle.timer()", "with h.timer(): pass", names
    yield "perfkit with tracker.timer, 3 tags", "with t.timer('x', tags): pass", names
    yield "perfkit @tracker.timer", "f()", names
    yield "perfkit start_timer + end_timer", "t.start_timer('x'); t.end_timer('x')", names


def statsd_package(port: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    client = import_module("statsd").StatsClient("127.0.0.1", port, prefix="perfkit")
    names = {"c": client, "p": Batches(client)}
    yield "statsd timing", "c.timing('x_duration', 1500)", names
    yield "statsd pipeline, 1000 a flush (one thread)", "p.timing()", names
    yield "statsd incr", "c.incr('hits')", names
    yield "statsd with timer", "with c.timer('x'): pass", names


class Batches:
    """A statsd pipeline sent every 1000 values: the fastest that package goes; it is not safe for threads."""

    def __init__(self, client: Any) -> None:
        self.pipeline, self.left = client.pipeline(), 1000

    def timing(self) -> None:
        self.pipeline.timing("x_duration", 1500)
        self.left -= 1
        if not self.left:
            self.pipeline.send()
            self.left = 1000


def prometheus(_: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    client = import_module("prometheus_client")
    histogram = client.Histogram("x", "", list(TAGS), registry=client.CollectorRegistry())
    names = {"b": histogram.labels(*TAGS.values()), "x": histogram, "v": tuple(TAGS.values())}
    yield "prometheus_client bound child.observe", "b.observe(1.5)", names
    yield "prometheus_client labels().observe, 3 tags", "x.labels(*v).observe(1.5)", names
    yield "prometheus_client with child.time()", "with b.time(): pass", names


def datadog(port: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    client = import_module("datadog.dogstatsd").DogStatsd(host="127.0.0.1", port=port, disable_buffering=False)
    names = {"c": client, "tags": [f"{name}:{value}" for name, value in TAGS.items()]}
    yield "datadog buffered histogram", "c.histogram('x', 1.5)", names
    yield "datadog buffered histogram, 3 tags", "c.histogram('x', 1.5, tags)", names


def cases(peer: socket.socket) -> Cases:
    port = peer.getsockname()[1]
    found: Cases = {LIMIT: ("a(1.5)", {"a": [].append})}
    found.update((label, (code, names)) for label, code, names in ours(f"127.0.0.1:{port}"))
    for module, make in (("statsd", statsd_package), ("prometheus_client", prometheus), ("datadog", datadog)):
        if find_spec(module) is not None:
            found.update((label, (code, names)) for label, code, names in make(port))
    return found


def measure(found: Cases, number: int, rounds: int) -> dict[str, Row]:
    """Return nanoseconds a call of each case, alone and with 8 threads at once (wall time, all calls together)."""
    timers = {label: timeit.Timer(code, globals=names) for label, (code, names) in found.items()}
    alone: dict[str, list[float]] = {label: [] for label in timers}
    together: dict[str, list[float]] = {label: [] for label in timers}
    for _ in range(rounds):
        for label, timer in timers.items():
            alone[label].append(timer.timeit(number) / number * 1e9)
            if "one thread" not in label:
                together[label].append(in_threads(timer, number // THREADS))
            if label == LIMIT:
                found[LIMIT][1]["a"].__self__.clear()  # the list
    return {label: {"ns": min(alone[label]), "ns_threads": min(together[label], default=None)} for label in timers}


def in_threads(timer: timeit.Timer, number: int) -> float:
    barrier = threading.Barrier(THREADS + 1)

    def work() -> None:
        barrier.wait()
        timer.timeit(number)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - started) / (number * THREADS) * 1e9


def judged(rows: dict[str, Row]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for label, row in rows.items():
        times = row["ns"] / rows[LIMIT]["ns"]
        statsd = rows.get("statsd timing")
        entry: dict[str, Any] = {"case": label, **row, "times_append": times}
        entry["times_statsd"] = row["ns"] / statsd["ns"] if statsd else None
        if label in BUDGETS:
            most_times, most_ns = BUDGETS[label]
            entry["budget"] = {"times_append": most_times, "ns": most_ns}
            entry["kept"] = times <= most_times or row["ns"] <= most_ns
        result.append(entry)
    return result


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'':44}{'ns':>8}{'8 threads':>11}{'x append':>10}{'x statsd':>10}  budget")
    for row in rows:
        threads = f"{row['ns_threads']:.0f}" if row["ns_threads"] else "-"
        statsd = f"{row['times_statsd']:.2f}" if row["times_statsd"] else "-"
        budget = ""
        if "budget" in row:
            state = "kept" if row["kept"] else "MISSED"
            budget = f"{state} (x{row['budget']['times_append']:g} or {row['budget']['ns']:g} ns)"
        print(
            f"{row['case']:44}{row['ns']:>8.0f}{threads:>11}{row['times_append']:>10.1f}{statsd:>10}  {budget}".rstrip()
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="What recording a metric costs.")
    parser.add_argument("--quick", action="store_true", help="a short run, under 10 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a budget is missed")
    options = parser.parse_args()
    number, rounds = (8_000, 5) if options.quick else (40_000, 7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        rows = judged(measure(cases(peer), number, rounds))
    if options.json:
        print(json.dumps({"python": platform.python_version(), "number": number, "rounds": rounds, "rows": rows}))
    else:
        show(rows)
    return int(options.check and not all(row.get("kept", True) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
