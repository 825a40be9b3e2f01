"""The handle: scripts, counters, connections, and life and death of the process."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from _servers import polled
from testing.clients import CHAT, ask, connect, emptied, statuses

from perfkit.testing import faults
from perfkit.testing.faults import FaultServer


@pytest.fixture
def server(fault: FaultServer) -> FaultServer:
    return emptied(fault)


def is_running(pid: int) -> bool:
    """Tell whether the process lives; one nobody has waited for (Z) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return True
    return False


# --- scripts ---


def test_a_script_is_followed_in_order_and_its_last_behaviour_repeats(server: FaultServer) -> None:
    server.behave(faults.status(500), faults.status(429), faults.ok())
    with closing(connect(server)) as client:
        assert statuses(client, *[CHAT] * 5) == [500, 429, 200, 200, 200]


def test_a_script_can_end_in_ok(server: FaultServer) -> None:
    server.behave(faults.status(500), faults.status(503), then="ok")
    with closing(connect(server)) as client:
        assert statuses(client, *[CHAT] * 3) == [500, 503, 200]


def test_a_script_can_be_for_one_path(server: FaultServer) -> None:
    server.behave(faults.status(500), path="*/messages")
    server.behave(faults.status(429), path="/v1/responses")
    server.behave(faults.status(503))
    with closing(connect(server)) as client:
        assert statuses(client, "/v1/messages", "/v1/responses", CHAT, "/a/messages?b=1") == [500, 429, 503, 500]
        server.behave()
        server.behave(path="*/messages")
        assert statuses(client, "/v1/messages", "/v1/responses", CHAT) == [200, 429, 200]


def test_a_script_ends_as_told_or_is_an_error(server: FaultServer) -> None:
    with pytest.raises(ValueError, match="then='stop'"):
        server.behave(faults.ok(), then="stop")


# --- counters ---


def test_requests_are_counted_and_kept(server: FaultServer) -> None:
    with closing(connect(server)) as client:
        client.request("POST", "/v1/echo?a=1", b"body", {"X-Key": "v", "Content-Type": "text/plain"})
        reply = client.getresponse()
        assert (reply.read(), reply.headers["content-type"]) == (b"body", "text/plain")
        ask(client).read()
    seen = server.stats()
    assert seen["requests"] == seen["completed"] == 2
    assert seen["paths"] == {"/v1/echo": 1, CHAT: 1}
    first = seen["recent"][0]
    assert (first["method"], first["path"], first["query"], first["body"]) == ("POST", "/v1/echo", "a=1", "body")
    assert first["headers"]["x-key"] == "v"
    assert first["outcome"] == "completed"


def test_only_the_last_requests_are_kept(server: FaultServer) -> None:
    with closing(connect(server)) as client:
        for number in range(205):
            client.request("GET", f"/{number}")
            client.getresponse().read()
    seen = server.stats()
    assert seen["requests"] == 205
    assert [request["path"] for request in seen["recent"]] == [f"/{number}" for number in range(5, 205)]


def test_connections_are_told_apart(server: FaultServer) -> None:
    with closing(connect(server)) as one, closing(connect(server)) as other:
        for client in (one, other, one):
            ask(client).read()
        seen = server.stats()
    assert (seen["connections"], seen["open_connections"], seen["peak_connections"]) == (2, 2, 2)
    first, second, third = (request["connection"] for request in seen["recent"])
    assert (second, third) == (first + 1, first)
    server.wait_until(lambda seen: seen["open_connections"] == 0)


def test_asking_the_server_is_not_counted(server: FaultServer) -> None:
    for _ in range(3):
        server.stats()
    assert server.counters()["connections"] == 0


def test_held_requests_show_how_many_run_at_once(server: FaultServer) -> None:
    server.behave(faults.hang(faults.ok()))

    def call(number: int) -> str:
        with closing(connect(server)) as client:
            reply = json.load(ask(client, messages=[{"role": "user", "content": str(number)}]))
        return str(reply["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(3) as pool:
        replies = pool.map(call, range(3))
        server.wait_until(lambda seen: seen["held"] == 3)
        assert server.release() == 3
        assert list(replies) == ["echo: 0", "echo: 1", "echo: 2"]
    seen = server.counters()
    assert (seen["peak_in_flight"], seen["in_flight"], seen["held"], seen["completed"]) == (3, 0, 0, 3)


def test_reset_makes_a_fresh_server(server: FaultServer) -> None:
    server.behave(faults.hang())
    server.refuse()
    server.accept()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        server.wait_until(lambda seen: seen["held"] == 1)
        server.refuse()
        server.reset()
        assert sock.recv(1) == b""
    server.wait_until(lambda seen: seen["open_connections"] == 0)
    seen = server.counters()
    assert (seen["requests"], seen["cut_by_server"], seen["in_flight"], seen["paths"]) == (0, 0, 0, {})
    with closing(connect(server)) as client:
        assert statuses(client, CHAT) == [200]


def test_wait_until_tells_what_it_saw(server: FaultServer) -> None:
    with pytest.raises(TimeoutError, match="'requests': 0"):
        server.wait_until(lambda seen: seen["requests"] > 0, timeout=0.01)


def test_bodies_may_come_in_chunks_and_be_large(server: FaultServer) -> None:
    body = os.urandom(3_000_000)
    with closing(connect(server)) as client:
        client.request("POST", "/echo", iter([body[:10], body[10:]]), encode_chunked=True)
        assert client.getresponse().read() == body
    assert server.stats()["recent"][0]["headers"]["transfer-encoding"] == "chunked"


def test_models_and_health_answer(server: FaultServer) -> None:
    with closing(connect(server)) as client:
        for path, key in (("/v1/models", "data"), ("/health", "status"), ("/v1/nowhere", "error")):
            client.request("GET", path)
            assert key in json.load(client.getresponse())


def test_what_is_not_http_is_let_go(server: FaultServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"hello\r\n\r\n")
        assert sock.recv(1) == b""
    assert server.counters()["requests"] == 0


def test_an_order_that_fails_is_an_error(server: FaultServer) -> None:
    with pytest.raises(RuntimeError, match="'dance'"):
        server._order("dance")
    assert server.counters()["requests"] == 0


# --- connections ---


def test_refusing_keeps_the_port(server: FaultServer) -> None:
    server.refuse()
    with socket.socket() as thief, pytest.raises(OSError, match="in use"):
        thief.bind(("127.0.0.1", server.port))


def test_refusing_keeps_open_connections(server: FaultServer) -> None:
    with closing(connect(server)) as client:
        assert statuses(client, CHAT) == [200]
        server.refuse()
        assert is_refused(server.port)
        assert statuses(client, CHAT) == [200]
        server.accept()
        assert not is_refused(server.port)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_disconnect_ends_idle_and_busy_connections(server: FaultServer, how: str) -> None:
    server.behave(faults.ok(), faults.hang())
    with closing(connect(server)) as idle, closing(connect(server)) as busy:
        ask(idle).read()
        busy.request("GET", "/health")
        server.wait_until(lambda seen: seen["held"] == 1)
        assert server.disconnect(how=how) == 2
        for client in (idle, busy):
            if how == "fin":
                assert client.sock.recv(1) == b""
            else:
                with pytest.raises(ConnectionResetError):
                    client.sock.recv(1)
    seen = server.wait_until(lambda seen: seen["open_connections"] == 0)
    assert (seen["completed"], seen["cut_by_server"], seen["aborted_by_client"]) == (1, 1, 0)


def test_latency_comes_before_every_reply() -> None:
    with FaultServer(latency=3600) as server, closing(connect(server)) as client:
        client.request("GET", "/health")
        assert server.wait_until(lambda seen: seen["in_flight"] == 1)["held"] == 0


def test_connect_latency_comes_before_the_handshake() -> None:
    with FaultServer(connect_latency=3600, tls=True) as server:
        context = ssl.create_default_context(cafile=server.ca_file)
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as plain,
            context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False) as sock,
        ):
            with pytest.raises(TimeoutError):
                sock.do_handshake()
            assert server.counters()["open_connections"] == 1
            assert server.disconnect() == 1
            seen = server.wait_until(lambda seen: seen["open_connections"] == 0)
        assert seen["tls_failed"] == 0


# --- life ---


def test_a_killed_server_refuses_and_comes_back_on_its_port() -> None:
    with FaultServer() as server:
        port, pid = server.port, server.pid
        assert pid is not None
        server.kill()
        assert is_refused(port)
        assert not is_running(pid)
        assert "stopped" in repr(server)
        server.start()
        assert server.port == port
        with closing(connect(server)) as client:
            assert statuses(client, CHAT) == [200]
    assert is_refused(port)


def test_starting_twice_is_starting_once(server: FaultServer) -> None:
    pid = server.pid
    assert server.start().pid == pid


def test_a_port_in_use_is_an_error(server: FaultServer, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match=f"port {server.port} did not start"):
        FaultServer(port=server.port).start()
    assert "already in use" in capfd.readouterr().err


PARENT = """
import os, sys, time
from perfkit.testing.faults import FaultServer
server = FaultServer().start()
child = os.fork() if "fork" in sys.argv else 0
if "fork" not in sys.argv or child:
    print(server.pid, child, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("fork", [[], ["fork"]], ids=["plain", "forked"])
def test_the_server_dies_with_its_parent(fork: list[str]) -> None:
    command, env = [sys.executable, "-c", PARENT, *fork], os.environ | {"PYTHONPATH": str(faults.PACKAGE_ROOT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server, child = map(int, parent.stdout.readline().split())
        assert is_running(server)
        parent.kill()
        try:
            polled(lambda: not is_running(server))
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
