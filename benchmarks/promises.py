"""Replay every figure that the guides promise: promised, measured, on which condition, and whether it was kept.

    python benchmarks/promises.py [--quick] [--json]

What is real: TLS connections and their number, tokens and prefix hits (llama.cpp's own count), CPU seconds, the cache.
What is injected, by the fault server and by sleeping: the round trip of 40 ms (80 ms for a new TLS 1.3 connection and
40 ms for each reply; others where they are named), and the model's time: 640 ms for reading 3,000 tokens, in proportion
to those it had not in its prefix cache, and 160 ms for writing. "Before" is `requests.post`, as people call today;
"after" is perfkit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.caching import ResponseCache
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.testing.faults import FaultServer, ok
from perfkit.testing.llm import LlamaServer
from perfkit.tokens import TokenOptimizer
from perfkit.transport import ConnectionPool, HTTPClient
from perfkit.values import ChatRequest, Usage

ROUND_TRIP, CONNECT = 0.04, 0.08  # seconds; TLS 1.3 takes two round trips
READING, WRITING, PROMPT = 0.64, 0.16, 3000  # seconds for so many tokens, and seconds
CALLS = 10
TASK = 200  # tokens that differ from call to call
CORPUS = (Path(__file__).resolve().parent.parent / "perfkit/testing/corpus.txt").read_text().split()
STAMP_PATTERN = re.compile(r"Now: [^\n]*\n")
MARGIN = 1.0  # percentage points by which a promise may be missed
FARTHER = (0.1, 0.18, 0.26)  # round trips of seconds at which a range is tried where 40 ms does not reach it
RANGES = (  # of milliseconds that a new connection is said to take, and how much of what it takes is meant
    ("TLS a request", (200, 500), 1.0, "TCP and TLS together"),
    ("average saved a request", (100, 300), 1.0, "after the first; TCP and TLS together"),
    ("a connection, TCP and TLS", (80, 350), 1.0, "TCP and TLS together"),
    ("TCP handshake", (20, 100), 0.5, "half of a connection: one of two round trips"),
    ("TLS handshake", (50, 200), 0.5, "half of a connection: one of two round trips, TLS 1.3"),
)


@dataclass(frozen=True)
class Verdict:
    """One promise; figures are percent saved, unless the unit says otherwise."""

    promise: str
    promised: float
    measured: float | None  # None: not by a program
    condition: str
    unit: str = "%"

    @property
    def kept(self) -> bool:
        return self.measured is not None and self.measured >= self.promised - (MARGIN if self.unit == "%" else 0)

    @property
    def verdict(self) -> str:
        return "not applicable" if self.measured is None else "kept" if self.kept else "not kept"


@dataclass
class Run:
    """What ten calls took."""

    seconds: float = 0.0
    prompt: int = 0
    cached: int = 0
    connections: int = 0

    def cost(self, price: float, cached_price: float) -> float:
        return ((self.prompt - self.cached) * price + self.cached * cached_price) / 1e6


def saved(before: float, after: float) -> float:
    return round(100 * (1 - after / before), 1)


# --- ten calls on the same workflow -----------------------------------------------------------------------------------


def words(number: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(CORPUS, k=number))


def asked(call: int, workflow: str) -> ChatRequest:
    """Return a request as people write it: the time stands first, so no prefix is ever the same."""
    system = f"Now: 2026-11-20 14:{call:02d}:07.{call}\n{workflow}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": words(TASK, call + 1000)}]
    return ChatRequest(messages, "tiny", temperature=0, max_tokens=8)


def as_json(request: ChatRequest) -> dict[str, Any]:
    return {"model": "tiny", "messages": list(request.messages), "temperature": 0, "max_tokens": 8}


def think(usage: Usage, run: Run) -> None:
    """Take as long as the model would for what it had to read."""
    time.sleep(READING * (usage.prompt_tokens - usage.cached_tokens) / PROMPT + WRITING)
    run.prompt += usage.prompt_tokens
    run.cached += usage.cached_tokens


def workflow_run(ask: Callable[[ChatRequest], Usage], gate: FaultServer, workflow: str) -> Run:
    gate.reset()
    run, began = Run(), time.perf_counter()
    for call in range(CALLS):
        think(ask(asked(call, workflow)), run)
    run.seconds = time.perf_counter() - began
    run.connections = gate.counters()["connections"]
    return run


def by_requests(gate: FaultServer) -> Callable[[ChatRequest], Usage]:
    def ask(request: ChatRequest) -> Usage:
        url = f"{gate.base_url}/chat/completions"
        told = requests.post(url, json=as_json(request), verify=gate.ca_file, timeout=60).json()["usage"]
        details = told.get("prompt_tokens_details") or {}
        return Usage(told["prompt_tokens"], told["completion_tokens"], details.get("cached_tokens", 0))

    return ask


def by_perfkit(gate: FaultServer) -> Callable[[ChatRequest], Usage]:
    connections = ConnectionPool(ca_file=gate.ca_file, proxy="")
    provider = create_provider("openai", base_url=gate.base_url, api_key="k", connections=connections)
    optimizer = TokenOptimizer(tracker=PerformanceTracker())
    return lambda request: provider.chat_completion(optimizer.layout(request, volatile=[STAMP_PATTERN])).usage


def workflows() -> list[Verdict]:
    with LlamaServer(slots=1, context=6000) as llm:
        with FaultServer(upstream=llm.root_url, tls=True, latency=ROUND_TRIP, connect_latency=CONNECT) as gate:
            workflow = words(calibrated(gate), 1)
            before = workflow_run(by_requests(gate), gate, workflow)
        with LlamaServer(slots=1, context=6000) as fresh:
            upstream = fresh.root_url
            with FaultServer(upstream=upstream, tls=True, latency=ROUND_TRIP, connect_latency=CONNECT) as gate:
                after = workflow_run(by_perfkit(gate), gate, workflow)
    return told(before, after)


def calibrated(gate: FaultServer) -> int:
    """Return how many words make the prompt PROMPT tokens long."""
    number = PROMPT - TASK
    usage = by_requests(gate)(asked(99, words(number, 1)))
    return round(number * (PROMPT - TASK) / (usage.prompt_tokens - TASK))


def discounts() -> list[Verdict]:
    """Compare what a cached token costs with another one of the prompt, by the price table."""
    optimizer, found = TokenOptimizer(tracker=PerformanceTracker()), []
    for model in ("gpt-4o", "gpt-4.1", "gpt-5", "claude-sonnet-4-5"):
        read, cached = (optimizer.calculate_cost(Usage(1000, 0, tokens), model) for tokens in (0, 1000))
        assert read is not None, f"no price of {model}"
        assert cached is not None
        found.append(Verdict("cached tokens: cost", 50, saved(read, cached), f"{model}, by the price table"))
    return found


def told(before: Run, after: Run) -> list[Verdict]:
    size = f"{before.prompt / CALLS:.0f} tokens"
    tokens = f"{size} a call; from the cache {after.cached / CALLS:.0f}, before {before.cached / CALLS:.0f}"
    billed = after.prompt - after.cached / 2  # a cached token at half the price, as the guide has it
    first = READING + WRITING + ROUND_TRIP + CONNECT
    hits = (after.seconds - first) / (CALLS - 1)
    return [
        Verdict("10 calls: latency", 67, saved(before.seconds, after.seconds),
                f"{before.seconds:.1f} to {after.seconds:.1f} s; reading is 80 % of the model's 800 ms"),
        Verdict("10 calls: input tokens", 45, saved(before.prompt, billed), f"{tokens}; a cached one counts half"),
        Verdict("10 calls: input tokens read", 45, saved(before.prompt - before.cached, after.prompt - after.cached),
                f"{tokens}; as the server counts what it read"),
        Verdict("10 calls: cost", 47, saved(before.cost(5, 2.5), after.cost(5, 2.5)), "$5 a million, cached half"),
        Verdict("10 calls: cost, today's discount", 47, saved(before.cost(5, 0.5), after.cost(5, 0.5)),
                "cached at a tenth, as OpenAI and Anthropic charge for current models"),
        Verdict("10 calls: connections", 90, saved(before.connections, after.connections),
                f"{before.connections} connections to {after.connections}, by the server's count"),
        Verdict("5 nodes: 4 s to 1.6 s", 2.4, round(4 * (before.seconds / CALLS - hits), 2),
                f"a call {before.seconds / CALLS:.2f} s, a hit {hits:.2f} s", "s saved"),
        Verdict("100 runs a day", 4.0, round(100 * 4 * (before.seconds / CALLS - hits) / 60, 2), "the same x 100",
                "min saved"),
    ]  # fmt: skip


# --- pooling ----------------------------------------------------------------------------------------------------------

BODY = {"model": "m", "messages": [{"role": "user", "content": "x" * 2000}]}


@contextmanager
def ways(gate: FaultServer, **settings: Any) -> Iterator[dict[str, Callable[[], Any]]]:
    """Give both ways to make a call."""
    pool = ConnectionPool(ca_file=gate.ca_file, proxy="")
    client = HTTPClient(gate.root_url, retries=0, connections=pool, **settings)
    url = f"{gate.base_url}/chat/completions"
    yield {
        "before": lambda: requests.post(url, json=BODY, verify=gate.ca_file, timeout=settings["timeout"]).json(),
        "after": lambda: client.post("/v1/chat/completions", BODY).json(),
        "warm_up": lambda: pool.warm_up(gate.root_url),
        "close": pool.close,
    }
    pool.close()


def pooling(number: int) -> list[Verdict]:
    found = [*response_times(number), connection_time(), *ranges(2 if number < 20 else 5), *cpu(number * 10)]
    with (
        FaultServer(tls=True, latency=0.02, connect_latency=0.4) as gate,
        ways(gate, timeout=0.25) as way,
    ):
        way["warm_up"]()
        before, after = (sum(fails(way[name]) for _ in range(5)) for name in ("before", "after"))
    share = f"{before} of 5 to {after} of 5; made for it: connecting takes 400 ms, the timeout is 250 ms, warmed up"
    return [*found, Verdict("pooling: timeouts", 83, saved(before, after), share)]


def fails(call: Callable[[], Any]) -> bool:
    try:
        call()
    except (requests.RequestException, TimeoutError):
        return True
    return False


def response_times(number: int) -> list[Verdict]:
    found = []
    with FaultServer(tls=True, latency=ROUND_TRIP, connect_latency=CONNECT) as gate, ways(gate, timeout=30) as way:
        for thinks, which in ((0.0, "answers at once"), (0.8, "takes 800 ms")):
            gate.behave(ok("yes", delay=thinks))
            way["after"]()
            calls = number if not thinks else 2
            before, after = (median(timed(way[name]) for _ in range(calls)) for name in ("before", "after"))
            condition = f"{1000 * before:.0f} to {1000 * after:.0f} ms; the model {which}, round trip 40 ms"
            found.append(Verdict("pooling: response time", 65, saved(before, after), condition))
            if not thinks:
                gap = round(1000 * (before - after))
                found.append(Verdict("2nd call", 350, gap, "needs a round trip of 175 ms", "ms saved"))
    return found


def connection_time() -> Verdict:
    """Compare what ten calls take beyond as many on an open connection."""
    with FaultServer(tls=True, latency=ROUND_TRIP, connect_latency=CONNECT) as gate, ways(gate, timeout=30) as way:
        way["after"]()  # loads the trusted certificates, which is no connecting
        way["close"]()
        after = [timed(way["after"]) for _ in range(CALLS)]
        with requests.Session() as session:
            url = f"{gate.base_url}/chat/completions"
            opened = [timed(lambda: session.post(url, json=BODY, verify=gate.ca_file)) for _ in range(CALLS)]
        before = [timed(way["before"]) for _ in range(CALLS)]
    took = [sum(calls) - CALLS * median(kept) for calls, kept in ((before, opened[1:]), (after, after[1:]))]
    told = "{:.2f} to {:.2f} s beyond ten calls on an open connection, round trip 40 ms".format(*took)
    return Verdict("10 calls: connection time", 90, saved(*took), told)


def connecting(round_trip: float, calls: int) -> tuple[float, float]:
    """Return how many milliseconds longer than the next a call on a new connection takes, and the very first one."""
    gaps = []
    with (
        FaultServer(tls=True, latency=round_trip, connect_latency=2 * round_trip) as gate,
        ways(gate, timeout=30) as way,
    ):
        for _ in range(1 + calls):
            gaps.append(1000 * (timed(way["after"]) - timed(way["after"])))
            way["close"]()
    return median(gaps[1:]), gaps[0]


def ranges(calls: int) -> list[Verdict]:
    """Tell at which of the tried round trips each end of a range is reached; at 40 ms whether it is or not."""
    gaps = {trip: connecting(trip, calls) for trip in (ROUND_TRIP, *FARTHER)}
    took, found = {trip: again for trip, (again, _) in gaps.items()}, []
    for promise, ends, part, meant in RANGES:
        for end in ends:
            reached = next((trip for trip, gap in took.items() if gap * part >= end), None)
            for trip in sorted({ROUND_TRIP} | ({reached} if reached is not None else set())):
                told = f"round trip {1000 * trip:.0f} ms, injected; {meant}"
                found.append(Verdict(promise, end, round(took[trip] * part), told, "ms"))
    told = "round trip 40 ms, injected; a cost: connecting, and loading the trusted certificates, once a process"
    first = round(gaps[ROUND_TRIP][1])
    found += [Verdict("first API call (cold)", end, first, told, "ms more") for end in (100, 500)]
    return found


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def cpu(number: int) -> list[Verdict]:
    """Compare the CPU seconds of client and server for calls on new connections and on a kept one."""
    spent: dict[str, tuple[float, float]] = {}
    with FaultServer(tls=True) as gate, ways(gate, timeout=30) as way:
        for name in ("before", "after"):
            way[name]()
            here, there = time.process_time(), cpu_of(gate.pid)
            for _ in range(number):
                way[name]()
            spent[name] = time.process_time() - here, cpu_of(gate.pid) - there
    client, served = ((spent["before"][end] / number * 1e3, spent["after"][end] / number * 1e3) for end in (0, 1))
    told = "{:.1f} to {:.1f} ms of CPU a call at the {}, TLS, no session kept before"
    return [
        Verdict("pooling: CPU usage", 40, saved(*client), told.format(*client, "client")),
        Verdict("pooling: server resources", 20, saved(*served), told.format(*served, "server (the fault server)")),
    ]


def cpu_of(pid: int | None) -> float:
    """Return the CPU seconds of a process, its own and the kernel's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- caching ----------------------------------------------------------------------------------------------------------


def caching(draws: int) -> list[Verdict]:
    keys, found = 10_000, []
    for skew in (0.9, 1.1):
        weights = list(accumulate(1 / rank**skew for rank in range(1, keys + 1)))
        traffic = random.Random(1).choices(range(keys), cum_weights=weights, k=draws)
        cache = ResponseCache(backend="memory", max_entries=keys // 100, tracker=PerformanceTracker())
        for key in traffic:
            cache.get(f"question {key}", lambda: {"text": "answer"})
        share = saved(draws, cache.stats()["misses"])
        made = f"Zipf {skew} over {keys} questions, room for 1 % of them: made traffic, nothing recurs by itself"
        found.append(Verdict("caching: hit rate", 73, share, made))
        found.append(Verdict("caching: API calls", 73, share, "the hit rate by another name"))
    hit = median(timed(lambda: cache.get("question 0", lambda: "x")) for _ in range(200))
    condition = f"{hit * 1e6:.0f} us for a hit, 840 ms for a call; misses take as long as before"
    return [*found, Verdict("caching: response time of a hit", 95, saved(0.84, hit), condition)]


# --- telling ----------------------------------------------------------------------------------------------------------


def people() -> list[Verdict]:
    told = "needs people who say how fast it felt; `tracker.feedback` collects that in an application"
    return [Verdict("caching: perceived speed", 43, None, told)]


def measure(*, quick: bool) -> list[Verdict]:
    draws = 20_000 if quick else 100_000
    return [*workflows(), *discounts(), *pooling(5 if quick else 20), *caching(draws), *people()]


def show(found: list[Verdict]) -> None:
    print(f"{'promise':38}{'promised':>10}{'measured':>10}  {'unit':10}{'verdict':16}condition")
    for one in found:
        measured = "-" if one.measured is None else f"{one.measured:g}"
        print(f"{one.promise:38}{one.promised:10g}{measured:>10}  {one.unit:10}{one.verdict:16}{one.condition}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer calls; about 25 seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    found = measure(quick=options.quick)
    if options.json:
        rows = [{**asdict(one), "verdict": one.verdict} for one in found]
        print(json.dumps({"python": platform.python_version(), "promises": rows}))
    else:
        show(found)


if __name__ == "__main__":
    main()
