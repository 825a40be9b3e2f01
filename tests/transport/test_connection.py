from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from _servers import polled
from transport.peers import Peer, answering, descriptors, read_request, reply

from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool

StartPeer = Callable[..., Peer]


def test_descriptor_of_a_failed_dial_is_closed(connections: ConnectionPool) -> None:
    before = descriptors()
    for _ in range(5):
        with pytest.raises(ConnectionError):
            connections.request("GET", "http://127.0.0.1:1/")
    assert descriptors() == before


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("late", [b"", b"unasked"])
def test_idle_connection_that_ended_or_got_bytes_is_not_good(
    peer: StartPeer, tls_fault: FaultServer, tls: bool, late: bytes
) -> None:
    go = threading.Event()

    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(reply())
        go.wait(10)
        sock.sendall(late)

    assert tls_fault._authority is not None
    server = peer(script, tls=tls_fault._authority.server_file if tls else None)
    connections = ConnectionPool(proxy="", ca_file=tls_fault.ca_file)
    connections.request("GET", server.url)
    (pool,) = connections._hosts.values()
    taken = pool.take(1)
    assert taken.is_connected
    go.set()
    polled(lambda: not taken.is_connected)
    pool.give(taken)
    connections.close()


def test_hanging_up_reaches_the_peer_though_a_copy_of_the_socket_is_open(
    peer: StartPeer, connections: ConnectionPool
) -> None:
    gone = threading.Event()

    def script(sock: socket.socket) -> None:
        while sock.recv(1000):
            pass
        gone.set()

    server = peer(script)
    pool = connections.host(("http", "127.0.0.1", server.port))
    taken = pool.take(1)
    taken.limits.arm(lambda: 0.0, 10.0, 10.0)
    pool.open(taken)
    assert taken.sock is not None
    with taken.sock.dup():
        taken.hang_up()
        assert gone.wait(10)
    pool.give(taken)


def test_abandoning_leaves_the_peer_alone(peer: StartPeer, connections: ConnectionPool) -> None:
    server = peer(answering(reply(b"still here")))
    pool = connections.host(("http", "127.0.0.1", server.port))
    taken = pool.take(1)
    taken.limits.arm(lambda: 0.0, 10.0, 10.0)
    pool.open(taken)
    assert taken.sock is not None
    number = taken.sock.fileno()
    with taken.sock.dup() as copy:
        taken.abandon()
        taken.abandon()
        assert taken.sock is None
        with pytest.raises(OSError, match="Bad file"):
            socket.close(number)
        copy.settimeout(10)
        copy.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"still here" in copy.recv(1000)
    pool.give(taken)


def test_upload_in_pieces_through_a_handle_waits_for_a_slow_reader_also_after_a_plain_call(
    peer: StartPeer, connections: ConnectionPool
) -> None:
    go, size = threading.Event(), 8_000_000

    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(reply())
        go.wait(10)
        got = 0
        while got < size:
            got += len(sock.recv(1 << 20))
        sock.sendall(reply(b"taken"))

    server = peer(script)
    connections.request("POST", server.url, body=b"first")
    threading.Timer(0.1, go.set).start()
    with connections.get_connection("p", server.url) as handle:
        sent = handle.request("POST", "/", body=(bytes(1_000_000) for _ in range(size // 1_000_000)))
    assert (sent.data, server.accepted) == (b"taken", 1)
