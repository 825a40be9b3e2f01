"""A worker process that spends.

`spender.py URL spend THREADS CALLS` waits for a line, spends and prints the calls it was let make; `hold` only holds.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from perfkit.errors import BudgetExceededError
from perfkit.metrics import PerformanceTracker
from perfkit.state import StateHub
from perfkit.tokens import TokenOptimizer


def main(url: str, what: str, threads: int = 1, calls: int = 1) -> None:
    tracker = PerformanceTracker()
    optimizer = TokenOptimizer(tracker=tracker, state=StateHub(url=url, timeout=5, tracker=tracker))
    optimizer.set_budget("global", 1.0, "total")
    if what == "hold":
        optimizer.reserve({}, 0.9, ttl=2.0)
        print("held", flush=True)
        time.sleep(60)

    def work(_: int, most: int = calls) -> int:
        made = 0
        for _ in range(most):
            try:
                hold = optimizer.reserve({}, 0.02)
            except BudgetExceededError:
                continue
            time.sleep(0.02)  # the call
            hold.settle(0.01)
            made += 1
        return made

    first = work(0, 1)  # however late the system lets this worker run, it has its part
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(threads) as pool:
        print(first + sum(pool.map(work, range(threads))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
