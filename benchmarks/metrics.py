"""What recording a metric costs, beside list.append (the least anything can cost) and the clients people use.

    python benchmarks/metrics.py [--quick] [--json] [--check]

Clients that send do so to a loopback socket that nobody reads. Many short rounds of all cases alternate, and the best
of each counts, since what else the machine does only adds. `--check` exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
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

THREADS = 16
LIMIT = "list.append"
TAGS = {"provider": "openai", "model": "gpt-4.1", "agent": "default"}
Cases = dict[str, tuple[str, dict[str, Any]]]  # label to statement and its names
Row = dict[str, Any]

HANDLE, RECORD, TIMER = "perfkit handle.record", "perfkit tracker.record_metric, 3 tags", "perfkit with handle.timer()"
PROMETHEUS, OTEL = "prometheus_client labels().observe, 3 tags", "opentelemetry histogram.record, 3 tags"

# What must hold, alone and in 16 threads: (case, what it is divided by, at most).
BOUNDS = (
    (HANDLE, LIMIT, 25.0),
    (RECORD, PROMETHEUS, 1 / 3),
    (RECORD, OTEL, 1 / 10),
    (TIMER, "prometheus_client with child.time()", 1 / 2),
)
CONVOY = 1.3  # 16 threads together to one alone, of all our cases


def ours(address: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    tracker, sending = PerformanceTracker(), PerformanceTracker(statsd=address)
    names = {"t": tracker, "h": tracker.handle("x_duration"), "s": sending.handle("x_duration"), "tags": TAGS}
    names["f"] = tracker.timer("decorated")(lambda: None)
    yield "perfkit handle.record", "h.record(1.5)", names
    spread = itertools.cycle([1.01**i for i in range(700)]).__next__  # a thousandfold: the most a drain has to do
    yield "perfkit handle.record(next()), spread values", "h.record(v())", {"h": tracker.handle("y"), "v": spread}
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


def opentelemetry(_: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    metrics = import_module("opentelemetry.sdk.metrics")
    reader = import_module("opentelemetry.sdk.metrics.export").InMemoryMetricReader()
    meter = metrics.MeterProvider(metric_readers=[reader]).get_meter("benchmark")
    names = {"h": meter.create_histogram("x"), "tags": TAGS}
    yield "opentelemetry histogram.record", "h.record(1.5)", names
    yield OTEL, "h.record(1.5, tags)", names


def ddsketch(_: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    names = {"s": import_module("ddsketch").DDSketch(0.01), "lock": threading.Lock()}
    yield "ddsketch.add (not safe for threads)", "s.add(1.5)", names
    yield "ddsketch.add under a lock", "with lock: s.add(1.5)", names


RIVALS = {
    "statsd": statsd_package,
    "prometheus_client": prometheus,
    "datadog": datadog,
    "opentelemetry.sdk": opentelemetry,
    "ddsketch": ddsketch,
}


def installed(module: str) -> bool:
    return find_spec(module.partition(".")[0]) is not None and find_spec(module) is not None


def cases(peer: socket.socket) -> Cases:
    port = peer.getsockname()[1]
    found: Cases = {LIMIT: ("a(1.5)", {"a": [].append})}
    found.update((label, (code, names)) for label, code, names in ours(f"127.0.0.1:{port}"))
    for module, make in RIVALS.items():
        if installed(module):
            found.update((label, (code, names)) for label, code, names in make(port))
    return found


def measure(found: Cases, number: int, rounds: int) -> dict[str, Row]:
    """Return nanoseconds a call of each case, alone and with 16 threads at once (wall time, all calls together)."""
    timers = {label: timeit.Timer(code, globals=names) for label, (code, names) in found.items()}
    alone: dict[str, list[float]] = {label: [] for label in timers}
    together: dict[str, list[float]] = {label: [] for label in timers}
    for turn in range(rounds):
        for label, timer in timers.items():
            alone[label].append(timer.timeit(number) / number * 1e9)
            if turn % 5 == 0 and "one thread" not in label and "not safe" not in label:
                together[label].append(in_threads(timer, number * 5 // THREADS))
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
    """Return each bound with what was measured, where both parts of the ratio were."""
    found = []
    for case, by, most in BOUNDS:
        for threads, column in ((1, "ns"), (THREADS, "ns_threads")):
            if by in rows:
                ratio = rows[case][column] / rows[by][column]
                found.append({"case": case, "by": by, "threads": threads, "ratio": ratio, "most": most})
    for case in (HANDLE, RECORD, TIMER):
        ratio = rows[case]["ns_threads"] / rows[case]["ns"]
        found.append({"case": case, "by": "itself alone", "threads": THREADS, "ratio": ratio, "most": CONVOY})
    return [{**row, "kept": row["ratio"] <= row["most"]} for row in found]


def show(rows: dict[str, Row], bounds: list[dict[str, Any]]) -> None:
    print(f"{'':46}{'ns':>8}{'16 threads':>12}{'x append':>10}{'x itself alone':>16}")
    for label, row in rows.items():
        together = f"{row['ns_threads']:.0f}" if row["ns_threads"] else "-"
        convoy = f"{row['ns_threads'] / row['ns']:.2f}" if row["ns_threads"] else "-"
        print(f"{label:46}{row['ns']:>8.0f}{together:>12}{row['ns'] / rows[LIMIT]['ns']:>10.1f}{convoy:>16}")
    print()
    for row in bounds:
        threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
        state = "kept" if row["kept"] else "MISSED"
        print(f"{row['case']} / {row['by']}, {threads}: {row['ratio']:.3f} (at most {row['most']:.3f}) {state}")


def main() -> int:
    parser = argparse.ArgumentParser(description="What recording a metric costs.")
    parser.add_argument("--quick", action="store_true", help="a short run, under 10 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a budget is missed")
    options = parser.parse_args()
    number, rounds = (1_500, 25) if options.quick else (5_000, 50)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        rows = measure(cases(peer), number, rounds)
    bounds = judged(rows)
    if options.json:
        about = {"python": platform.python_version(), "load": os.getloadavg()[0], "number": number, "rounds": rounds}
        print(json.dumps({**about, "rows": rows, "bounds": bounds}))
    else:
        print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
        show(rows, bounds)
    return int(options.check and not all(row["kept"] for row in bounds))


if __name__ == "__main__":
    sys.exit(main())
