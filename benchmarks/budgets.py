"""Spend a budget of $1.00 by calls of $0.01 from many threads, in one process and in four that share a Redis.

    python benchmarks/budgets.py [--quick] [--json]

No call says how long its answer may be: the bound comes from what is left. Beside it stands what "check first, add
afterwards" spends. The price of a reservation in Redis is told in plain GETs, measured in turn in one process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from perfkit.errors import BudgetExceededError
from perfkit.metrics import PerformanceTracker
from perfkit.state import StateHub
from perfkit.tokens import TokenOptimizer
from perfkit.values import ChatRequest, ChatResponse, Usage

LIMIT, TOKENS, CALLS = 1.0, 1000, 20
PRICES = {"model": {"input": 0, "output": 10}}  # an answer of 1000 tokens costs 0.01
ASKED = ChatRequest([{"role": "user", "content": "How are you?"}], "model")


def optimizer(url: str | None) -> TokenOptimizer:
    tracker = PerformanceTracker()
    made = TokenOptimizer(tracker=tracker, state=StateHub(url=url, timeout=5.0, tracker=tracker), prices=PRICES)
    made.set_budget("global", LIMIT, "total")
    return made


def call(one: TokenOptimizer) -> None:
    """Do what the pipeline does for a call whose provider takes 5 ms."""
    admission = one.admit(ASKED, "p")
    tokens = min(TOKENS, admission.max_tokens or TOKENS)
    time.sleep(0.005)
    usage = Usage(10, tokens)
    assert admission.hold is not None
    admission.hold.settle(one.calculate_cost(usage, "model"))
    one.observe(ASKED, ChatResponse("x", usage, "model", "p"))


def threads(number: int, work: Callable[[], None]) -> None:
    started = [threading.Thread(target=work) for _ in range(number)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def spender(url: str | None, number: int, ready: Any = None) -> TokenOptimizer:
    one = optimizer(url)

    def work() -> None:
        for _ in range(CALLS):
            try:
                call(one)
            except BudgetExceededError:
                time.sleep(0.002)

    if ready is not None:
        ready.wait()
    threads(number, work)
    return one


def naive() -> float:
    """Return what 32 threads spend that check first and add afterwards."""
    spent, lock = [0.0], threading.Lock()

    def work() -> None:
        for _ in range(CALLS):
            with lock:
                if spent[0] >= LIMIT:
                    continue
            time.sleep(0.005)
            with lock:
                spent[0] += 0.01

    threads(32, work)
    return spent[0]


def shared(url: str) -> dict[str, float]:
    """Return what four processes of eight threads spend together."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    workers = [context.Process(target=spender, args=(url, 8, barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    [row] = optimizer(url).budgets()
    return {"spent": row["spent"], "held": row["held"]}


def prices_in_gets(url: str, rounds: int) -> dict[str, float]:
    """Return how many plain GETs of redis-py a reservation and a settlement cost, and a GET of ours.

    Medians of rounds that do all four, in an order that changes: what comes second finds a warm processor.
    """
    one = optimizer(url)
    one.set_budget("global", 10**6, "total")
    link = one._redis()
    assert link is not None
    client, holds = link._connect(), [one.reserve({}, 0.02)]
    steps: dict[str, Callable[[], Any]] = {
        "get": lambda: client.get("nothing"),
        "reserve": lambda: holds.append(one.reserve({}, 0.02)),
        "link_get": lambda: link.call("GET", "nothing"),
        "settle": lambda: holds.pop().settle(0.01),
    }
    took: dict[str, list[float]] = {name: [] for name in steps}
    order, turn = list(steps), random.Random(1)
    for _ in range(rounds):
        turn.shuffle(order)
        for name in order:
            began = time.perf_counter()
            steps[name]()
            took[name].append(time.perf_counter() - began)
    typical = {name: median(times[rounds // 4 :]) for name, times in took.items()}
    ratios = {name: typical[name] / typical["get"] for name in ("reserve", "settle", "link_get")}
    return {**ratios, "get_us": typical["get"] * 1e6}


def with_redis(rounds: int) -> dict[str, Any] | None:
    try:
        import redis  # noqa: F401 - asked for by the link
        from _servers import redis_server
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/r"
        with redis_server(path):
            url = f"unix://{path}"
            return {"four_processes": shared(url), "price_in_gets": prices_in_gets(url, rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer measurements")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    [row] = spender(None, 32).budgets()
    found = {
        "check_then_add": naive(),
        "one_process": {"spent": row["spent"], "held": row["held"]},
        "redis": with_redis(400 if options.quick else 3000),
    }
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    print(f"of ${LIMIT:.2f}: check then add spends ${found['check_then_add']:.2f}")
    print(f"32 threads: {found['one_process']}")
    print(f"4 processes x 8 threads on Redis, and the price of a step in GETs: {found['redis']}")


if __name__ == "__main__":
    main()
