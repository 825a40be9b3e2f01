"""The router over the wire, beside litellm.Router (default and tuned) and LangChain's fallbacks where installed.

    python benchmarks/rivals.py [--quick] [--json]

A small server in C answers at once (benchmarks/instant_server.c, compiled with cc), so what is measured is the client:
calls a second and CPU time with 16 threads, connections and descriptors over 10,000 calls, and what a call takes behind
a primary that answers 500.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.transport import ConnectionPool
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUESTION: Any = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
THREADS = 16
TUNED = {"allowed_fails": 0, "cooldown_time": 30, "num_retries": 0, "disable_cooldowns": False}


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Compile and run the server; yields its root URL."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "server"
        source = Path(__file__).with_name("instant_server.c")
        subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
        process = subprocess.Popen([str(program), "0"], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()
            process.wait()


def stat(root: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{root}/stat", timeout=5) as reply:
        told: dict[str, int] = json.load(reply)
    return told


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# --- who is measured --------------------------------------------------------------------------------------------------


def pooled(*urls: str) -> Callable[[], Any]:
    """Plain urllib3: what the wire costs without a router."""
    import urllib3

    pool = urllib3.PoolManager(maxsize=THREADS, block=True)
    body = json.dumps({"model": "m", "messages": MESSAGES}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}
    return lambda: json.loads(pool.request("POST", f"{urls[-1]}/chat/completions", body=body, headers=headers).data)


def perfkit_provider(*urls: str) -> Callable[[], Any]:
    """perfkit's provider and pool, without the router."""
    connections = ConnectionPool(maxsize=THREADS)
    provider = create_provider("openai", base_url=urls[-1], api_key="k" * 20, connections=connections)
    return lambda: provider.chat_completion(ChatRequest(QUESTION, "m", timeout=30))


def perfkit_router(*urls: str) -> Callable[[], Any]:
    connections, tracker = ConnectionPool(maxsize=THREADS), PerformanceTracker()
    router = ProviderRouter(strategy="priority", tracker=tracker)
    for priority, url in enumerate(urls):
        made = create_provider("openai", name=f"p{priority}", base_url=url, api_key="k" * 20, connections=connections)
        router.register_provider(f"p{priority}", made, priority=priority)
    return lambda: router.execute_with_fallback(ChatRequest(QUESTION, "m", timeout=30))


def litellm_router(*urls: str, **settings: Any) -> Callable[[], Any]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    logging.disable(logging.CRITICAL)
    names = ["m", "spare"][: len(urls)]
    models = [
        {"model_name": name, "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "k" * 20, "api_base": url}}
        for name, url in zip(names, urls, strict=True)
    ]
    fallbacks = [{"m": ["spare"]}] if len(urls) > 1 else []
    made = litellm.Router(model_list=models, fallbacks=fallbacks, **settings)
    return lambda: made.completion(model="m", messages=MESSAGES)


def litellm_tuned(*urls: str) -> Callable[[], Any]:
    return litellm_router(*urls, **TUNED)


def langchain(*urls: str) -> Callable[[], Any]:
    from langchain_openai import ChatOpenAI  # type: ignore[import-not-found, unused-ignore]

    key: Any = "k" * 20
    chats = [ChatOpenAI(model="gpt-4o-mini", api_key=key, base_url=url) for url in urls]
    made: Any = chats[0].with_fallbacks(chats[1:]) if len(chats) > 1 else chats[0]
    return lambda: made.invoke(QUESTION)


def rivals() -> dict[str, Callable[..., Callable[[], Any]]]:
    found: dict[str, Callable[..., Callable[[], Any]]] = {
        "urllib3 alone": pooled,
        "perfkit provider": perfkit_provider,
        "perfkit router": perfkit_router,
    }
    if importlib.util.find_spec("litellm") is not None:
        found |= {"litellm.Router": litellm_router, "litellm.Router, tuned": litellm_tuned}
    if importlib.util.find_spec("langchain_openai") is not None:
        found["LangChain fallbacks"] = langchain
    return found


# --- what is measured -------------------------------------------------------------------------------------------------


def throughput(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Return calls a second and CPU microseconds a call with 16 threads, the best of three rounds."""
    rounds = [_round(call, seconds / 3) for _ in range(3)]
    return {"calls_per_s": round(max(r for r, _ in rounds)), "cpu_us": round(min(c for _, c in rounds))}


def _round(call: Callable[[], Any], seconds: float) -> tuple[float, float]:
    counts, start = [0] * THREADS, threading.Barrier(THREADS + 1)

    def work(number: int) -> None:
        start.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            call()
            counts[number] += 1

    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(THREADS):
            pool.submit(work, number)
        start.wait()
        cpu, began = time.process_time(), time.monotonic()
    total = sum(counts)
    return total / (time.monotonic() - began), (time.process_time() - cpu) / total * 1e6


def growth(call: Callable[[], Any], root: str, calls: int) -> dict[str, int]:
    """Return connections opened and descriptors gained over many calls of 16 threads that are warm already."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: call(), range(THREADS * 4)))
        connections, before = stat(root)["connections"], descriptors()
        list(pool.map(lambda _: call(), range(calls)))
        opened = stat(root)["connections"] - connections - 1  # the question itself took one
        return {"calls": calls, "connections": opened, "descriptors": descriptors() - before}


def behind_a_dead_primary(make: Callable[..., Callable[[], Any]], root: str, most: float) -> dict[str, float]:
    """Return the median of a call in milliseconds, with the fallback alone and behind a primary that answers 500."""
    alone, behind = make(f"{root}/v1"), make(f"{root}/down/v1", f"{root}/v1")
    return {"alone_ms": _median(alone, most), "behind_ms": _median(behind, most)}


def _median(call: Callable[[], Any], most: float) -> float:
    call()
    times: list[float] = []
    until = time.monotonic() + most
    while len(times) < 3 or (len(times) < 300 and time.monotonic() < until):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1000, 3)


def measured(*, quick: bool) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    with server() as root:
        for name, make in rivals().items():
            print(f"measuring {name} ...", file=sys.stderr)
            call = make(f"{root}/v1")
            call()
            rows[name] = throughput(call, 0.6 if quick else 6.0)
            slow = rows[name]["calls_per_s"] < 1000
            rows[name] |= growth(call, root, 500 if quick else 2000 if slow else 10_000)
            if make not in (pooled, perfkit_provider):
                rows[name] |= behind_a_dead_primary(make, root, 0.3 if quick else 2.0)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="under ten seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    if shutil.which("cc") is None:
        print("cc is not here: nothing measured", file=sys.stderr)
    rows = measured(quick=options.quick) if shutil.which("cc") is not None else {}
    if options.json:
        print(json.dumps({"threads": THREADS, "results": rows}))
        return
    columns = ("calls_per_s", "cpu_us", "calls", "connections", "descriptors", "alone_ms", "behind_ms")
    print(f"{'':24}" + "".join(f"{column:>13}" for column in columns))
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"{row.get(column, '-'):>13}" for column in columns))


if __name__ == "__main__":
    main()
