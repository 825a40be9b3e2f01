"""What sinks cost those who record, what they send, and how long a scrape and an evaluation of alerts take.

    python benchmarks/sinks.py [--quick] [--json] [--check]

Recording with a sink is compared with recording without, in turns in one process: the daemon reads, is stopped
(SIGSTOP), or is not there. `--check` exits with 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import timeit
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.alerts import Alerts
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sinks.prometheus import render
from perfkit.metrics.sinks.statsd import StatsdSink
from perfkit.tokens import TokenOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TAGS = {"provider": "openai", "model": "gpt-4.1", "agent": "default"}
READER = """
import socket, sys
kind, address = sys.argv[1], sys.argv[2]
peer = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET, socket.SOCK_DGRAM)
peer.bind(address if kind == "unix" else ("127.0.0.1", int(address)))
print("up", flush=True)
while True:
    peer.recv(65536)
"""
SLOWER = 2.0  # times: at most so much slower may the slowest thousandth of records be with a sink
SCRAPE = 0.05  # seconds for a page of 200 series
EVALUATION = 0.05  # seconds for the four rules of 10 providers


@contextmanager
def reader(kind: str, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon that reads and forgets."""
    with subprocess.Popen([sys.executable, "-c", READER, kind, address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def latencies(record: Callable[[float], None], number: int) -> list[int]:
    """Return the nanoseconds of each of so many records."""
    clock, found = time.perf_counter_ns, []
    for _ in range(number):
        began = clock()
        record(1.5)
        found.append(clock() - began)
    return found


def paired(statsd: str, number: int, rounds: int) -> dict[str, Any]:
    """Return how records with a sink compare with those without, both in turns."""
    plain, sending = PerformanceTracker(), PerformanceTracker(statsd=statsd, flush_interval=0.5)
    without, with_sink = plain.handle("x_duration", TAGS), sending.handle("x_duration", TAGS)
    both: tuple[list[int], list[int]] = ([], [])
    for _ in range(rounds):
        both[0].extend(latencies(without.record, number))
        both[1].extend(latencies(with_sink.record, number))
    sink: Any = sending._configured_sinks[0]
    result: dict[str, Any] = {"sent": sink.sent, "dropped": sink.dropped}
    for name, found in zip(("without", "with"), both, strict=True):
        found.sort()
        result[f"{name}_mean_ns"] = sum(found) / len(found)
        result[f"{name}_p99_9_ns"] = found[len(found) * 999 // 1000]
        result[f"{name}_max_us"] = found[-1] / 1000
    result["times_p99_9"] = result["with_p99_9_ns"] / result["without_p99_9_ns"]
    for tracker in (plain, sending):
        tracker.close()
    return result


def recording(number: int, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"daemon absent, UDP": paired(f"127.0.0.1:{free_port()}", number, rounds)}
    port = free_port()
    with reader("udp", str(port)) as process:
        found["daemon reads, UDP"] = paired(f"127.0.0.1:{port}", number, rounds)
        process.send_signal(signal.SIGSTOP)
        found["daemon stopped, UDP"] = paired(f"127.0.0.1:{port}", number, rounds)
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/socket"
        with reader("unix", path) as process:
            process.send_signal(signal.SIGSTOP)
            found["daemon stopped, Unix socket"] = paired(f"unix://{path}", number, rounds)
    return found


class Counting:
    """A UDP peer that counts what comes, between sends."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.datagrams = self.bytes = 0

    def drain(self) -> None:
        while True:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                return
            self.datagrams += 1
            self.bytes += len(data)


def sending(number: int) -> dict[str, Any]:
    """Return nanoseconds, datagrams and bytes a value, of our sink and the `statsd` package."""
    found = {}
    flavors: tuple[tuple[str, dict[str, Any]], ...] = (
        ("perfkit statsd", {}),
        ("perfkit dogstatsd", {"flavor": "dogstatsd"}),
        ("perfkit dogstatsd, packed", {"flavor": "dogstatsd", "pack": True}),
    )
    for label, options in flavors:
        peer = Counting()
        sink = StatsdSink(f"127.0.0.1:{peer.socket.getsockname()[1]}", **options)
        sink.flush()
        found[label] = sent(peer, partial(emit, sink), number)
        found[label]["dropped"] = sink.dropped
        sink.close()
    if find_spec("statsd") is not None:
        peer = Counting()
        client = import_module("statsd").StatsClient("127.0.0.1", peer.socket.getsockname()[1], prefix="perfkit")
        name = "x_duration.agent.default.model.gpt-4_1.provider.openai"
        found["statsd package"] = sent(peer, lambda n: client.timing(name, n), number)
    return found


def emit(sink: StatsdSink, n: int) -> None:
    sink.emit("timing", "x_duration", n / 1000, TAGS)


def sent(peer: Counting, send: Callable[[int], Any], number: int) -> dict[str, Any]:
    took = 0.0
    for start in range(0, number, 500):
        began = time.perf_counter()
        for n in range(start, start + 500):
            send(n)
        took += time.perf_counter() - began
        time.sleep(0.02)  # within the pace
        peer.drain()
    peer.socket.close()
    return {
        "ns": took / number * 1e9,
        "values_a_datagram": number / max(1, peer.datagrams),
        "bytes_a_value": peer.bytes / number,
    }


def pages(rounds: int) -> dict[str, Any]:
    """Return seconds for a page of 200 series, here and by prometheus_client."""
    tracker = PerformanceTracker()
    for n in range(200):
        for i in range(100):
            tracker.record_metric("provider_latency", 0.01 * (i + 1), {"n": n})
    found = {"perfkit": min(timeit.repeat(lambda: render(tracker), number=1, repeat=rounds))}
    tracker.close()
    if find_spec("prometheus_client") is not None:
        client = import_module("prometheus_client")
        registry = client.CollectorRegistry()
        histogram = client.Histogram("x", "", ["n"], registry=registry, buckets=[2.0**n for n in range(-10, 9)])
        for n in range(200):
            for i in range(100):
                histogram.labels(str(n)).observe(0.01 * (i + 1))
        found["prometheus_client"] = min(
            timeit.repeat(lambda: client.generate_latest(registry), number=1, repeat=rounds)
        )
    return found


def evaluation(rounds: int) -> float:
    """Return seconds for the four rules over 10 providers with an hour of values."""
    tracker = PerformanceTracker()
    alerts = Alerts(tracker=tracker, optimizer=TokenOptimizer(tracker=tracker), daily_limit=10.0)
    for n in range(10):
        for i in range(1000):
            tracker.record_metric("provider_latency", 0.01 * (i + 1), {"provider": n, "model": i % 5})
            tracker.increment("provider_failure", tags={"provider": n, "error": "ServerError"})
    took = min(timeit.repeat(alerts.evaluate, number=1, repeat=rounds))
    alerts.close()
    tracker.close()
    return took


def measured(*, quick: bool) -> dict[str, Any]:
    number, rounds = (20_000, 5) if quick else (100_000, 10)
    return {
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "recording": recording(number, rounds),
        "sending": sending(5_000 if quick else 20_000),
        "page_seconds": pages(3 if quick else 10),
        "evaluation_seconds": evaluation(3 if quick else 10),
    }


def kept(result: dict[str, Any]) -> bool:
    slowest = max(row["times_p99_9"] for row in result["recording"].values())
    page, evaluated = float(result["page_seconds"]["perfkit"]), float(result["evaluation_seconds"])
    return float(slowest) <= SLOWER and page <= SCRAPE and evaluated <= EVALUATION


def show(result: dict[str, Any]) -> None:
    print(
        f"{'record, ns':30}{'mean':>8}{'without':>9}{'p99.9':>8}{'without':>9}{'times':>7}{'max us':>9}{'without':>9}"
    )
    for label, row in result["recording"].items():
        print(
            f"{label:30}{row['with_mean_ns']:>8.0f}{row['without_mean_ns']:>9.0f}{row['with_p99_9_ns']:>8.0f}"
            f"{row['without_p99_9_ns']:>9.0f}{row['times_p99_9']:>7.2f}{row['with_max_us']:>9.0f}"
            f"{row['without_max_us']:>9.0f}"
        )
    print(f"\n{'send':30}{'ns':>8}{'values a datagram':>20}{'bytes a value':>15}")
    for label, row in result["sending"].items():
        print(f"{label:30}{row['ns']:>8.0f}{row['values_a_datagram']:>20.1f}{row['bytes_a_value']:>15.1f}")
    pages_ = ", ".join(f"{label} {took * 1000:.1f} ms" for label, took in result["page_seconds"].items())
    print(f"\npage of 200 histograms: {pages_}")
    print(f"four rules over 10 providers: {result['evaluation_seconds'] * 1000:.1f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description="What sinks and alerts cost.")
    parser.add_argument("--quick", action="store_true", help="a short run, under 15 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    options = parser.parse_args()
    result = measured(quick=options.quick)
    print(json.dumps(result)) if options.json else show(result)
    return int(options.check and not kept(result))


if __name__ == "__main__":
    sys.exit(main())
