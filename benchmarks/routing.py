"""What the router adds to a provider's call: CPU time, throughput, and what it does for that, counted.

    python benchmarks/routing.py [--quick] [--json]

Each call is measured in turns with the provider's call alone, in short rounds of one process, and what is told is the
median of the differences. One provider has its answer ready, so that all of it is perfkit: choice, health, deadline,
attempts, metrics. The other asks a server over HTTP, so that threads wait and the interpreter changes hands as it does
in an application. litellm.Router is measured beside it where litellm is installed, with its own `mock_response`.
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
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.resilience import CircuitBreaker
from perfkit.routing import STRATEGIES, ProviderRouter
from perfkit.testing import FaultServer
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

MESSAGES: Any = "What is the capital of France?"
REQUEST = ChatRequest(MESSAGES, "m", timeout=30)
DELTAS = 100


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: float  # each, of the call and of what it is compared with


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


def measure(call: Callable[[], Any], alone: Callable[[], Any], threads: int, plan: Plan) -> dict[str, float]:
    """Return CPU microseconds beyond the provider's call alone, the medians of all rounds, and calls a second."""
    call(), alone()
    rounds = [(run(alone, threads, plan.seconds), run(call, threads, plan.seconds)) for _ in range(plan.rounds)]
    cpu = statistics.median(whole[0] - part[0] for part, whole in rounds)
    own = statistics.median(part[0] for part, _ in rounds)
    rate = statistics.median(whole[1] for _, whole in rounds)
    return {"cpu_us": round(cpu * 1e6, 2), "alone_us": round(own * 1e6, 2), "calls_per_s": round(rate)}


def counted(call: Callable[[], Any]) -> dict[str, int]:
    """Return what one warm call does."""
    found: Counter[str] = Counter()

    def note(_: object, event: str, what: Any) -> None:
        name = getattr(what, "__name__", "")
        found["functions"] += event == "call"
        found["locks"] += event == "c_call" and name in ("acquire", "__enter__")
        found["clock readings"] += event == "c_call" and name in ("monotonic", "time")

    for _ in range(50):
        call()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return dict(found)


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
    """Return what is measured beside the call of a provider that has its answer ready."""
    breaker, streaming = CircuitBreaker(), router("priority", 2)
    found: dict[str, Callable[[], Any]] = {
        "circuit breaker alone": lambda: guarded(breaker),
        f"stream of {DELTAS} deltas": lambda: drain(streaming),
    }
    for name, providers in [*((name, 3) for name in STRATEGIES), ("least_latency", 1)]:
        label = f"{name}, {providers} provider{'s' if providers > 1 else ''}"
        found[label] = partial(router(name, providers).execute_with_fallback, REQUEST)
    if importlib.util.find_spec("litellm") is not None:
        found["litellm.Router"] = litellm_router()
    return found


def over_http(plan: Plan) -> dict[str, dict[str, float]]:
    """Measure the router where each call is one of a server of another process."""
    with FaultServer() as server:
        made = ProviderRouter(strategy="least_latency", tracker=PerformanceTracker())
        for number in range(3):
            provider = create_provider("openai", name=f"p{number}", base_url=server.base_url, api_key="k", models=["m"])
            made.register_provider(f"p{number}", provider)
        routed, alone = partial(made.execute_with_fallback, REQUEST), partial(provider.chat_completion, REQUEST)
        return {f"{threads} threads": measure(routed, alone, threads, plan) for threads in (1, 16)}


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
    plan = Plan(3, 0.02) if options.quick else Plan(15, 0.1)
    instant = Instant("alone")
    alone = partial(instant.chat_completion, REQUEST)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    counts: dict[str, dict[str, int]] = {}
    for name, call in targets().items():
        print(f"measuring {name} ...", file=sys.stderr)
        rows[name] = {f"{threads} threads": measure(call, alone, threads, plan) for threads in (1, 16)}
        if "litellm" not in name:
            counts[name] = counted(call)
    rows["least_latency, 3 providers, over HTTP"] = over_http(plan)
    machine = f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs"
    if options.json:
        unit = "CPU microseconds a call beyond the provider's call alone"
        print(json.dumps({"machine": machine, "unit": unit, "results": rows, "counted": counts}))
        return
    print(f"{machine}\n{'':38} {'1 thread':>22} {'16 threads':>22}\n{'':38}" + f" {'CPU us':>9} {'calls/s':>12}" * 2)
    for name, row in rows.items():
        print(f"{name:38}" + "".join(f" {r['cpu_us']:9.2f} {r['calls_per_s']:12,.0f}" for r in row.values()))
    print(f"\none call of least_latency: {counts['least_latency, 3 providers']}")


if __name__ == "__main__":
    main()
