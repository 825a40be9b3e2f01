"""What the official SDKs cost on their own HTTP client and on perfkit's: CPU of this process, calls/s and connections.

Both take turns in this process against a server in a process of its own, so that a busy machine slows both alike; read
the ratios. Connections are those the fault server has accepted, for all calls of a row together; calls/s are those of
threads against a server that answers with the headers, and the one cookie, of a large provider.

    python benchmarks/sdk.py [--quick] [--json] [--plain] [--calls N] [--rounds N]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from anthropic import Anthropic
from openai import OpenAI

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import perfkit.integrations.anthropic
import perfkit.integrations.openai
from benchmarks._serving import serving
from benchmarks.transport import together
from perfkit.testing import FaultServer
from perfkit.testing.tls import Authority
from perfkit.transport import ConnectionPool

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "word " * 20}]}
Clients = tuple[httpx2.Client, httpx2.Client]  # for OpenAI, for Anthropic


def openai_chat(client: OpenAI) -> None:
    client.chat.completions.create(**ASK)


def openai_stream(client: OpenAI) -> None:
    for _ in client.chat.completions.create(**ASK, stream=True):
        pass


def anthropic_chat(client: Anthropic) -> None:
    client.messages.create(max_tokens=50, **ASK)


def anthropic_stream(client: Anthropic) -> None:
    with client.messages.stream(max_tokens=50, **ASK) as stream:
        stream.until_done()


def stock(server: FaultServer) -> Clients:
    verify = ssl.create_default_context(cafile=server.ca_file) if server.root_url.startswith("https") else True
    return httpx2.Client(verify=verify, follow_redirects=True), httpx2.Client(verify=verify, follow_redirects=True)


def pooled(server: FaultServer) -> Clients:
    connections = ConnectionPool(ca_file=server.ca_file if server.root_url.startswith("https") else None, proxy="")
    return (
        perfkit.integrations.openai.http_client(connections=connections),
        perfkit.integrations.anthropic.http_client(connections=connections),
    )


def rows(server: FaultServer, clients: Clients) -> dict[str, Callable[[], None]]:
    ours = OpenAI(api_key="k", base_url=server.base_url, http_client=clients[0])
    theirs = Anthropic(api_key="k", base_url=server.root_url, http_client=clients[1])
    return {
        "openai chat": lambda: openai_chat(ours),
        "openai stream": lambda: openai_stream(ours),
        "anthropic chat": lambda: anthropic_chat(theirs),
        "anthropic stream": lambda: anthropic_stream(theirs),
    }


def measure(server: FaultServer, calls: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return for each row CPU a call in microseconds and connections, of both clients."""
    clients = stock(server), pooled(server)
    kinds = {"stock": rows(server, clients[0]), "perfkit": rows(server, clients[1])}
    found: dict[str, dict[str, float]] = {}
    for row in kinds["stock"]:
        cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
        opened = dict.fromkeys(kinds, 0)
        for turn in range(rounds + 1):  # the first is not counted
            for kind, calls_of in kinds.items():
                before = server.counters()["connections"]
                began = time.process_time()
                for _ in range(calls):
                    calls_of[row]()
                used = time.process_time() - began
                if turn:
                    cpu[kind].append(used / calls * 1e6)
                    opened[kind] += server.counters()["connections"] - before
        ratios = [ours / theirs for ours, theirs in zip(cpu["perfkit"], cpu["stock"], strict=True)]
        found[row] = {
            "calls": calls * rounds,
            "stock_cpu_us": statistics.median(cpu["stock"]),
            "perfkit_cpu_us": statistics.median(cpu["perfkit"]),
            "cpu_ratio": statistics.median(ratios),
            "stock_new_connections": opened["stock"],
            "perfkit_new_connections": opened["perfkit"],
        }
    for client in (*clients[0], *clients[1]):
        client.close()
    return found


def rates(threads: int, calls: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return calls a second of both SDKs on both clients, in turns."""
    found: dict[str, dict[str, float]] = {}
    with Authority() as authority, serving(authority.server_file) as served:
        url = f"https://127.0.0.1:{served.port}"
        verify = ssl.create_default_context(cafile=authority.ca_file)
        connections = ConnectionPool(ca_file=authority.ca_file, proxy="", maxsize=64)
        for name, make in MAKERS.items():
            ours = getattr(perfkit.integrations, name).http_client(connections=connections)
            kinds = {
                kind: make(client, url)
                for kind, client in (("stock", httpx2.Client(verify=verify, limits=LIMITS)), ("perfkit", ours))
            }
            took: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
            for _ in range(rounds):
                for kind, call in kinds.items():
                    took[kind].append(together(lambda call=call: call, threads, calls)[:2])  # type: ignore[misc]
            found[f"{name}, {threads} threads"] = _rate(took, threads * calls)
    return found


def _rate(took: dict[str, list[tuple[float, float]]], calls: int) -> dict[str, float]:
    """Return calls a second, and how many times as many as stock, in wall time and by CPU, which load changes less."""
    pairs = list(zip(took["stock"], took["perfkit"], strict=True))
    return {
        **{f"{kind}_per_s": calls / statistics.median(wall for wall, _ in each) for kind, each in took.items()},
        "ratio": statistics.median(theirs[0] / ours[0] for theirs, ours in pairs),
        "cpu_ratio": statistics.median(ours[1] / theirs[1] for theirs, ours in pairs),
    }


def _openai(client: httpx2.Client, url: str) -> Callable[[], None]:
    made = OpenAI(api_key="k", base_url=f"{url}/v1", http_client=client)
    return lambda: openai_chat(made)


def _anthropic(client: httpx2.Client, url: str) -> Callable[[], None]:
    made = Anthropic(api_key="k", base_url=url, http_client=client)
    return lambda: anthropic_chat(made)


MAKERS = {"openai": _openai, "anthropic": _anthropic}
LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)  # as the SDKs set them


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 10 seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--calls", type=int, default=100, help="a round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    calls, rounds = (20, 4) if options.quick else (options.calls, options.rounds)
    with FaultServer(tls=None if options.plain else True) as server:
        found = measure(server, calls, rounds)
    quickly: dict[str, dict[str, float]] = {}
    for threads in (1, 16):
        quickly |= rates(threads, *((5, 3) if options.quick else (160 // threads, 9)))
    versions = {name: importlib.metadata.version(name) for name in ("openai", "anthropic", "httpx2")}
    if options.json:
        print(
            json.dumps(
                {
                    "python": platform.python_version(),
                    **versions,
                    "tls": not options.plain,
                    "results": found,
                    "rates": quickly,
                }
            )
        )
        return 0
    print(f"{'':18}{'stock us':>10}{'perfkit us':>12}{'ratio':>8}{'new connections: stock':>25}{'perfkit':>9}")
    for row, values in found.items():
        print(
            f"{row:18}{values['stock_cpu_us']:10.0f}{values['perfkit_cpu_us']:12.0f}{values['cpu_ratio']:8.2f}"
            f"{values['stock_new_connections']:17.0f} of {values['calls']:<5.0f}"
            f"{values['perfkit_new_connections']:9.0f}"
        )
    for row, values in quickly.items():
        print(f"{row:24}{values['stock_per_s']:8.0f} calls/s stock,{values['perfkit_per_s']:8.0f} perfkit", end="")
        print(f"{values['ratio']:8.2f}x, CPU {values['cpu_ratio']:.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
