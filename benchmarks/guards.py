"""What the pool guards against, beside urllib3, which does not: unfair waiting, replies that drip, and forks.

    python benchmarks/guards.py [--quick] [--json]

Waiting: 64 threads on 10 connections to a server that takes 50 ms; the fair share is what everybody would wait in turn.
Deadlines: calls with a timeout of 1 s (0.3 s in a quick run) of replies that drip for longer. Forks: children of a
process with a warm connection ask a server to echo their words, each process its own; the servers with four workers,
gunicorn and uWSGI, are left out of a quick run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import _prefork
from benchmarks._serving import BODY, CHAT, FIELDS, serving
from perfkit.errors import DeadlineExceeded
from perfkit.testing import FaultServer, faults
from perfkit.transport import ConnectionPool, HTTPClient

THREADS, CONNECTIONS, TAKES = 64, 10, 0.05


def waiting(*, quick: bool) -> dict[str, Any]:
    """Return for each pool the longest and the median call as multiples of the fair share."""
    calls = 4 if quick else 10
    with serving(delay=TAKES) as served:
        connections = ConnectionPool(maxsize=CONNECTIONS, proxy="", timeout=60)
        client = HTTPClient(f"http://127.0.0.1:{served.port}", connections=connections, headers=FIELDS)
        pool = urllib3.HTTPConnectionPool("127.0.0.1", served.port, maxsize=CONNECTIONS, block=True)
        ways: dict[str, Callable[[], Any]] = {
            "urllib3": lambda: pool.urlopen("POST", CHAT, BODY, FIELDS).data,
            "perfkit": lambda: client.post(CHAT, BODY).body,
        }
        return {name: _shares(call, calls) for name, call in ways.items()}


def _shares(call: Callable[[], Any], calls: int) -> dict[str, float]:
    took, ready = list[float](), threading.Barrier(THREADS)

    def work() -> None:
        ready.wait()
        for _ in range(calls):
            began = time.perf_counter()
            call()
            took.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fair = (time.perf_counter() - began) / calls  # with everybody served in turn, each call takes a round of all
    return {"longest": max(took) / fair, "median": statistics.median(took) / fair}


def deadlines(*, quick: bool) -> dict[str, Any]:
    """Return by what is dripping how far over its timeout each call went, in milliseconds."""
    timeout, runs = (0.3, 3) if quick else (1.0, 10)
    found: dict[str, Any] = {}
    for tls in (False, True):
        with FaultServer(tls=tls or None) as server:
            client = HTTPClient(
                server.base_url,
                retries=0,
                connections=ConnectionPool(ca_file=server.ca_file if tls else None, proxy=""),
            )
            for part in ("head", "body"):
                server.behave(faults.drip(interval=0.05, part=part))
                overshoots = [_overshoot(client, timeout) * 1e3 for _ in range(runs)]
                kept = sum(overshoot <= 50 for overshoot in overshoots)
                found[f"{part}{', TLS' if tls else ''}"] = {"most_ms": max(overshoots), "kept": kept, "of": runs}
    return found


def _overshoot(client: HTTPClient, timeout: float) -> float:
    began = time.perf_counter()
    try:
        client.post(
            "/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "a"}]}, timeout=timeout
        )
    except DeadlineExceeded:
        return time.perf_counter() - began - timeout
    raise AssertionError("it did not drip for long enough")


def forks(*, quick: bool) -> dict[str, Any]:
    """Return how many echoes were somebody else's, or failed, in four children of a process in use."""
    calls = 15 if quick else 120
    found: dict[str, Any] = {}
    for tls in (False, True):
        with FaultServer(tls=tls or None) as server:
            ca_file, kind = (server.ca_file, "TLS") if tls else (None, "plain")
            connections = ConnectionPool(ca_file=ca_file, proxy="")
            client = HTTPClient(server.root_url, retries=0, connections=connections)
            found[f"plain fork, {kind}"] = {"perfkit": _wrong(client, calls), "of": 4 * calls}
            for name in () if quick else _prefork.SERVERS:
                wrong = _prefork.wrong_of(name, server.root_url, ca_file, 24)
                found[f"{name}, {kind}"] = {**wrong, "of": 24 * _prefork.PORTION}
    return found


def _wrong(client: HTTPClient, calls: int) -> int:
    client.post("/echo", b"the parent's")  # so that there is a connection to inherit
    children = [os.fork() or _child(client, number, calls) for number in range(4)]
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def _child(client: HTTPClient, number: int, calls: int) -> int:
    wrong = calls
    try:
        words = [f"child {number} call {call}" for call in range(calls)]
        wrong = sum(word not in client.post("/echo", word.encode()).text for word in words)
    finally:
        os._exit(wrong)


def show(found: dict[str, Any]) -> None:
    for name, row in found["waiting"].items():
        print(f"64 threads on 10 connections, {name}: longest {row['longest']:.2f}x the fair share")
    for name, row in found["deadlines"].items():
        print(f"dripping {name}: {row['kept']} of {row['of']} within 50 ms, most {row['most_ms']:.0f} ms over")
    for name, row in found["forks"].items():
        rival = f", urllib3 {row['urllib3']}" if "urllib3" in row else ""
        print(f"echoes in forked children, {name}: {row['perfkit']} wrong of {row['of']}{rival}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 15 seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    found = {part.__name__: part(quick=options.quick) for part in (waiting, deadlines, forks)}
    print(json.dumps(found)) if options.json else show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
