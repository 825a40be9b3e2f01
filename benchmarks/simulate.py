"""Strategies of the router on one simulated trace: a provider slows down, answers stall, the best changes.

    python benchmarks/simulate.py [--quick] [--json] [--svg FILE]

The router's own code runs on a clock that jumps, against modelled providers; only one run with real servers, which the
simulation has to reproduce, takes its time. Beside the router's strategies stands litellm's latency-based rule, written
down from its source (1.106): the lowest mean of the last ten latencies, untried deployments first.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from perfkit.bench import Change, Model, Simulation, simulate
from perfkit.bench.report import Outcome, Summary
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool
from perfkit.values import ChatRequest

HEALTHY, SLOW = 5.0, 60.0  # seconds before, and of, the slow-down
MEAN = 0.42  # seconds a call takes at a provider drawn at random
CHANGED = 1000  # calls before the silent change


class LiteLLMLatency:
    """litellm's "latency-based-routing", from `router_strategy/lowest_latency.py`."""

    def __call__(self, candidates: Any, _: Any) -> Any:
        shuffled = random.sample(list(candidates), len(candidates))
        return min(shuffled, key=lambda one: self._mean(one.provider.history))

    @staticmethod
    def _mean(history: Any) -> float:
        return sum(history) / len(history) if history else 0.0


def one_slows_down(rate: float, slow: float, *, busy: float | None) -> Simulation:
    """Eight providers, the fastest of which takes 20 times as long for a while.

    `busy` is the part of their places that is taken as long as all is well; None: they take any number of calls.
    """
    slots = None if busy is None else round(rate * MEAN / 8 / busy)
    change = Change(HEALTHY, slow, slower=20)
    models = [
        Model(f"p{n}", 0.2 + 0.05 * n, 0.5 + 0.125 * n, slots=slots, changes=[change] if n == 0 else [])
        for n in range(8)
    ]
    strategies = {"random": "random", "litellm latency": LiteLLMLatency, "p2c": "p2c"}
    return simulate(models, strategies, rate=rate, seconds=HEALTHY + slow, settings=QUIET)


def told(found: Simulation, slow: float) -> dict[str, dict[str, float]]:
    during = {name: found.summary(name, HEALTHY, HEALTHY + slow) for name in found.outcomes}
    return {
        name: {
            "p50": round(one.p50, 3),
            "p99": round(one.p99, 3),
            "p99 over p2c's": round(one.p99 / during["p2c"].p99, 2),
            "failed": one.failed,
        }
        for name, one in during.items()
    }


def answers_stall(rate: float, seconds: float) -> Simulation:
    """Two like providers, of whose answers one in two hundred takes 10 s."""

    def quantile(share: float) -> float:
        return 10.0 if share > 0.995 else 0.2 + 0.2 * share

    models = [Model(name, quantile=quantile) for name in ("a", "b")]
    usual = {"strategy": "random", "hedge": True, "hedge_share": 0.02}
    strategies = {"plain": "random", "hedged": usual, "hedged after 0.5 s": usual | {"hedge_delay": 0.5}}
    return simulate(models, strategies, rate=rate, seconds=seconds, settings=QUIET)


def best_changes(seed: int) -> int:
    """Return after how many calls the new best provider gets most of them, when the best one silently gets slow."""
    at = CHANGED / 20.0
    models = [
        Model("fast", median=0.2, p99=0.3, changes=[Change(at, slower=10)]),
        Model("good", median=0.5, p99=0.75),
        Model("slow", median=1.5, p99=2.2),
        Model("slower", median=2.0, p99=3.0),
    ]
    found = simulate(models, ["adaptive"], rate=20.0, seconds=2 * at, seed=seed, settings=QUIET)
    after = [outcome.provider for outcome in found.outcomes["adaptive"] if outcome.began >= at]
    return next(n for n in range(len(after)) if sum(name == "good" for name in after[n : n + 50]) > 25)


def one_real_day(calls: int) -> dict[str, Any]:
    """Compare a run with real servers that take as long as the models with its simulation."""
    arrivals = [number / 40 for number in range(calls)]
    models = [Model(name, median=took, p99=took, terms=(("weight", weight),)) for name, took, weight in REAL]
    simulated = simulate(models, ["weighted"], arrivals=arrivals, settings=QUIET).summary("weighted")
    real = really(arrivals)
    shares = max(abs(real.shares.get(name, 0.0) / share - 1) for name, share in simulated.shares.items())
    return {
        "p50 real": round(real.p50, 3),
        "p50 simulated": round(simulated.p50, 3),
        "p99 real": round(real.p99, 3),
        "p99 simulated": round(simulated.p99, 3),
        "furthest share": f"{shares:.1%}",
        "furthest apart": f"{max(shares, abs(real.p50 / simulated.p50 - 1), abs(real.p99 / simulated.p99 - 1)):.1%}",
    }


REAL = (("a", 0.3, 6), ("b", 0.6, 3), ("c", 1.2, 1))  # name, seconds, weight


def really(arrivals: list[float]) -> Summary:
    """Return what the router does with real servers."""
    router, outcomes = ProviderRouter(strategy="weighted", tracker=PerformanceTracker(), **QUIET), list[Outcome]()

    def call(at: float) -> None:
        time.sleep(max(0.0, began + at - time.monotonic()))
        start = time.monotonic()
        response = router.execute_with_fallback(ChatRequest([{"role": "user", "content": "hi"}], "m", timeout=30))
        outcomes.append(Outcome(at, time.monotonic() - start, response.provider, len(response.attempts)))

    with ExitStack() as stack:
        pool = stack.enter_context(closing(ConnectionPool(maxsize=len(arrivals))))
        for name, took, weight in REAL:
            server = stack.enter_context(FaultServer())
            server.behave(faults.ok("x", delay=took))
            provider = create_provider("openai", name=name, base_url=server.base_url, connections=pool)
            router.register_provider(name, provider, weight=weight)
        began = time.monotonic() + 0.1
        threads = [threading.Thread(target=call, args=(at,)) for at in arrivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return Summary.of(outcomes)


QUIET = {"probe_interval": None, "outlier_factor": None}  # what is compared is the choice alone


def measure(*, quick: bool) -> tuple[dict[str, Any], Simulation]:
    rate, slow, seeds = (500.0, 20.0, 5) if quick else (2000.0, SLOW, 20)
    limited, unlimited = one_slows_down(rate, slow, busy=2 / 3), one_slows_down(rate / 4, slow, busy=None)
    stalled = answers_stall(200.0, 50.0 if quick else 150.0)
    found = sorted(best_changes(seed) for seed in range(seeds))
    results = {
        f"one of 8, all two thirds busy, is 20x slower for {slow:g} s at {rate:g} calls/s": told(limited, slow),
        f"the same at {rate / 4:g} calls/s, providers that take any number of calls": told(unlimited, slow),
        "one answer in 200 takes 10 s": {
            name: {
                "p99.9": round(stalled.summary(name).p99_9, 3),
                "times less": round(stalled.summary("plain").p99_9 / stalled.summary(name).p99_9, 1),
                "more requests": f"{stalled.requests(name) / stalled.requests('plain') - 1:.2%}",
            }
            for name in ("plain", "hedged", "hedged after 0.5 s")
        },
        "adaptive: calls until a new best gets most": {"median": found[len(found) // 2], "worst": found[-1]},
        "a run with real servers": one_real_day(100 if quick else 400),
    }
    return results, limited


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer calls, under thirty seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--svg", type=Path, help="keep a chart of the slow-down here")
    options = parser.parse_args()
    began = time.process_time()
    results, slowed = measure(quick=options.quick)
    print(f"simulated in {time.process_time() - began:.1f} s of CPU", file=sys.stderr)
    if options.svg is not None:
        options.svg.write_text(slowed.svg())
    machine = f"{platform.python_implementation()} {platform.python_version()}"
    if options.json:
        print(json.dumps({"machine": machine, "unit": "simulated seconds", "results": results}))
        return
    print(machine)
    for title, rows in results.items():
        print(f"\n{title}")
        for name, row in rows.items():
            print(f"  {name:20} {row if not isinstance(row, dict) else '  '.join(f'{k} {v}' for k, v in row.items())}")


if __name__ == "__main__":
    main()
