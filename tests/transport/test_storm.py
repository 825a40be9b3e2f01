"""Many calls against a server that breaks in every way it can, counted by the server: what was asked for twice.

benchmarks/transport_storm.py makes more of them than the test has time for.
"""

from __future__ import annotations

import gzip
import random
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from _servers import polled
from transport.peers import Peer, descriptors, reply

from perfkit.errors import TransportError
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient, kernel

FAULTS = ["none"] * 6 + [
    "close idle",
    "reset",
    "cut",
    "cut chunk",
    "cut gzip",
    "oversized",
    "early 429",
    "early 429, open",
    "silent close",
]
LIMIT = 100_000  # bytes of a body
LARGE = 600_000  # bytes of an upload
HUGE = 8_000_000  # of one that the kernels of both sides do not hold
EARLY = reply(b"slow down", "Connection: close", status="429 Too Many Requests")


class Storm:
    """A server that does with each request what its own field says, and counts those it has begun to answer."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.lock = threading.Lock()  # guards answered

    def __call__(self, sock: socket.socket) -> None:
        got = b""
        while True:
            while b"\r\n\r\n" not in got:
                piece = sock.recv(65536)
                if not piece:
                    return
                got += piece
            head, _, body = got.partition(b"\r\n\r\n")
            told = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
            if told["x-fault"].startswith("early 429"):
                sock.sendall(EARLY)  # while the body is on its way
                if told["x-fault"] == "early 429, open":  # and it is never read
                    kernel.is_ready(sock, select.POLLRDHUP, 20.0)
                return
            while len(body) < int(told["content-length"]):
                body += sock.recv(65536)
            got = b""
            if not self.answer(sock, told["x-id"], told["x-fault"]):
                return

    def answer(self, sock: socket.socket, number: str, fault: str) -> bool:
        """Return whether the connection goes on."""
        if fault == "reset":  # before it has begun
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if fault == "silent close":
            return False
        with self.lock:
            self.answered[number] += 1
        sock.sendall(self.reply(number.encode(), fault))
        return fault not in ("close idle", "cut", "cut chunk")

    def reply(self, body: bytes, fault: str) -> bytes:
        packed = gzip.compress(body * 50)[:-6]
        spoilt = {
            "cut": reply(body + b"more")[:-4],
            "cut chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + body,
            "cut gzip": reply(packed, "Content-Encoding: gzip"),
            "oversized": reply(gzip.compress(bytes(3 * LIMIT)), "Content-Encoding: gzip"),
        }
        return spoilt.get(fault) or reply(body)


def storm(server: Peer, storming: Storm, calls: int, **settings: Any) -> Counter[str]:
    """Make `calls` calls from 16 threads, and return how each kind of fault ended."""
    connections = ConnectionPool(proxy="", maxsize=12, max_body=LIMIT, **settings)
    client = HTTPClient(server.url, connections=connections, retries=2, timeout=20)
    chance, outcomes = random.Random(7), Counter[str]()
    asked = [(f"{number:06d}", chance.choice(FAULTS)) for number in range(calls)]
    threads = threading.active_count()

    def ask(number: str, fault: str) -> str:
        body = bytes({"early 429": LARGE, "early 429, open": HUGE}.get(fault, 300))
        try:
            got = client.post("/", body, headers={"x-id": number, "x-fault": fault})
        except TransportError as error:
            return f"{fault}: {type(error).__name__}"
        if got.status == 200:
            assert got.text == number  # nobody else's reply
        return f"{fault}: {got.status}"

    with ThreadPoolExecutor(16) as pool:
        outcomes.update(pool.map(lambda each: ask(*each), asked))
    (stats,) = connections.stats().values()
    assert (stats["in_use"], stats["waiters"]) == (0, 0)
    assert max(storming.answered.values()) == 1  # none was begun twice
    assert sum(outcomes.values()) == calls
    connections.close()
    polled(lambda: threading.active_count() <= threads + server.accepted)
    return outcomes


ENDS = {
    "none": {"200"},
    "close idle": {"200"},
    "reset": {"NetworkError"},
    "silent close": {"NetworkError"},
    "cut": {"NetworkError"},
    "cut chunk": {"NetworkError"},
    "cut gzip": {"NetworkError"},
    "oversized": {"NetworkError"},
    "early 429": {"429"},
    "early 429, open": {"429"},
}


def check(outcomes: Counter[str]) -> None:
    for told in outcomes:
        fault, _, end = told.partition(": ")
        assert end in ENDS[fault], outcomes


@pytest.mark.parametrize("tls", [False, True])
def test_nothing_hangs_leaks_or_is_begun_twice_whatever_the_server_does(
    peer: Callable[..., Peer], tls_fault: FaultServer, tls: bool
) -> None:
    before, storming, authority = descriptors(), Storm(), tls_fault._authority
    assert authority is not None
    server = peer(storming, tls=authority.server_file if tls else None)
    check(storm(server, storming, 600, ca_file=authority.ca_file if tls else None))
    server.close()
    polled(lambda: descriptors() <= before + 1)
