"""What a batch costs beside the work it does, against concurrent.futures in the same run.

    python benchmarks/batch.py [--quick] [--json]

No-ops show the cost of an item in time, and in memory at its highest; items that wait 5 ms show whether the threads are
kept busy. Rounds alternate; the best of each counts, since what else the machine does only adds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.agents import map_bounded

WORKERS = 8


def executor(work: Callable[[int], Any], number: int) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(work, range(number)):
            pass


def ordered(work: Callable[[int], Any], number: int) -> None:
    for _ in map_bounded(work, range(number), WORKERS):
        pass


def as_completed(work: Callable[[int], Any], number: int) -> None:
    for _ in map_bounded(work, range(number), WORKERS, ordered=False):
        pass


def of_a_generator(work: Callable[[int], Any], number: int) -> None:
    for _ in map_bounded(work, (n for n in range(number)), WORKERS):
        pass


CASES = {
    "ThreadPoolExecutor.map": executor,
    "map_bounded": ordered,
    "map_bounded, as completed": as_completed,
    "map_bounded, of a generator": of_a_generator,
}


def seconds(way: Callable[..., None], work: Callable[[int], Any], number: int) -> float:
    gc.collect()  # what the way before left is not charged to this one
    began = time.perf_counter()
    way(work, number)
    return time.perf_counter() - began


def peak(way: Callable[..., None], number: int) -> float:
    """Return the KiB at the highest, for 1,000 items."""
    tracemalloc.start()
    way(int, number)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest / 1024 / (number / 1000)


def pause(_: int) -> None:
    time.sleep(0.005)


def measured(number: int, rounds: int) -> list[dict[str, Any]]:
    least = {name: [float("inf"), float("inf")] for name in CASES}
    for _ in range(rounds):
        for name, way in CASES.items():
            least[name][0] = min(least[name][0], seconds(way, int, number) / number * 1e6)
            least[name][1] = min(least[name][1], seconds(way, pause, 200))
    base = least["ThreadPoolExecutor.map"]
    return [
        {
            "case": name, "us": noop, "of_executor": noop / base[0], "waits": waits,
            "waits_of_executor": waits / base[1], "kib_per_1000": peak(CASES[name], 10_000),
        }
        for name, (noop, waits) in least.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="What a batch costs beside the work it does.")
    parser.add_argument("--quick", action="store_true", help="a short run, under 10 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    rows = measured(*((20_000, 3) if options.quick else (100_000, 5)))
    if options.json:
        print(json.dumps({"python": platform.python_version(), "rows": rows}))
        return
    print(f"load {os.getloadavg()[0]:<23.1f}{'us/item':>9}{'ratio':>7}{'200 x 5 ms':>12}{'ratio':>7}{'KiB/1000':>10}")
    for r in rows:
        print(f"{r['case']:28}{r['us']:>9.2f}{r['of_executor']:>7.2f}{r['waits'] * 1e3:>9.1f} ms"
              f"{r['waits_of_executor']:>7.3f}{r['kib_per_1000']:>10.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
