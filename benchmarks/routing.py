"""What the router adds to a provider's call: CPU time and throughput with providers that answer at once.

    python benchmarks/routing.py [--quick] [--json]

The provider returns a ready response, so all that is measured is perfkit: choice, health, deadline, attempts, metrics.
litellm.Router is measured beside it where litellm is installed, with its own `mock_response`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from perfkit.metrics import PerformanceTracker
from perfkit.resilience import CircuitBreaker
from perfkit.routing import STRATEGIES, ProviderRouter
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

MESSAGES: Any = "What is the capital of France?"
REQUEST = ChatRequest(MESSAGES, "m", timeout=30)
DELTAS = 100


class Instant:
    """A provider that has its answer ready."""

    def __init__(self, name: str) -> None:
        self.response = ChatResponse("Paris", Usage(9, 1), "m", name)

    def chat_completion(self, _: ChatRequest) -> ChatResponse:
        return self.response

    def stream(self, _: ChatRequest) -> Generator[str, None, ChatResponse]:
        yield from ["x"] * DELTAS
        return self.response


def router(strategy: str, providers: int) -> ProviderRouter:
    made = ProviderRouter(strategy=strategy, tracker=PerformanceTracker())
    for number in range(providers):
        made.register_provider(f"p{number}", Instant(f"p{number}"), priority=number)
    return made


def drain(made: ProviderRouter) -> None:
    for _ in made.stream_with_fallback(REQUEST):
        pass


def guarded(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    assert permit is not None
    breaker.record(permit, "success")


def measure(call: Callable[[], Any], threads: int, seconds: float) -> dict[str, float]:
    """Return CPU microseconds a call and calls a second, the medians of three runs."""
    call()
    runs = [run(call, threads, seconds / 3) for _ in range(3)]
    cpu, rate = (statistics.median(values) for values in zip(*runs, strict=True))
    return {"cpu_us": round(cpu * 1e6, 2), "calls_per_s": round(rate)}


def run(call: Callable[[], Any], threads: int, seconds: float) -> tuple[float, float]:
    start = threading.Barrier(threads + 1)
    counts = [0] * threads

    def work(number: int) -> None:
        start.wait()
        end, done = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for _ in range(20):
                call()
            done += 20
        counts[number] = done

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    cpu, began = time.process_time(), time.monotonic()
    for worker in workers:
        worker.join()
    total = sum(counts)
    return (time.process_time() - cpu) / total, total / (time.monotonic() - began)


def targets() -> dict[str, Callable[[], Any]]:
    bare, breaker, streaming = Instant("bare"), CircuitBreaker(), router("priority", 2)
    found: dict[str, Callable[[], Any]] = {
        "bare provider call": lambda: bare.chat_completion(REQUEST),
        "circuit breaker alone": lambda: guarded(breaker),
        f"stream of {DELTAS} deltas": lambda: drain(streaming),
    }
    for name, providers in [*((name, 3) for name in STRATEGIES), ("least_latency", 1)]:
        label = f"{name}, {providers} provider{'s' if providers > 1 else ''}"
        found[label] = partial(router(name, providers).execute_with_fallback, REQUEST)
    if importlib.util.find_spec("litellm") is not None:
        found["litellm.Router"] = litellm_router()
    return found


def litellm_router() -> Callable[[], Any]:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    deployments = [
        {
            "model_name": "m",
            "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": f"k{n}", "mock_response": "Paris"},
        }
        for n in range(3)
    ]
    made = litellm.Router(model_list=deployments)
    messages = list(REQUEST.messages)
    return lambda: made.completion(model="m", messages=messages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="under ten seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    seconds = 0.15 if options.quick else 3.0
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name, call in targets().items():
        print(f"measuring {name} ...", file=sys.stderr)
        rows[name] = {f"{threads} threads": measure(call, threads, seconds) for threads in (1, 16)}
    machine = f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs"
    if options.json:
        print(json.dumps({"machine": machine, "unit": "CPU microseconds a call", "results": rows}))
        return
    print(f"{machine}\n{'':28} {'1 thread':>22} {'16 threads':>22}\n{'':28}" + f" {'CPU us':>9} {'calls/s':>12}" * 2)
    for name, row in rows.items():
        print(f"{name:28}" + "".join(f" {r['cpu_us']:9.2f} {r['calls_per_s']:12,.0f}" for r in row.values()))


if __name__ == "__main__":
    main()
