"""Servers that answer before they have read the request, and then read no more of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Self

import pytest
from transport.peers import Peer, Script, read_request, reply
from urllib3.exceptions import ReadTimeoutError
from urllib3.util import Timeout

from perfkit.errors import DeadlineExceeded, NetworkError
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool

StartPeer = Callable[..., Peer]
LARGE = bytes(20_000_000)  # more than the kernels of both sides hold
REFUSAL = reply(b"slow down", "Retry-After: 7", status="429 Too Many Requests")
Send = Callable[[ConnectionPool, str], tuple[int, bytes]]


def lean(connections: ConnectionPool, url: str) -> tuple[int, bytes]:
    sent = connections.request("POST", url, body=LARGE, timeout=20)
    return sent.status, sent.body


def handle(connections: ConnectionPool, url: str) -> tuple[int, bytes]:
    with connections.get_connection("p", url) as pool:
        sent = pool.request("POST", "/", body=LARGE, timeout=20, retries=False)
    return sent.status, sent.data


def handle_in_pieces(connections: ConnectionPool, url: str) -> tuple[int, bytes]:
    with connections.get_connection("p", url) as pool:
        pieces = (LARGE[:100_000] for _ in range(200))
        sent = pool.request("POST", "/", body=pieces, timeout=20, retries=False)
    return sent.status, sent.data


def handle_without_timeout(connections: ConnectionPool, url: str) -> tuple[int, bytes]:
    with connections.get_connection("p", url) as pool:
        sent = pool.request("POST", "/", body=LARGE, timeout=None, retries=False)
    return sent.status, sent.data


WAYS = [lean, handle, handle_in_pieces, handle_without_timeout]


class Refusing:
    """A server that refuses each upload after its first bytes, and leaves the connection open without reading."""

    def __init__(self, start: StartPeer, answer: bytes, tls: str | None) -> None:
        self._done = threading.Event()
        self.answer = answer
        self.url = start(self._refuse, tls=tls).url

    def _refuse(self, sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(self.answer)
        self._done.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def certificate(request: pytest.FixtureRequest, tls_fault: FaultServer) -> str | None:
    assert tls_fault._authority is not None
    return tls_fault._authority.server_file if request.param else None


@pytest.fixture
def pool(tls_fault: FaultServer) -> Iterator[ConnectionPool]:
    made = ConnectionPool(proxy="", ca_file=tls_fault.ca_file, write_timeout=10, read_timeout=10)
    yield made
    made.close()


@pytest.mark.parametrize("way", WAYS)
def test_refusal_of_an_upload_that_nobody_reads_is_the_reply(
    peer: StartPeer, pool: ConnectionPool, certificate: str | None, way: Send
) -> None:
    with Refusing(peer, REFUSAL, certificate) as server:
        assert way(pool, server.url) == (429, b"slow down")
        (stats,) = pool.stats().values()
        assert (stats["in_use"], stats["idle"]) == (0, 0)  # nothing can follow a request that was not sent whole


@pytest.mark.parametrize("way", [lean, handle])
def test_reply_that_begins_before_the_upload_has_ended_is_no_refusal(
    peer: StartPeer, pool: ConnectionPool, certificate: str | None, way: Send
) -> None:
    answer = reply(b"all of it")

    def script(sock: socket.socket) -> None:
        begun = sock.recv(1000)
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + answer[:30])
        missing = len(LARGE) - len(begun.partition(b"\r\n\r\n")[2])
        while missing > 0:
            missing -= len(sock.recv(1 << 20))
        sock.sendall(answer[30:])
        read_request(sock)

    server = peer(script, tls=certificate)
    assert way(pool, server.url) == (200, b"all of it")
    (stats,) = pool.stats().values()
    assert (stats["in_use"], stats["idle"]) == (0, 1)


@pytest.mark.parametrize("early", [reply(b"later")[:-5], b""], ids=["head", "nothing"])
def test_a_handle_bears_the_silence_of_a_new_connection_no_longer_than_read_timeout(
    peer: StartPeer, tls_fault: FaultServer, certificate: str | None, early: bytes
) -> None:
    done, late = threading.Event(), reply(b"later")[len(early) :]

    def script(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(early)
        missing = len(LARGE)
        while missing > 65536:
            missing -= len(sock.recv(1 << 20))
        sock.sendall(late[:1])
        done.wait(5)
        sock.sendall(late[1:])

    connections = ConnectionPool(proxy="", ca_file=tls_fault.ca_file, write_timeout=10, read_timeout=0.1)
    with connections.get_connection("p", peer(script, tls=certificate).url) as pool, pytest.raises(ReadTimeoutError):
        pool.request("POST", "/", body=LARGE, timeout=Timeout(total=20), retries=False)
    done.set()
    connections.close()


def test_status_that_comes_in_two_pieces_is_understood(peer: StartPeer, pool: ConnectionPool) -> None:
    said, done = threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(REFUSAL[:10])
        said.wait(0.05)
        sock.sendall(REFUSAL[10:])
        done.wait(20)

    server = peer(script)
    assert lean(pool, server.url) == (429, b"slow down")
    done.set()


@pytest.mark.parametrize("script_end", [b"", b"HTTP/1.1 429 "])
def test_peer_that_ends_during_the_upload_fails_the_call_at_once(
    peer: StartPeer, pool: ConnectionPool, script_end: bytes
) -> None:
    done = threading.Event()

    def script(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(script_end)
        sock.shutdown(socket.SHUT_WR)
        done.wait(20)

    server = peer(script)
    with pytest.raises(NetworkError) as caught:
        lean(pool, server.url)
    assert caught.value.sent
    assert server.accepted == 1
    done.set()


def test_upload_nobody_reads_nor_refuses_ends_with_the_write_timeout(peer: StartPeer, tls_fault: FaultServer) -> None:
    done = threading.Event()

    def silent(sock: socket.socket) -> None:
        sock.recv(1000)
        done.wait(20)

    scripts: list[Script] = [silent]
    server, connections = peer(*scripts), ConnectionPool(proxy="", write_timeout=0.05)
    with pytest.raises(DeadlineExceeded, match="write_timeout"):
        lean(connections, server.url)
    done.set()
