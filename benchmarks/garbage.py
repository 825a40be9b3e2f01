"""What garbage collection costs a Flask app under gunicorn's threads, as Python does it and as perfkit does it.

    python benchmarks/garbage.py [--quick] [--json] [--objects N] [--part latency|sessions|preload]

"latency": 100 requests a second arrive whether the app is ready or not, each reads a JSON reply of 100 KB; latency
counts from the arrival; without any collection ("off") it is what the machine adds. Then 8 clients ask as fast as they
can. "sessions": each request leaves a session that dies as a cycle after 2 seconds. "preload": four forked workers with
Django, Flask and what else is installed. Each pair of runs is made one after the other, so ratios say more than
milliseconds, and the machine's load stands beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RATE, CLIENTS = 100.0, 8
Row = dict[str, Any]


@contextlib.contextmanager
def serving(workload: str, objects: int, *options: str) -> Iterator[tuple[int, int]]:
    """Run the app; yield its port and the pid of gunicorn's master."""
    listener = socket.create_server(("127.0.0.1", 0))
    os.set_inheritable(listener.fileno(), True)
    port = listener.getsockname()[1]
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    env = os.environ | {"WORKLOAD": workload, "OBJECTS": str(objects), "PYTHONPATH": path}
    command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--log-level", "warning",
               "--threads", str(CLIENTS), "--keep-alive", "60", *options, "_garbage_app:application"]  # fmt: skip
    process = subprocess.Popen(command, env=env, pass_fds=[listener.fileno()], cwd=HERE)
    try:
        get(port, "/collect", patience=60)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)
        listener.close()


def get(port: int, path: str, patience: float = 30) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def asking(port: int, path: str, arrivals: Iterator[float | None]) -> list[float]:
    """Ask once per arrival with 8 clients; return the seconds from arrival to answer."""
    todo: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    seconds: list[float] = []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while (arrival := todo.get()) is not None:
            connection.request("GET", path)
            connection.getresponse().read()
            seconds.append(time.perf_counter() - arrival)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(2 * CLIENTS)]
    for thread in threads:
        thread.start()
    for arrival in arrivals:
        todo.put(arrival)
    for _ in threads:
        todo.put(None)
    for thread in threads:
        thread.join()
    return seconds


def evenly(duration: float) -> Iterator[float]:
    began = time.perf_counter() + 0.05
    for number in range(int(duration * RATE)):
        arrival = began + number / RATE
        time.sleep(max(0.0, arrival - time.perf_counter()))
        yield arrival


def saturated(port: int, duration: float) -> float:
    """Return the requests a second that 8 clients get answered."""
    end, done = time.perf_counter() + duration, [0] * CLIENTS

    def work(index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while time.perf_counter() < end:
            connection.request("GET", "/ask")
            connection.getresponse().read()
            done[index] += 1
        connection.close()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / duration


def percentile(values: list[float], rank: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * rank))] * 1e3


def latency(workload: str, objects: int, duration: float) -> Row:
    with serving(workload, objects) as (port, _):
        asking(port, "/ask", evenly(1.0))
        get(port, "/begin")
        seconds = asking(port, "/ask", evenly(duration))
        seen = get(port, "/report")
        rate = saturated(port, duration / 2)
    return {
        "case": workload or "default", "p50": percentile(seconds, 0.5), "p99": percentile(seconds, 0.99),
        "p99_9": percentile(seconds, 0.999), "throughput": rate, "load": os.getloadavg()[0], **seen,
    }  # fmt: skip


def dying(workload: str, objects: int, duration: float) -> Row:
    with serving(workload, objects) as (port, _):
        get(port, "/begin")
        highest = 0
        for _ in range(int(duration)):
            asking(port, "/session", evenly(1.0))
            highest = max(highest, get(port, "/report")["rss"])
        seen = get(port, "/report")
    return {"case": workload or "default", "highest_rss": highest, **seen}


def preloaded(workload: str) -> Row:
    with serving(workload, 0, "--preload", "--workers", "4") as (port, master):
        for _ in range(3):
            asking(port, "/light", evenly(1.0))
        for _ in range(16):
            get(port, "/collect")
        workers = [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
        parts = [memory(pid) for pid in (master, *workers)]
    private = [part["Private_Dirty"] for part in parts[1:]]
    return {"case": workload or "default", "private": sum(private) / len(private), "pss": sum(p["Pss"] for p in parts)}


def memory(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kb) * 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def show(result: dict[str, Any]) -> None:
    mb = 2**20
    if "latency" in result:
        print("latency              p50     p99   p99.9  in request   gc s   req/s    MB  load")
        for r in result["latency"]:
            print(f"{r['case']:16}{r['p50']:>8.1f}{r['p99']:>8.1f}{r['p99_9']:>8.1f}{r['longest_ms']:>12.1f}"
                  f"{r['gc_seconds']:>7.2f}{r['throughput']:>8.0f}{r['rss'] / mb:>6.0f}{r['load']:>6.1f}")  # fmt: skip
        base, *others = result["latency"]
        for r in others:
            print(
                f"  {r['case']}: p99 {base['p99'] / r['p99']:.1f} and p99.9 {base['p99_9'] / r['p99_9']:.1f} x lower,"
                f" throughput {r['throughput'] / base['throughput'] - 1:+.0%}, RSS {r['rss'] / base['rss'] - 1:+.0%}"
            )
    for part, unit in (("sessions", "highest_rss"), ("preload", "private"), ("preload", "pss")):
        if part in result:
            told = ", ".join(f"{r['case']} {r[unit] / mb:.1f} MB" for r in result[part])
            ratio = result[part][1][unit] / result[part][0][unit]
            print(f"{part:10}{unit:12}{told}: x{ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="What garbage collection costs requests.")
    parser.add_argument("--quick", action="store_true", help="a short run with fewer objects, under 30 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--objects", type=int, help="objects that live (1 million)")
    parser.add_argument("--seconds", type=float, help="of each run (10)")
    parser.add_argument("--part", action="append", choices=["latency", "sessions", "preload"])
    options = parser.parse_args()
    seconds = options.seconds or (2.0 if options.quick else 10.0)
    objects = options.objects or (150_000 if options.quick else 1_000_000)
    parts = options.part or ["latency", "sessions", "preload"]
    result: dict[str, Any] = {"python": platform.python_version(), "objects": objects, "seconds": seconds}
    if "latency" in parts:
        cases = ["", "low_latency"] if options.quick else ["", "low_latency", "high_throughput", "off"]
        result["latency"] = [latency(case, objects, seconds) for case in cases]
    if "sessions" in parts:
        result["sessions"] = [dying(case, 20_000, seconds) for case in ("", "low_latency")]
    if "preload" in parts:
        result["preload"] = [preloaded(case) for case in ("", "fork_server")]
    print(json.dumps(result)) if options.json else show(result)


if __name__ == "__main__":
    main()
