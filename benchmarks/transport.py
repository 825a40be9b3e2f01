"""What calls cost on warm connections: http.client, bare urllib3 and perfkit, side by side, and pycurl where installed.

All run in this process, in turns, against a tiny server in a process of its own, so that a busy machine slows all of
them alike; read the ratios. A call is POST 2 KB of JSON, answered by 2 KB and the 25 fields of a large provider.

    python benchmarks/transport.py [--quick] [--json] [--tls]
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._serving import BODY, CHAT, EVENTS, FIELDS, Served, serving
from perfkit.testing.tls import Authority
from perfkit.transport import ConnectionPool, HTTPClient

Call = Callable[[], Any]
Maker = Callable[[], Call]  # of what one thread calls
Row = dict[str, float]
STREAM = json.dumps({"model": "m", "stream": True}).encode()
SLOW = 0.1  # seconds


class Clients:
    """Every client's way to make one call to a server; threads share what each is made to share."""

    def __init__(self, served: Served, ca_file: str | None) -> None:
        self._port = served.port
        self._context = None if ca_file is None else ssl.create_default_context(cafile=ca_file)
        self._ca_file = ca_file
        self.url = f"{'http' if ca_file is None else 'https'}://127.0.0.1:{served.port}"
        self.connections = ConnectionPool(ca_file=ca_file, proxy="", maxsize=64)
        self._handle: Any = None

    def http_client(self) -> Call:
        """A connection a thread, which is how it is used."""
        if self._context is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context)

        def call() -> None:
            connection.request("POST", CHAT, BODY, FIELDS)
            connection.getresponse().read()

        return call

    def urllib3_pool(self) -> Call:
        if self._handle is None:
            kind = urllib3.HTTPConnectionPool if self._context is None else urllib3.HTTPSConnectionPool
            more = {} if self._context is None else {"ssl_context": self._context}
            self._handle = kind("127.0.0.1", self._port, maxsize=64, block=True, **more)  # type: ignore[arg-type]
        return lambda: self._handle.urlopen("POST", CHAT, BODY, FIELDS).data

    def perfkit(self) -> Call:
        client = HTTPClient(self.url, retries=0, headers=FIELDS, connections=self.connections)
        return lambda: client.post(CHAT, BODY).body

    def perfkit_handle(self) -> Call:
        def call() -> None:
            with self.connections.get_connection("openai", self.url) as handle:
                handle.urlopen("POST", CHAT, BODY, FIELDS).data  # noqa: B018 - reading is the point

        return call

    def pycurl(self) -> Call:
        import pycurl

        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, self.url + CHAT)
        curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in FIELDS.items()])
        curl.setopt(pycurl.POSTFIELDS, BODY)
        curl.setopt(pycurl.NOSIGNAL, 1)
        if self._ca_file is not None:
            curl.setopt(pycurl.CAINFO, self._ca_file)
        perform: Call = curl.perform_rb
        return perform

    def makers(self, *names: str) -> dict[str, Maker]:
        return {name: getattr(self, name) for name in names}


def together(make: Maker, threads: int, calls: int) -> tuple[float, float, list[float]]:
    """Return wall seconds and CPU seconds of a round, and how long each call took."""
    ready, took = threading.Barrier(threads + 1), list[float]()

    def work() -> None:
        call, mine = make(), list[float]()
        call()
        ready.wait()
        for _ in range(calls):
            began = time.perf_counter()
            call()
            mine.append(time.perf_counter() - began)
        took.extend(mine)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    began, used = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began, time.process_time() - used, took


def compare(makers: dict[str, Maker], threads: int, calls: int, rounds: int) -> dict[str, Row]:
    """Return calls a second, CPU a call and the 99th percentile; ratios are to the first, round by round."""
    wall: dict[str, list[float]] = {name: [] for name in makers}
    cpu: dict[str, list[float]] = {name: [] for name in makers}
    took: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            seconds, used, each = together(make, threads, calls)
            wall[name].append(seconds)
            cpu[name].append(used)
            took[name].extend(each)
    first, number = next(iter(makers)), threads * calls
    return {
        name: {
            "calls_per_s": number / statistics.median(wall[name]),
            "rate_ratio": statistics.median(a / b for a, b in zip(wall[first], wall[name], strict=True)),
            "cpu_us": statistics.median(cpu[name]) / number * 1e6,
            "cpu_ratio": statistics.median(a / b for a, b in zip(cpu[name], cpu[first], strict=True)),
            "p99_ms": sorted(took[name])[math.ceil(len(took[name]) * 0.99) - 1] * 1e3,
        }
        for name in makers
    }


def events(clients: Clients, rounds: int) -> Row:
    """Return the CPU of one event of a stream of 1000, json.loads included, and of json.loads alone."""
    client = HTTPClient(clients.url, retries=0, headers=FIELDS, connections=clients.connections)
    spent, parsing = list[float](), list[float]()
    for _ in range(rounds):
        seen, began = list[str](), time.thread_time()
        with client.stream(CHAT, STREAM) as stream:
            for event in stream.events():
                if event.data != "[DONE]":
                    json.loads(event.data)
                    seen.append(event.data)
        spent.append(time.thread_time() - began)
        assert len(seen) == EVENTS
        began = time.thread_time()
        for data in seen:
            json.loads(data)
        parsing.append(time.thread_time() - began)
    each = 1e6 / EVENTS
    return {"cpu_us_per_event": statistics.median(spent) * each, "json_us": statistics.median(parsing) * each}


def new_connections(clients: Clients, number: int) -> Row:
    """Return the CPU of opening a connection, and how many a burst of 16 threads opens after warm_up(16)."""
    origin = ("https" if clients.url.startswith("https") else "http", "127.0.0.1", clients._port)
    pool, spent = clients.connections.host(origin), list[float]()
    for _ in range(number):
        connection = pool.take(1.0)
        connection.close()
        began = time.thread_time()
        pool.open(connection)
        spent.append(time.thread_time() - began)
        pool.give(connection)
    clients.connections.close()
    clients.connections.warm_up(clients.url, 16)
    before = clients.connections.stats()[pool.name]["created"]
    together(clients.perfkit, 16, 1)
    opened = clients.connections.stats()[pool.name]["created"] - before
    return {"cpu_ms": statistics.median(spent) * 1e3, "opened_in_burst": opened}


def run(ca_file: str | None, certificate: str | None, *, quick: bool) -> dict[str, Any]:
    rivals = ("http_client", "urllib3_pool", "perfkit_handle", "perfkit")
    plans = {1: (200, 5), 16: (12, 5), 64: (4, 5)} if quick else {1: (300, 15), 16: (30, 15), 64: (10, 15)}
    found: dict[str, Any] = {}
    with serving(certificate) as served:
        clients = Clients(served, ca_file)
        for threads, (calls, rounds) in plans.items():
            found[f"{threads} threads"] = compare(clients.makers(*rivals), threads, calls, rounds)
        found["stream"] = events(clients, 3 if quick else 15)
        found["new connection"] = new_connections(clients, 10 if quick else 50)
    return found


def slow_server(ca_file: str, certificate: str, *, quick: bool) -> dict[str, Row]:
    """Return how 64 threads fare with a server that takes 100 ms."""
    with serving(certificate, delay=SLOW) as served:
        clients = Clients(served, ca_file)
        names = ["pycurl", "perfkit"] if _has_pycurl() else ["http_client", "perfkit"]
        return compare(clients.makers(*names), 64, 4 if quick else 10, 2 if quick else 5)


def _has_pycurl() -> bool:
    try:
        import pycurl  # noqa: F401 - asked for, not used
    except ImportError:
        return False
    return True


def show(kind: str, found: dict[str, Any]) -> None:
    for section, rows in found.items():
        if section == "stream":
            print(f"{kind}, 1000 events: {rows['cpu_us_per_event']:.1f} us CPU each, {rows['json_us']:.1f} of it JSON")
        elif section == "new connection":
            print(f"{kind}, new connection: {rows['cpu_ms']:.2f} ms CPU; ", end="")
            print(f"a burst of 16 after warm_up(16) opened {rows['opened_in_burst']:.0f}")
        else:
            print(f"{kind + ', ' + section:24}{'calls/s':>9}{'x first':>9}{'CPU us':>9}{'x first':>9}{'p99 ms':>9}")
            for name, row in rows.items():
                print("  {:22}{:9.0f}{:9.2f}{:9.1f}{:9.2f}{:9.1f}".format(name, *row.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 20 seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--tls", action="store_true", help="over TLS only; without it over both")
    options = parser.parse_args()
    with Authority() as authority:
        files = authority.ca_file, authority.server_file
        result = {} if options.tls else {"plain": run(None, None, quick=options.quick)}
        result["tls"] = run(*files, quick=options.quick)
        result["tls"]["64 threads, 100 ms"] = slow_server(*files, quick=options.quick)
    if options.json:
        print(json.dumps(result))
        return 0
    for kind, found in result.items():
        show(kind, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
