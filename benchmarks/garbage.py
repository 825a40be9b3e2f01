"""What garbage collection costs a Flask app under gunicorn's threads, as Python does it and as perfkit does it.

    python benchmarks/garbage.py [--quick] [--json] [--objects N] [--seconds N] [--part NAME]

"latency": 100 requests a second arrive whether the app is ready or not, each reads a JSON reply of 100 KB; latency
counts from the arrival. Then 16 clients ask as fast as they can. All cases run side by side and are asked in turns, so
that a busy machine is as busy for one as for the other; "off" never collects, which is what the machine adds by itself.
"stalled" is counted inside: the time requests stood still for collections, whoever made them.
"sessions": each request leaves a session that dies as a cycle after 2 seconds.
"lasting": both, at a fifth of the rate, for as long as `--seconds` says (600).
"preload": four forked workers with Django, Flask and, where it is installed, SQLAlchemy. Private are the dirty pages
of a worker that no other process shares: at rest, and after 300 requests and a full collection in each. "frozen"
is the same application without anything of perfkit, after `gc.freeze()`: what no freezing can go below.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._gunicorn import Served, evenly, memory, serving
from perfkit.memory.immortal import possible

RATE = 100.0  # requests a second
ROUNDS = 5
WORKERS = 4
MB = 2**20
Row = dict[str, Any]


def named(case: str) -> str:
    return case or "default"


@contextlib.contextmanager
def side_by_side(cases: Sequence[str], objects: int) -> Iterator[list[Served]]:
    with contextlib.ExitStack() as stack:
        options = [{"WORKLOAD": case, "OBJECTS": str(objects)} for case in cases]
        with ThreadPoolExecutor(len(cases)) as starting:
            managers = [serving("_garbage_app:application", env) for env in options]
            yield list(starting.map(stack.enter_context, managers))


def percentile(values: list[float], rank: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * rank))] * 1e3


def latency(cases: Sequence[str], objects: int, duration: float) -> list[Row]:
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    speeds: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    with side_by_side(cases, objects) as servers:
        pairs = list(zip(cases, servers, strict=True))
        for _, served in pairs:
            served.ask("/ask", evenly(1.5, RATE))
            served.get("/begin")
        for _ in range(ROUNDS):
            for case, served in pairs:
                seconds[case] += served.ask("/ask", evenly(duration / ROUNDS, RATE))
        seen = {case: served.get("/report") for case, served in pairs}
        for _ in range(ROUNDS):
            for case, served in pairs:
                speeds[case].append(served.saturate("/ask", duration / ROUNDS / 2))
    return [
        {
            "case": named(case), "p50": percentile(seconds[case], 0.5), "p99": percentile(seconds[case], 0.99),
            "p99_9": percentile(seconds[case], 0.999),
            "throughput": statistics.median(rate for rate, _ in speeds[case]),
            "cpu_ms": statistics.median(cpu for _, cpu in speeds[case]) * 1e3, **seen[case],
        }
        for case in cases
    ]  # fmt: skip


def dying(cases: Sequence[str], objects: int, duration: float, rate: float, *paths: str) -> list[Row]:
    """Run all cases at once: memory does not mind."""

    def run(pair: tuple[str, Served]) -> Row:
        case, served = pair
        served.get("/begin")
        course = []
        for second in range(int(duration)):
            for path in paths:
                served.ask(path, evenly(1.0 / len(paths), rate))
            if second % max(1, int(duration) // 60) == 0:
                course.append(served.get("/report")["rss"])
        return {"case": named(case), "highest_rss": max(course), "course": course, **served.get("/report")}

    with side_by_side(cases, objects) as servers, ThreadPoolExecutor(len(cases)) as running:
        return list(running.map(run, zip(cases, servers, strict=True)))


def preloaded(case: str) -> Row:
    row: Row = {"case": named(case)}
    options, env = ["--preload", "--workers", str(WORKERS)], {"WORKLOAD": case, "OBJECTS": "0"}
    if case.startswith("fork_server"):
        options += ["--config", "python:perfkit.integrations.gunicorn"]
    with serving("_garbage_app:application", env, *options, ready="/light") as served:
        while len(served.workers()) < WORKERS:
            time.sleep(0.1)
        for when in ("rest", "served"):
            if when == "served":
                served.ask_each("/light", 300)
                served.ask_each("/collect", 1)
            parts = [memory(pid) for pid in (served.master, *served.workers())]
            private = [part["Private_Dirty"] for part in parts[1:]]
            row |= {f"private_{when}": statistics.fmean(private), f"pss_{when}": sum(p["Pss"] for p in parts)}
    return row


def show(result: dict[str, Any]) -> None:
    if "latency" in result:
        told_latency(result["latency"])
    for part in ("sessions", "lasting"):
        for row in result.get(part, ()):
            print(
                f"{part} {row['case']}: highest {row['highest_rss'] / MB:.0f} MB, at the end {row['rss'] / MB:.0f} MB,"
                f" found {row['found']}, passes {row['passes']}, longest {row['between_ms']:.0f} ms"
            )
        if part in result:
            base, *others = result[part]
            print(*(f"  {r['case']}: x{r['highest_rss'] / base['highest_rss']:.2f}" for r in others), sep="\n")
    if "preload" in result:
        base, *others = result["preload"]
        for row in others:
            for name in ("private_rest", "private_served", "pss_rest", "pss_served"):
                print(f"preload {name}: default {base[name] / MB:.1f} MB, {row['case']} {row[name] / MB:.1f} MB:"
                      f" x{row[name] / base[name]:.3f}")  # fmt: skip


def told_latency(rows: list[Row]) -> None:
    print("latency              p50     p99   p99.9 stalled99 stalled99.9 longest  gc s   req/s  cpu ms    MB")
    for r in rows:
        print(f"{r['case']:16}{r['p50']:>8.1f}{r['p99']:>8.1f}{r['p99_9']:>8.1f}{r['stalled_p99']:>10.1f}"
              f"{r['stalled_p99_9']:>12.1f}{r['stalled_longest']:>8.1f}{r['gc_seconds']:>6.2f}{r['throughput']:>8.0f}"
              f"{r['cpu_ms']:>8.2f}{r['rss'] / MB:>6.0f}")  # fmt: skip
    base = rows[0]
    for r in rows[1:]:
        print(
            f"  {r['case']}: p99 {base['p99'] / r['p99']:.1f} and p99.9 {base['p99_9'] / r['p99_9']:.1f} x lower,"
            f" throughput {r['throughput'] / base['throughput'] - 1:+.0%} (by processor time"
            f" {base['cpu_ms'] / r['cpu_ms'] - 1:+.0%}), RSS {r['rss'] / base['rss'] - 1:+.1%}"
        )
    off = next((r for r in rows if r["case"] == "off"), None)
    if off is not None:
        print(*(f"  {r['case']}: p99 x{r['p99'] / off['p99']:.2f} and p99.9 x{r['p99_9'] / off['p99_9']:.2f} of off's"
                for r in rows if r is not off), sep="\n")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="What garbage collection costs requests.")
    parser.add_argument("--quick", action="store_true", help="a short run with fewer objects, under 30 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--objects", type=int, help="objects that live (1 million)")
    parser.add_argument("--seconds", type=float, help="for each case (20; sessions 60; lasting 600)")
    parser.add_argument("--part", action="append", choices=["latency", "sessions", "lasting", "preload"])
    options = parser.parse_args()
    objects = options.objects or (150_000 if options.quick else 1_000_000)
    parts = options.part or ["latency", "sessions", "preload"]

    def lasts(usual: float, quick: float) -> float:
        return options.seconds or (quick if options.quick else usual)

    result: dict[str, Any] = {"python": platform.python_version(), "objects": objects, "load": os.getloadavg()[0]}
    if "latency" in parts:
        cases = ["", "low_latency"] if options.quick else ["", "low_latency", "high_throughput", "off"]
        result["latency"] = latency(cases, objects, lasts(20.0, 2.0))
    if "sessions" in parts:
        result["sessions"] = dying(["", "low_latency"], 20_000, lasts(60.0, 5.0), RATE, "/session")
    if "lasting" in parts:
        result["lasting"] = dying(["", "low_latency"], objects, lasts(600.0, 5.0), RATE / 5, "/ask", "/session")
    if "preload" in parts:
        counted = ["fork_server counted"] if possible() else []
        result["preload"] = [preloaded(case) for case in ["", "fork_server", *counted, "frozen"]]
    print(json.dumps(result)) if options.json else show(result)


if __name__ == "__main__":
    main()
