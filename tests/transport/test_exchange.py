"""One call on real sockets that fail in every way: what is sent how often, and what becomes of the connection."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from _servers import polled
from transport.peers import Peer, answering, descriptors, read_request, reply

from perfkit.clock import SYSTEM_CLOCK, FakeClock
from perfkit.errors import DeadlineExceeded, NetworkError, PoolTimeout, TransportError
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.testing.llm import LlamaServer
from perfkit.transport import ConnectionPool, HTTPClient, kernel
from perfkit.transport.call import Waits, prepare
from perfkit.transport.connection import PooledConnection
from perfkit.transport.exchange import Exchange
from perfkit.transport.reply import Reply, WholeReply

StartPeer = Callable[..., Peer]
LONG = 50_000  # bytes of a body that does not come with its head
CHAT = "/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def stats(connections: ConnectionPool) -> dict[str, float]:
    (only,) = connections.stats().values()
    return only


def test_many_calls_use_one_connection(
    any_client: HTTPClient, any_fault: FaultServer, any_connections: ConnectionPool
) -> None:
    for number in range(10):
        assert any_client.post("/echo", {"n": number}).json() == {"n": number}
    assert any_fault.counters()["connections"] == 1
    assert any_fault.counters()["requests"] == 10
    assert stats(any_connections) | {"wait_p95": 0} == {
        "created": 1, "reused": 9, "reconnected": 0, "in_use": 0, "idle": 1, "waiters": 0, "wait_p95": 0,
        "closed_idle": 0,
        "odd": 0,
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 3_000_000])
def test_bodies_of_any_size_go_and_come_whole(any_client: HTTPClient, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert any_client.post("/echo", body, {"content-type": "application/octet-stream"}).body == body


# --- a POST is not sent twice


def test_reset_of_a_fresh_connection_is_not_sent_again(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.reset())
    with pytest.raises(NetworkError) as caught:
        client.post(CHAT, ASK)
    assert caught.value.sent is True
    assert fault.counters()["requests"] == 1


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("size", [2, 600_000])
@pytest.mark.parametrize("tls", [False, True])
def test_request_to_one_who_was_just_closing_is_sent_again_once(
    peer: StartPeer, tls_fault: FaultServer, monkeypatch: pytest.MonkeyPatch, tls: bool, size: int, how: str
) -> None:
    """The end arrives after the connection was found to be good, and before the request."""
    go = threading.Event()

    def closing(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(reply(b"first"))
        go.wait(10)
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def found_good(sock: Any) -> bytes:
        found = at_rest(sock)
        go.set()
        assert kernel.is_ready(sock, select.POLLIN, 10.0)
        return found

    at_rest = kernel.at_rest

    assert tls_fault._authority is not None
    server = peer(closing, answering(reply(b"second")), tls=tls_fault._authority.server_file if tls else None)
    connections = ConnectionPool(proxy="", ca_file=tls_fault.ca_file)
    client = HTTPClient(server.url, retries=0, connections=connections)
    assert client.post("/", ASK).body == b"first"
    with monkeypatch.context() as patched:
        patched.setattr(kernel, "at_rest", found_good)
        assert client.post("/", bytes(size)).body == b"second"
    assert (server.accepted, stats(connections)["reconnected"]) == (2, 1)
    connections.close()


@pytest.mark.parametrize("failure", [faults.reset(), faults.close()])
def test_reused_connection_that_dies_at_once_is_sent_again_once(
    any_fault: FaultServer, any_connections: ConnectionPool, failure: faults.Behaviour
) -> None:
    client = HTTPClient(any_fault.base_url, retries=0, connections=any_connections, clock=FakeClock())  # no time passes
    any_fault.behave(faults.ok(), failure, faults.ok("second try"))
    client.post(CHAT, ASK)
    assert "second try" in client.post(CHAT, ASK).text
    assert any_fault.counters()["requests"] == 3
    assert stats(any_connections)["reconnected"] == 1


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("method", "read", "again"), [("POST", True, False), ("POST", False, True), ("GET", True, True)]
)
def test_end_that_comes_late_is_asked_about_of_tcp(
    peer: StartPeer, tls_fault: FaultServer, tls: bool, method: str, read: bool, again: bool
) -> None:
    clock = FakeClock()

    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(reply(b"first"))
        assert kernel.is_ready(sock, select.POLLIN, 10.0)
        if read:
            read_request(sock)
        clock.advance(0.5)

    assert tls_fault._authority is not None
    server = peer(script, answering(reply(b"second")), tls=tls_fault._authority.server_file if tls else None)
    connections = ConnectionPool(proxy="", ca_file=tls_fault.ca_file, clock=clock)
    client = HTTPClient(server.url, retries=0, connections=connections, clock=clock)
    assert client.request(method, "/", ASK).body == b"first"
    if again:
        assert client.request(method, "/", ASK).body == b"second"
    else:
        with pytest.raises(NetworkError) as caught:
            client.request(method, "/", ASK)
        assert caught.value.sent
    assert server.accepted == (2 if again else 1)
    connections.close()


def test_connection_that_dies_at_work_is_not_sent_again(peer: StartPeer) -> None:
    """It is no idle connection then: the server has had the request for seconds."""
    clock = FakeClock()
    requests = list[bytes]()

    def script(sock: socket.socket) -> None:
        sock.sendall(reply()) if read_request(sock) else None
        requests.append(read_request(sock))
        clock.advance(1.5)

    connections = ConnectionPool(proxy="", clock=clock)
    client = HTTPClient(peer(script).url, connections=connections, retries=3, clock=clock)
    client.post("/", b"{}")
    with pytest.raises(NetworkError) as caught:
        client.post("/", b"{}")
    assert caught.value.sent is True
    assert len(requests) == 1
    connections.close()


def test_second_death_is_not_sent_a_third_time(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.ok(), faults.reset())
    client.post(CHAT, ASK)
    with pytest.raises(NetworkError) as caught:
        client.post(CHAT, ASK)
    assert caught.value.sent is True
    assert fault.counters()["requests"] == 3


def test_first_byte_of_the_reply_rules_out_a_second_try(peer: StartPeer, connections: ConnectionPool) -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(reply())
        read_request(sock)
        sock.sendall(b"H")

    server = peer(script)
    client = HTTPClient(server.url, retries=0, connections=connections)
    client.post("/", ASK)
    with pytest.raises(NetworkError):
        client.post("/", ASK)
    assert server.accepted == 1


def test_silence_on_a_reused_connection_is_not_sent_again(fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="", read_timeout=1.0)
    client = HTTPClient(fault.base_url, retries=3, connections=connections)
    fault.behave(faults.ok(), faults.hang())
    client.post(CHAT, ASK)
    with pytest.raises(DeadlineExceeded) as caught:
        client.post(CHAT, ASK)
    assert caught.value.sent is True
    assert fault.counters()["requests"] == 2
    connections.close()


def test_retries_never_repeat_a_post_that_may_have_arrived(fault: FaultServer, connections: ConnectionPool) -> None:
    fault.behave(faults.close())
    with pytest.raises(NetworkError):
        HTTPClient(fault.base_url, retries=3, connections=connections, clock=FakeClock()).post(CHAT, ASK)
    assert fault.counters()["requests"] == 1


def test_get_is_tried_again(fault: FaultServer, connections: ConnectionPool) -> None:
    fault.behave(faults.close(), faults.close(), faults.ok())
    client = HTTPClient(fault.base_url, retries=3, connections=connections, clock=FakeClock())
    assert client.get("/models").status == 200
    assert fault.counters()["requests"] == 3


class ClockThatHeals(FakeClock):
    """The server is back after the first pause."""

    def __init__(self, server: FaultServer) -> None:
        super().__init__()
        self.server, self.slept = server, 0

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.slept += 1
        self.server.accept()


def test_refused_post_is_tried_again(fault: FaultServer, connections: ConnectionPool) -> None:
    fault.refuse()
    clock = ClockThatHeals(fault)
    client = HTTPClient(fault.base_url, retries=3, connections=connections, clock=clock)
    assert client.post(CHAT, ASK).status == 200
    assert (fault.counters()["requests"], clock.slept) == (1, 1)


def test_refused_connection_was_certainly_not_sent(client: HTTPClient, fault: FaultServer) -> None:
    fault.refuse()
    with pytest.raises(NetworkError, match="ConnectionRefused") as caught:
        client.post(CHAT, ASK)
    fault.accept()
    error = caught.value
    assert (error.sent, error.attempt, error.host) == (False, 1, f"127.0.0.1:{fault.port}")
    assert error.elapsed > 0


def test_unknown_name_was_certainly_not_sent(connections: ConnectionPool) -> None:
    with pytest.raises(NetworkError, match="gaierror") as caught:
        HTTPClient("http://no-such-host.invalid/v1", retries=0, connections=connections).get("/")
    assert caught.value.sent is False


# --- replies that are not whole


@pytest.mark.parametrize(
    "failure",
    [
        faults.truncated(),
        faults.truncated(faults.sse("data: 1\n\n", "data: 2\n\n")),
        faults.cut(faults.sse("data: 1\n\n", "data: 2\n\n"), after_events=1),
        faults.cut(after_bytes=10, how="fin"),
        faults.gzip(broken=True),
        faults.garbage(),
    ],
    ids=lambda failure: f"{failure.name}-{failure.of.name if failure.of else ''}",
)
def test_reply_that_is_not_whole_is_refused(
    client: HTTPClient, fault: FaultServer, connections: ConnectionPool, failure: faults.Behaviour
) -> None:
    fault.behave(failure)
    with pytest.raises(NetworkError) as caught:
        client.post(CHAT, ASK)
    assert caught.value.sent is True
    assert fault.counters()["requests"] == 1
    assert stats(connections)["in_use"] == 0


def test_gzip_reply_is_decoded(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.gzip(faults.ok("unpacked")))
    assert "unpacked" in client.post(CHAT, ASK).text


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_reply_over_the_limit_is_refused(fault: FaultServer, coding: str | None) -> None:
    big = faults.ok("x" * 100_000)
    fault.behave(faults.gzip(big) if coding else big)
    connections = ConnectionPool(proxy="", max_body=50_000)
    with pytest.raises(NetworkError, match=r"more than (50000|\d+) bytes"):
        HTTPClient(fault.base_url, retries=3, connections=connections).post(CHAT, ASK)
    connections.close()
    assert fault.counters()["requests"] == 1


def test_chunked_reply_over_the_limit_is_refused(fault: FaultServer) -> None:
    fault.behave(faults.sse(*["data: " + "x" * 1000 + "\n\n"] * 100))
    connections = ConnectionPool(proxy="", max_body=50_000)
    with pytest.raises(NetworkError, match="more than 50000 bytes"):
        HTTPClient(fault.base_url, retries=0, connections=connections).post(CHAT, ASK)
    connections.close()


def test_statuses_are_replies(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.unauthorized(), faults.rate_limited(2), faults.server_error(), faults.overloaded())
    replies = [client.post(CHAT, ASK) for _ in range(4)]
    assert [each.status for each in replies] == [401, 429, 500, 529]
    assert replies[1].headers["Retry-After"] == "2"
    assert fault.counters()["connections"] == 1


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_reply_without_a_body_leaves_the_connection_usable(
    peer: StartPeer, connections: ConnectionPool, status: str
) -> None:
    empty = f"HTTP/1.1 {status}\r\nX: y\r\n\r\n".encode()
    server = peer(answering(empty, reply(b"next")))
    client = HTTPClient(server.url, connections=connections)
    assert (client.get("/").body, client.get("/").body, server.accepted) == (b"", b"next", 1)


def test_any_method_works(peer: StartPeer, connections: ConnectionPool) -> None:
    head_reply = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    server = peer(answering(head_reply, reply(b"a"), reply(b"b"), reply(b"c")))
    client = HTTPClient(server.url, connections=connections)
    bodies = [client.request(method, "/").body for method in ("head", "PUT", "DELETE", "OPTIONS")]
    assert (bodies, server.accepted) == ([b"", b"a", b"b", b"c"], 1)


def test_bytes_nobody_asked_for_do_not_become_the_next_reply(peer: StartPeer, connections: ConnectionPool) -> None:
    server = peer(answering(reply(b"one") + reply(b"not asked for")), answering(reply(b"two")))
    client = HTTPClient(server.url, connections=connections)
    assert (client.get("/").body, client.get("/").body) == (b"one", b"two")
    assert server.accepted == 2


def test_late_bytes_do_not_become_the_next_reply(peer: StartPeer, connections: ConnectionPool) -> None:
    late, sent = threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(reply(b"one"))
        late.wait(10)
        sock.sendall(reply(b"not asked for"))
        sent.set()
        read_request(sock)

    server = peer(script, answering(reply(b"two")))
    client = HTTPClient(server.url, connections=connections)
    assert client.get("/").body == b"one"
    late.set()
    sent.wait(10)
    assert client.get("/").body == b"two"
    assert server.accepted == 2


def test_polite_close_is_followed(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.ok(headers={"connection": "close"}))
    assert [client.post(CHAT, ASK).status for _ in range(3)] == [200] * 3
    assert fault.counters()["connections"] == 3


def test_announced_close_is_believed_even_if_the_connection_stays_open(
    peer: StartPeer, connections: ConnectionPool
) -> None:
    server = peer(answering(reply(b"x", "Connection: close")))
    client = HTTPClient(server.url, connections=connections)
    assert [client.get("/").body for _ in range(3)] == [b"x"] * 3
    assert server.accepted == 3


def test_reply_that_ends_with_its_connection_is_read(peer: StartPeer, connections: ConnectionPool) -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nuntil ")
        sock.sendall(b"the end")

    server = peer(script)
    client = HTTPClient(server.url, connections=connections)
    assert [client.get("/").body for _ in range(2)] == [b"until the end"] * 2
    assert server.accepted == 2


def test_reply_cut_off_without_the_end_of_tls_is_refused(peer: StartPeer, tls_fault: FaultServer) -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf of the")  # closing the socket sends no close_notify

    assert tls_fault._authority is not None
    server = peer(script, tls=tls_fault._authority.server_file)
    connections = ConnectionPool(proxy="", ca_file=tls_fault.ca_file)
    with pytest.raises(NetworkError, match="EOF"):
        HTTPClient(server.url, retries=0, connections=connections).post("/", {})
    connections.close()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("status", ["429 Too Many Requests", "413 Content Too Large"])
def test_early_refusal_of_a_large_upload_is_the_reply(
    peer: StartPeer, tls_fault: FaultServer, tls: bool, status: str
) -> None:
    def script(sock: socket.socket) -> None:
        while b"\r\n\r\n" not in sock.recv(65536):
            pass
        sock.sendall(reply(b"slow down", status=status))  # and close with most of the body unread

    assert tls_fault._authority is not None
    server = peer(script, tls=tls_fault._authority.server_file if tls else None)
    client = HTTPClient(server.url, retries=0, connections=ConnectionPool(proxy="", ca_file=tls_fault.ca_file))
    answers = [client.post("/", b"x" * size) for size in [20_000_000] + [600_000] * 9]
    assert [(each.status, each.body) for each in answers] == [(int(status[:3]), b"slow down")] * 10
    assert server.accepted == 10


def test_upload_that_breaks_without_a_reply_is_an_error(peer: StartPeer, connections: ConnectionPool) -> None:
    def script(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST

    server = peer(script)
    with pytest.raises(NetworkError) as caught:
        HTTPClient(server.url, retries=3, connections=connections).post("/", b"x" * 20_000_000)
    assert caught.value.sent is True
    assert server.accepted == 1


# --- deadlines


@pytest.mark.parametrize("part", ["head", "body", "all"])
def test_dripping_reply_ends_at_the_deadline(any_client: HTTPClient, any_fault: FaultServer, part: str) -> None:
    any_fault.behave(faults.drip(faults.ok("x" * 5000), size=1, interval=0.02, part=part))  # would take minutes
    with pytest.raises(DeadlineExceeded, match=r"its 1 s ran out while (waiting|reading)") as caught:
        any_client.post(CHAT, ASK, timeout=1.0)
    assert caught.value.sent is True
    any_fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)


def test_silent_server_ends_at_the_deadline(any_client: HTTPClient, any_fault: FaultServer) -> None:
    any_fault.behave(faults.hang())
    with pytest.raises(DeadlineExceeded) as caught:
        any_client.post(CHAT, ASK, timeout=1.0)
    assert isinstance(caught.value, TimeoutError)
    any_fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)


def test_server_that_does_not_read_ends_at_the_deadline(peer: StartPeer, connections: ConnectionPool) -> None:
    done = threading.Event()
    server = peer(lambda sock: done.wait(20) and None)
    with pytest.raises(DeadlineExceeded, match="waiting for the reply"):
        HTTPClient(server.url, retries=3, connections=connections).post("/", b"x" * 50_000_000, timeout=1.0)
    done.set()


def test_server_that_reads_slowly_ends_at_the_deadline(peer: StartPeer, connections: ConnectionPool) -> None:
    done, read = threading.Event(), list[int]()

    def script(sock: socket.socket) -> None:
        while not done.wait(0.01):  # would take many seconds, each send making progress
            read.append(len(sock.recv(65536)))

    server = peer(script)
    with pytest.raises(DeadlineExceeded, match=r"its 0\.3 s ran out"):
        HTTPClient(server.url, retries=3, connections=connections).post("/", b"x" * 50_000_000, timeout=0.3)
    done.set()
    assert sum(read) < 25_000_000


def test_handshake_that_hangs_ends_at_the_deadline(peer: StartPeer, connections: ConnectionPool) -> None:
    done = threading.Event()
    server = peer(lambda sock: done.wait(20) and None)
    with pytest.raises(DeadlineExceeded, match="while connecting") as caught:
        HTTPClient(server.url.replace("http", "https"), retries=0, connections=connections).get("/", timeout=0.3)
    assert caught.value.sent is False
    done.set()


def test_handshake_that_hangs_ends_at_connect_timeout(peer: StartPeer) -> None:
    done = threading.Event()
    server = peer(lambda sock: done.wait(20) and None)
    connections = ConnectionPool(proxy="", connect_timeout=0.2)
    with pytest.raises(DeadlineExceeded, match=r"connections\.connect_timeout"):
        HTTPClient(server.url.replace("http", "https"), retries=0, connections=connections).get("/")
    done.set()


def test_silence_is_bounded_by_read_timeout_unless_the_call_says_how_long(fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="", read_timeout=0.2)
    client = HTTPClient(fault.base_url, retries=0, connections=connections)
    fault.behave(faults.hang())
    with pytest.raises(DeadlineExceeded, match=r"no progress after (0\.[2-9]|[1-9]).*connections\.read_timeout"):
        client.post(CHAT, ASK)
    fault.behave(faults.hang(faults.raw(reply(b"{}")), seconds=0.5))
    assert client.post(CHAT, ASK, timeout=20).status == 200
    fault.behave(faults.stall(after_bytes=10))
    with pytest.raises(DeadlineExceeded, match=r"while reading the reply \(connections\.read_timeout"):
        client.post(CHAT, ASK, timeout=20)  # a model thinks before it begins to answer, not in the middle of a word
    connections.close()


def test_waits_of_a_call_come_before_those_of_its_host(fault: FaultServer) -> None:
    pool = ConnectionPool(proxy="", read_timeout=0.05)
    host = pool.host(("http", "127.0.0.1", fault.port))
    fault.behave(faults.ok(delay=0.2), faults.hang())

    def begin(read_timeout: float) -> int:
        waits = Waits(1.0, 1.0, read_timeout, 1.0)
        call = prepare(
            "GET", "/v1/models", {"host": "h"}, None, now=SYSTEM_CLOCK.now, timeout=None, patience=read_timeout
        )
        call.waits = waits
        exchange = Exchange(host, call).begin()
        exchange.read(10_000)
        return exchange.reply.status

    assert begin(10.0) == 200
    with pytest.raises(DeadlineExceeded, match="the timeout it was given"):
        begin(0.1)
    pool.close()


def test_tls_of_a_pool_may_be_its_own(tls_fault: FaultServer) -> None:
    context = ssl.create_default_context(cafile=tls_fault.ca_file)
    url = f"{tls_fault.base_url}/models"
    assert ConnectionPool(proxy="", ssl_context=context).request("GET", url).status == 200
    with pytest.raises(NetworkError, match="not trusted"):
        ConnectionPool(proxy="").request("GET", url)


def test_time_that_is_over_is_not_even_begun(fault: FaultServer, connections: ConnectionPool) -> None:
    class Hasty(FakeClock):
        def now(self) -> float:
            self.advance(1.0)
            return super().now()

    with pytest.raises(DeadlineExceeded) as caught:
        HTTPClient(fault.base_url, retries=0, connections=connections, clock=Hasty()).post(CHAT, ASK, timeout=0.5)
    assert caught.value.sent is False
    assert fault.counters()["requests"] == 0


# --- the pool is full


def test_full_pool_is_a_pool_timeout_that_says_what_to_do(fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="", maxsize=2, timeout=0.05)
    client = HTTPClient(fault.base_url, retries=3, connections=connections)
    fault.behave(faults.hang())
    results = list[int]()
    threads = [threading.Thread(target=lambda: results.append(client.post(CHAT, ASK).status)) for _ in range(2)]
    for thread in threads:
        thread.start()
    fault.wait_until(lambda counters: counters["held"] == 2)
    with pytest.raises(PoolTimeout, match=r"2 of 2 in use.*connections\.maxsize") as caught:
        client.post(CHAT, ASK)
    assert (caught.value.sent, caught.value.attempt) == (False, 1)
    assert isinstance(caught.value, TimeoutError)
    fault.release()
    for thread in threads:
        thread.join(10)
    assert results == [200, 200]
    assert fault.counters()["connections"] == 2
    connections.close()


def test_waiting_callers_are_served_in_the_order_they_came(fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="", maxsize=1)
    client = HTTPClient(fault.base_url, retries=0, connections=connections)
    fault.behave(faults.hang())
    threads = []
    for number in range(8):
        thread = threading.Thread(target=client.post, args=("/echo", {"n": number}))
        thread.start()
        threads.append(thread)
        if number == 0:
            fault.wait_until(lambda counters: counters["held"] == 1)
        else:
            polled(lambda: stats(connections)["waiters"] == number)  # noqa: B023 - runs within this turn
    fault.behave()
    fault.release()
    for thread in threads:
        thread.join(10)
    bodies = [request["body"] for request in fault.stats()["recent"]]
    assert bodies == [f'{{"n":{number}}}' for number in range(8)]
    assert fault.counters()["connections"] == 1
    connections.close()


def test_sixty_four_threads_on_ten_connections_all_get_their_own_replies(
    any_fault: FaultServer, any_connections: ConnectionPool
) -> None:
    any_connections.configure(maxsize=10)
    client = HTTPClient(any_fault.base_url, retries=0, connections=any_connections)
    wrong, together = list[Any](), threading.Barrier(64)

    def work(number: int) -> None:
        together.wait(20)
        for turn in range(5):
            sent = {"thread": number, "turn": turn}
            got = client.post("/echo", sent).json()
            if got != sent:
                wrong.append((sent, got))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert any_fault.counters()["requests"] == 320
    assert any_fault.counters()["connections"] <= 10
    assert stats(any_connections)["in_use"] == 0


@pytest.mark.parametrize(
    "step", ["is_connected", "connect", "converse", "_send", "read", "read1", "end", "end of all", "announce"]
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_whatever_interrupts_a_call_its_slot_comes_back(
    peer: StartPeer, connections: ConnectionPool, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    body = b"x" if step == "end of all" else bytes(LONG)
    client = HTTPClient(peer(answering(reply(body, "Keep-Alive: timeout=5"))).url, connections=connections)
    owner = {"read": Reply, "read1": Reply, "end": Reply, "end of all": WholeReply}.get(step, PooledConnection)

    def interrupted(*_: Any) -> None:
        raise error

    if step in ("converse", "is_connected"):
        client.get("/")  # so that there is a connection to use again
    with monkeypatch.context() as patched:
        value = property(interrupted) if step == "is_connected" else interrupted
        patched.setattr(owner, step.removesuffix(" of all"), value)
        with pytest.raises(error):
            client.stream("/").read() if step == "read1" else client.get("/")
    assert stats(connections)["in_use"] == 0
    assert client.get("/").body == body


@pytest.mark.parametrize("length", [0, 1, LONG])
def test_reply_that_comes_whole_gives_its_connection_back_before_it_is_read(
    peer: StartPeer, connections: ConnectionPool, length: int
) -> None:
    client = HTTPClient(peer(answering(reply(bytes(length)))).url, connections=connections)
    with client.stream("/") as stream:
        assert stats(connections)["in_use"] == (length == LONG)
        assert stream.read() == bytes(length)
    assert (stats(connections)["in_use"], stats(connections)["idle"]) == (0, 1)


def test_replies_of_a_real_server_are_regular(llm: LlamaServer, connections: ConnectionPool) -> None:
    client = HTTPClient(llm.base_url, connections=connections, timeout=60)
    for _ in range(20):
        client.post(CHAT, {**ASK, "max_tokens": 4})
        with client.stream(CHAT, {**ASK, "max_tokens": 4, "stream": True}) as stream:
            assert len(list(stream.events())) > 1
    client.get("/models")
    assert stats(connections)["odd"] == 0
    assert stats(connections)["created"] <= 21  # it ends the connection of a stream


def test_irregular_replies_are_counted(peer: StartPeer, connections: ConnectionPool) -> None:
    odd = b"HTTP/1.1 200 OK\r\nX: a\r\n  b\r\nContent-Length: 0\r\n\r\n"
    client = HTTPClient(peer(answering(odd, reply(b"x"))).url, connections=connections)
    assert [client.get("/").headers.get("x") for _ in range(3)] == ["a b", None, None]
    assert stats(connections)["odd"] == 1


def test_slots_and_descriptors_are_all_there_after_failures(client: HTTPClient, fault: FaultServer) -> None:
    client.post(CHAT, ASK)
    before, threads = descriptors(), threading.active_count()
    failures = [faults.reset(), faults.close(), faults.truncated(), faults.garbage(), faults.cut(after_bytes=3)]
    for failure in failures * 4:
        fault.behave(failure)
        with pytest.raises(TransportError):
            client.post(CHAT, ASK)
    fault.behave()
    client.post(CHAT, ASK)
    assert stats(client._connections)["in_use"] == 0  # type: ignore[arg-type]
    assert (descriptors(), threading.active_count()) == (before, threads)
