"""What profiling costs, and whether stalls are caught: `@profile`, the registry, the sampler, five kinds of stall.

    python benchmarks/profiling.py [--quick] [--json] [--check]

Cases that are compared alternate in short rounds, and the best of each counts, since what else the machine does only
adds. `--check` exits with 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import sys
import threading
import time
import timeit
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.metrics import PerformanceTracker
from perfkit.metrics.operations import Operations, Running
from perfkit.profiling import Profiler, runs
from perfkit.profiling.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

REPLY = json.dumps([{"id": n, "text": "word " * 12, "score": n / 7, "tags": ["a", "b"]} for n in range(900)])
THREADS = 64


def plain(value: int) -> int:
    return value


def best(cases: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    found = {name: float("inf") for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            found[name] = min(found[name], run())
    return found


def timed(statement: str, names: dict[str, Any], number: int = 500) -> Callable[[], float]:
    timer = timeit.Timer(statement, globals=names)
    return lambda: timer.timeit(number) / number * 1e9


def decorators(rounds: int) -> dict[str, float]:
    """Nanoseconds that are added to a call."""
    profiler = Profiler(tracker=PerformanceTracker(), slow_capture="off")
    measured, longer, with_rss = (profiler.profile(name)(plain) for name in ("default", "longer", "rss"))
    registry, operation = Operations(), profiler.operation("registry")

    def register() -> None:
        run = Running()
        run.operation, run.thread, run.slow = operation, threading.get_ident(), None
        registry.running[run] = None
        registry.running.pop(run, None)

    def counted_as(limits: dict[str, float], function: Callable[[int], int]) -> float:
        """Time a function whose runs count as longer than they are."""
        former = {name: getattr(runs, name) for name in limits}
        vars(runs).update(limits)
        try:
            return timed("f(1)", {"f": function})()
        finally:
            vars(runs).update(former)

    cases: dict[str, Callable[[], float]] = {
        "nothing": timed("f(1)", {"f": plain}),
        "empty": timed("f()", {"f": lambda: None}),
        "two readings of the thread's CPU clock": timed("c(); c()", {"c": time.thread_time}),
        "@profile": timed("f(1)", {"f": measured}),
        "@profile, run of more than 20 us": partial(counted_as, {"BRIEF": -1.0}, longer),
        "@profile with RSS": partial(counted_as, {"BRIEF": -1.0, "SLOW": -1.0}, with_rss),
        "registry": timed("f()", {"f": register}),
    }
    found = best(cases, rounds)
    found["registry"] -= found.pop("empty")
    bare = found.pop("nothing")
    return {name: value - (bare if "@" in name else 0.0) for name, value in found.items()}


def request() -> int:
    return sum(len(json.dumps(row)) for row in json.loads(REPLY))


def slowdowns(rounds: int) -> dict[str, float]:
    """Times a request takes under a profiler, to the same without: the median of pairs."""

    def paired(begin: Callable[[], Any], end: Callable[[Any], object]) -> float:
        def under() -> float:
            running = begin()
            try:
                return timeit.timeit(request, number=20)
            finally:
                end(running)

        ratios = []
        for number in range(rounds):  # who is first changes, for what the machine does changes meanwhile
            if number % 2:
                without = timeit.timeit(request, number=20)
                ratios.append(under() / without)
            else:
                ratios.append(under() / timeit.timeit(request, number=20))
        return sorted(ratios)[len(ratios) // 2]

    def sampler() -> Sampler:
        one = Sampler(interval=0.01)
        one.start()
        return one

    found = {"own sampler, 10 ms": paired(sampler, Sampler.stop), "nothing (noise)": paired(int, int)}
    if find_spec("pyinstrument") is not None:
        profiler = Profiler(tracker=PerformanceTracker(), slow_capture="off")

        def block() -> Any:
            return profiler.cpu_profile("request", engine="pyinstrument").__enter__()

        found["pyinstrument, 10 ms"] = paired(block, lambda one: one.__exit__(None, None, None))
    return found


LOCK = threading.Lock()


def slow_provider() -> None:
    threading.Event().wait(0.5)


def lock_wait() -> None:
    with LOCK:
        LOCK.acquire(timeout=0.5)


def regex() -> None:
    re.match(r"(a|aa)+$", "a" * 33 + "b")


def c_call_with_the_gil() -> None:
    sum(range(50_000_000))


def sleep_with_the_gil() -> None:
    import ctypes

    ctypes.PyDLL(None).usleep(500_000)


STALLS = (slow_provider, lock_wait, regex, c_call_with_the_gil, sleep_with_the_gil)


def caught(stall: Callable[[], None]) -> dict[str, Any]:
    """Let one of 64 busy threads stall once; tell who was caught, and whether in the right line."""
    profiler, over = Profiler(tracker=PerformanceTracker(), slow_capture="on"), threading.Event()

    @profiler.profile("request")
    def serve() -> None:
        sum(range(random.randrange(2000)))
        over.wait(0.02)

    def crew() -> None:
        while not over.is_set():
            serve()

    @profiler.profile("request")
    def stalled() -> None:
        stall()
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    threads = [threading.Thread(target=crew) for _ in range(THREADS - 1)]
    for one in threads:
        one.start()
    over.wait(0.3)
    culprit = threading.Thread(target=stalled, name="culprit")
    culprit.start()
    culprit.join()
    over.set()
    for one in threads:
        one.join()
    profiler.close()
    found = profiler.slow_captures()
    own = [one for one in found if one.thread == "culprit"]
    line = any(frame.function == stall.__name__ for one in own for took in one.captures for frame in took.stack)
    return {"caught": bool(own), "right stack": line, "others": len(found) - len(own)}


def stalls(times: int) -> dict[str, dict[str, Any]]:
    table = {}
    for stall in STALLS:
        rows = [caught(stall) for _ in range(times)]
        table[stall.__name__] = {"of": times, **{key: sum(row[key] for row in rows) for key in rows[0]}}
    return table


def judged(costs: dict[str, float], slower: dict[str, float], table: dict[str, Any]) -> list[dict[str, Any]]:
    bounds = [
        ("@profile, ns", costs["@profile"], 2000.0),
        ("@profile, longer run, ns", costs["@profile, run of more than 20 us"], 2000.0),
        ("@profile with RSS, ns", costs["@profile with RSS"], 6000.0),
    ]
    bounds += [("registry, ns", costs["registry"], 200.0), ("sampler, times", slower["own sampler, 10 ms"], 1.05)]
    bounds += [("others caught", sum(row["others"] for row in table.values()), 0)]
    return [{"what": what, "measured": value, "most": most, "kept": value <= most} for what, value, most in bounds]


def main() -> int:
    parser = argparse.ArgumentParser(description="What profiling costs, and whether stalls are caught.")
    parser.add_argument("--quick", action="store_true", help="a short run, under 30 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    options = parser.parse_args()
    rounds, pairs, times = (100, 9, 1) if options.quick else (400, 31, 3)
    costs, slower, table = decorators(rounds), slowdowns(pairs), stalls(times)
    bounds = judged(costs, slower, table)
    result = {"costs_ns": costs, "slowdown": slower, "stalls": table, "bounds": bounds}
    if options.json:
        print(json.dumps({"python": platform.python_version(), "load": os.getloadavg()[0], **result}))
        return int(options.check and not all(row["kept"] for row in bounds))
    print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    for name, value in costs.items():
        print(f"{name:45}{value:8.0f} ns")
    for name, value in slower.items():
        print(f"{name:45}{value:8.2f} times a request")
    for name, row in table.items():
        print(f"{name:45}{row}")
    for row in bounds:
        print(f"{row['what']}: {row['measured']:.2f} (at most {row['most']}) {'kept' if row['kept'] else 'MISSED'}")
    return int(options.check and not all(row["kept"] for row in bounds))


if __name__ == "__main__":
    sys.exit(main())
