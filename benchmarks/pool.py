"""What borrowing costs, beside list.pop and append (the least anything can cost) and queue.LifoQueue; and who waits.

    python benchmarks/pool.py [--quick] [--json] [--check]

Rounds of all cases alternate, and the best of each counts, since what else the machine does only adds. The second
table has 64 threads that borrow one of 8 objects for 2 ms again and again: 14 ms is the ideal wait, and the bare line
shows how much of what is above it the machine adds. Then 60 children are forked while 8 threads borrow, and each has
5 s to borrow one itself. `--check` exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import signal
import sys
import threading
import time
import timeit
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.agents import AgentPool

THREADS = 16
LIMIT = "list.pop + append"
IDEAL = "a bare line"
TAKE, WITH = "perfkit take + give", "perfkit with get_agent()"
BUDGETS = {TAKE: 20.0, WITH: 40.0}  # times the limit of the same run
MOST_WAIT, LEAST_JAIN = 1.3, 0.99  # times the ideal wait; 1 is every thread served alike
FORKS = 60
Row = dict[str, Any]


def pool_of(size: int) -> AgentPool:
    pool = AgentPool()
    pool.register("agent", object, size=size)
    pool.warm_up("agent", size)
    return pool


def cases() -> dict[str, timeit.Timer]:
    items = [object() for _ in range(THREADS)]
    lifo: queue.LifoQueue[object] = queue.LifoQueue()
    for item in list(items):
        lifo.put(item)
    pool = pool_of(THREADS)
    lender = pool._lenders["agent"]
    named: dict[str, tuple[str, dict[str, Any]]] = {
        LIMIT: ("give(take())", {"take": items.pop, "give": items.append}),
        TAKE: ("give(take())", {"take": lender.take, "give": lender.give}),
        WITH: ("with get_agent('agent'): pass", {"get_agent": pool.get_agent}),
        "queue.LifoQueue": ("give(take(True, 30))", {"take": lifo.get, "give": lifo.put}),
    }
    return {label: timeit.Timer(code, globals=names) for label, (code, names) in named.items()}


def together(number: int, work: Callable[[int], Any]) -> float:
    """Return the seconds `number` threads take, from when all are ready."""
    barrier = threading.Barrier(number + 1)

    def run(index: int) -> None:
        barrier.wait()
        work(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def costs(number: int, rounds: int) -> list[Row]:
    timers = cases()
    alone: dict[str, list[float]] = {label: [] for label in timers}
    many: dict[str, list[float]] = {label: [] for label in timers}
    share = number // THREADS
    for _ in range(rounds):
        for label, timer in timers.items():
            alone[label].append(timer.timeit(number) / number * 1e9)
            many[label].append(together(THREADS, partial(repeat, timer, share)) / share / THREADS * 1e9)
    least = {label: (min(alone[label]), min(many[label])) for label in timers}
    return [row(label, *least[label], *least[LIMIT]) for label in timers]


def repeat(timer: timeit.Timer, number: int, _: int) -> None:
    timer.timeit(number)


def row(label: str, alone: float, many: float, limit_alone: float, limit_many: float) -> Row:
    times = alone / limit_alone
    entry = {"case": label, "ns": alone, "ns_threads": many, "times": times, "times_threads": many / limit_many}
    return {**entry, "budget": BUDGETS.get(label), "kept": times <= BUDGETS.get(label, times)}


class Queue:
    """The least a fair pool can do: callers in line, each woken by who returns. What it waits is the machine's."""

    def __init__(self, items: list[object]) -> None:
        self.items, self.line = deque(items), deque[list[Any]]()
        self.lock = threading.Lock()

    def take(self) -> object:
        with self.lock:
            if self.items and not self.line:
                return self.items.pop()
            gate = threading.Lock()
            gate.acquire()
            self.line.append(cell := [gate, None])
        gate.acquire()
        return cell[1]

    def give(self, item: object) -> None:
        with self.lock:
            if not self.line:
                self.items.append(item)
                return
            cell = self.line.popleft()
        cell[1] = item
        cell[0].release()


def fairness(seconds: float, rounds: int) -> list[Row]:
    lifo: queue.LifoQueue[object] = queue.LifoQueue()
    for _ in range(8):
        lifo.put(object())
    lender, least = pool_of(8)._lenders["agent"], Queue([object() for _ in range(8)])
    named: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]
    named = {IDEAL: (least.take, least.give), "perfkit": (lender.take, lender.give), "LifoQueue": (lifo.get, lifo.put)}
    runs: dict[str, list[Row]] = {label: [] for label in named}
    for _ in range(rounds):
        for label, (take, give) in named.items():
            runs[label].append(waits(take, give, seconds))
    best = {label: min(rows, key=lambda row: row["longest_ms"]) for label, rows in runs.items()}
    return [{"case": label, **row, "times_ideal": row["longest_ms"] / 14} for label, row in best.items()]


def waits(take: Callable[[], Any], give: Callable[[Any], Any], seconds: float) -> Row:
    served, longest, end = [0] * 64, [0.0] * 64, time.perf_counter() + seconds

    def work(index: int) -> None:
        began = time.perf_counter()
        while began < end or not served[index]:  # a busy machine may begin a thread late
            item = take()
            longest[index] = max(longest[index], time.perf_counter() - began)
            served[index] += 1
            time.sleep(0.002)
            give(item)
            began = time.perf_counter()

    together(64, work)
    jain = sum(served) ** 2 / (64 * sum(n * n for n in served))
    return {"per_second": sum(served) / seconds, "longest_ms": max(longest) * 1e3, "jain": jain, "least": min(served)}


def hung() -> int:
    """Return how many of the children forked under load cannot borrow."""
    pool, over = pool_of(4), threading.Event()

    def borrow() -> None:
        while not over.is_set():
            with pool.get_agent("agent"):
                over.wait(0.0001)

    threads = [threading.Thread(target=borrow) for _ in range(8)]
    for thread in threads:
        thread.start()
    failed = sum(os.waitpid(child_that_borrows(pool), 0)[1] != 0 for _ in range(FORKS))
    over.set()
    for thread in threads:
        thread.join()
    return failed


def child_that_borrows(pool: AgentPool) -> int:
    child = os.fork()
    if child == 0:
        signal.alarm(5)  # ends it if it hangs
        with pool.get_agent("agent", 3):
            os._exit(0)
    return child


def show(rows: list[Row], fair: list[Row], hanging: int) -> None:
    print(f"{'one loan':28}{'ns':>8}{'16 threads':>12}{'x list':>9}{'16 threads':>12}  budget")
    for r in rows:
        budget = f"  {'kept' if r['kept'] else 'MISSED'} (x{r['budget']:g})" if r["budget"] else ""
        print(
            f"{r['case']:28}{r['ns']:>8.0f}{r['ns_threads']:>12.0f}{r['times']:>9.1f}{r['times_threads']:>12.1f}{budget}"
        )
    print(f"\n{'64 threads, 8 objects, 2 ms':28}{'loans/s':>8}{'longest wait':>14}{'Jain':>8}{'least served':>14}")
    for r in fair:
        print(f"{r['case']:28}{r['per_second']:>8.0f}{r['longest_ms']:>11.1f} ms{r['jain']:>8.3f}{r['least']:>14}")
    print(f"\n{hanging} of {FORKS} children forked under load hang")


def main() -> int:
    parser = argparse.ArgumentParser(description="What borrowing from a pool costs, and how long others wait.")
    parser.add_argument("--quick", action="store_true", help="a short run, under 5 s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a budget is missed")
    options = parser.parse_args()
    number, rounds, seconds = (16_000, 5, 0.3) if options.quick else (160_000, 7, 0.6)
    rows, fair, hanging = costs(number, rounds), fairness(seconds, rounds), hung()
    if options.json:
        result = {"cost": rows, "fairness": fair, "forks": FORKS, "hung": hanging}
        print(json.dumps({"python": platform.python_version(), **result}))
    else:
        show(rows, fair, hanging)
    own = next(r for r in fair if r["case"] == "perfkit")
    fairly = own["times_ideal"] <= MOST_WAIT and own["jain"] >= LEAST_JAIN and not hanging
    return int(options.check and not (fairly and all(r["kept"] for r in rows)))


if __name__ == "__main__":
    sys.exit(main())
