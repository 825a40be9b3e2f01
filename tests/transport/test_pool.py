from __future__ import annotations

import gc
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from _servers import polled
from transport.peers import Peer, answering, read_request, reply
from urllib3 import HTTPHeaderDict
from urllib3.connection import HTTPConnection

from perfkit import _process
from perfkit.clock import FakeClock
from perfkit.errors import ConfigError, NetworkError
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient
from perfkit.transport.connection import PooledConnection
from perfkit.transport.dial import SOCKET_OPTIONS
from perfkit.transport.pool import _check_rows
from perfkit.transport.presets import PRESETS

StartPeer = Callable[..., Peer]
CHAT = "/chat/completions"
ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "a b c"}]}


@pytest.fixture
def aging(clock: FakeClock) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(clock=clock, proxy="", keep_alive=300, max_lifetime=3600)
    yield pool
    pool.close()


def stats(connections: ConnectionPool) -> dict[str, float]:
    (only,) = connections.stats().values()
    return only


# --- nothing happens before the first use


def test_construction_opens_no_socket_and_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("too early")

    threads = threading.active_count()
    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr("ssl.create_default_context", forbidden)
    connections = ConnectionPool()
    HTTPClient("https://api.test/v1", connections=connections)
    assert threading.active_count() == threads
    assert connections.stats() == {}


# --- ages


def test_connection_idle_for_less_than_keep_alive_is_used_again(
    aging: ConnectionPool, clock: FakeClock, fault: FaultServer
) -> None:
    for _ in range(3):
        aging.request("POST", f"{fault.base_url}/echo", body={})
        clock.advance(299)
    assert fault.counters()["connections"] == 1


def test_connection_idle_for_longer_is_replaced(aging: ConnectionPool, clock: FakeClock, fault: FaultServer) -> None:
    for _ in range(3):
        aging.request("POST", f"{fault.base_url}/echo", body={})
        clock.advance(301)
    assert fault.counters()["connections"] == 3
    assert stats(aging)["reconnected"] == 2


@pytest.mark.parametrize(("seconds", "connections"), [(3.5, 1), (4.5, 3)])
def test_announced_keep_alive_is_honoured_with_a_margin(
    aging: ConnectionPool, clock: FakeClock, peer: StartPeer, seconds: float, connections: int
) -> None:
    server = peer(answering(reply(b"x", "Keep-Alive: timeout=5, max=100")))
    for _ in range(3):
        aging.request("GET", server.url)
        clock.advance(seconds)
    assert server.accepted == connections


def test_connection_has_a_longest_lifetime_with_jitter(
    aging: ConnectionPool, clock: FakeClock, fault: FaultServer
) -> None:
    counted = []
    for _ in range(60):
        aging.request("POST", f"{fault.base_url}/echo", body={})
        counted.append(fault.counters()["connections"])
        clock.advance(100)
    assert counted.count(1) in range(33, 38)  # 3600 s, less up to 10 %
    assert counted[-1] == 2


def test_sweep_closes_what_has_been_idle_too_long(aging: ConnectionPool, clock: FakeClock, fault: FaultServer) -> None:
    aging.warm_up(fault.base_url, 3)
    clock.advance(200)
    aging.request("POST", f"{fault.base_url}/echo", body={})
    clock.advance(150)
    aging._sweep()
    assert stats(aging) | {"idle": 1, "closed_idle": 2} == stats(aging)
    fault.wait_until(lambda counters: counters["open_connections"] <= 1)


def test_sweep_runs_on_the_background_thread(connections: ConnectionPool, fault: FaultServer) -> None:
    connections.request("POST", f"{fault.base_url}/echo", body={})
    assert any(work() == connections._sweep for work in _process.background._jobs)


def test_sweep_closes_what_the_server_has_closed(connections: ConnectionPool, peer: StartPeer) -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(reply())

    connections.request("GET", peer(script).url)

    def swept() -> bool:
        connections._sweep()
        return stats(connections)["idle"] == 0

    polled(swept)


# --- servers that close


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_connections_closed_by_the_server_are_replaced_unnoticed(
    any_client: HTTPClient, any_fault: FaultServer, how: str
) -> None:
    for _ in range(3):
        any_client.post("/echo", {})
        any_fault.disconnect(how=how)
    assert any_fault.counters()["connections"] == 3
    assert any_fault.counters()["requests"] == 3


def test_server_that_breaks_its_announcement_is_survived(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.close_idle(announce=60))
    assert [client.post(CHAT, {"model": "m", "messages": []}).status for _ in range(4)] == [200] * 4


def test_restarted_server_gets_new_connections() -> None:
    with FaultServer() as server:
        connections = ConnectionPool(proxy="")
        client = HTTPClient(server.base_url, retries=0, connections=connections)
        connections.warm_up(server.base_url, 3)
        client.post("/echo", {})
        server.kill()
        server.start()
        assert client.post("/echo", {}).status == 200
        assert server.counters()["requests"] == 1
        connections.close()


# --- warm-up


def test_warm_up_opens_connections_that_the_calls_then_use(
    any_connections: ConnectionPool, any_fault: FaultServer, any_client: HTTPClient
) -> None:
    assert any_connections.warm_up(any_fault.base_url, 4) == 4
    assert stats(any_connections)["idle"] == 4
    any_fault.behave(faults.hang())
    threads = [threading.Thread(target=any_client.post, args=(CHAT, {"messages": []})) for _ in range(4)]
    for thread in threads:
        thread.start()
    any_fault.wait_until(lambda counters: counters["held"] == 4)
    any_fault.release()
    for thread in threads:
        thread.join(10)
    assert any_fault.counters()["connections"] == 4  # over TLS 1.3 the session tickets came while they were idle


def test_warm_up_again_opens_nothing_and_knows_its_limit(connections: ConnectionPool, fault: FaultServer) -> None:
    connections.configure(maxsize=3)
    assert [connections.warm_up(fault.base_url, n) for n in (2, 2, 50)] == [2, 2, 3]
    fault.wait_until(lambda counters: counters["connections"] == 3)
    assert stats(connections)["in_use"] == 0


def test_warm_up_of_a_dead_host_is_logged_not_raised(
    connections: ConnectionPool, fault: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    fault.refuse()
    assert connections.warm_up(fault.base_url, 2) == 0
    fault.accept()
    assert "warm-up of 127.0.0.1" in caplog.text
    assert stats(connections)["in_use"] == 0


# --- settings


def test_settings_of_one_host_are_its_own(connections: ConnectionPool, fault: FaultServer) -> None:
    connections.configure(f"127.0.0.1:{fault.port}", maxsize=3)
    connections.configure("127.0.0.1", keep_alive=7)
    connections.configure(keep_alive=8, maxsize=4)
    mine = connections.host(("http", "127.0.0.1", fault.port)).settings
    other = connections.host(("http", "other.test", 80)).settings
    assert (mine.maxsize, mine.keep_alive) == (3, 7)
    assert (other.maxsize, other.keep_alive) == (4, 8)


@pytest.mark.parametrize("settings", [{"maxsze": 3}, {"maxsize": 0}, {"hosts": {"a": {"hosts": {}}}}])
def test_wrong_setting_changes_nothing(connections: ConnectionPool, settings: dict[str, Any]) -> None:
    before = connections.settings
    with pytest.raises(ConfigError):
        connections.configure("api.test", **settings)
    with pytest.raises(ConfigError):
        connections.configure(**settings)
    assert connections.settings == before
    with pytest.raises(ConfigError):
        ConnectionPool(hosts={"api.test": {"maxsze": 3}})


def test_changed_settings_let_calls_finish_on_old_connections(fault: FaultServer, connections: ConnectionPool) -> None:
    client = HTTPClient(fault.base_url, connections=connections)
    stream = client.stream(CHAT, ASK)
    connections.configure(maxsize=5)
    assert client.post("/echo", {}).status == 200
    assert len(list(stream.events())) > 3
    assert stats(connections) | {"idle": 1, "in_use": 0} == stats(connections)
    fault.wait_until(lambda counters: counters["open_connections"] <= 1)


def test_closed_pool_can_be_used_again(fault: FaultServer, connections: ConnectionPool) -> None:
    client = HTTPClient(fault.base_url, connections=connections)
    for end in (connections.close, connections.reset):
        client.post("/echo", {})
        end()
        assert connections.stats() == {}
    assert client.post("/echo", {}).status == 200
    assert fault.counters()["connections"] == 3


def test_shared_pool_is_one_and_keeps_its_identity() -> None:
    import perfkit

    assert perfkit.connections is ConnectionPool.instance()
    perfkit.configure(connections={"maxsize": 7, "hosts": {"api.test": {"maxsize": 3}}})
    assert perfkit.connections.settings.maxsize == 7
    assert perfkit.connections.host(("https", "api.test", 443)).settings.maxsize == 3


def test_pool_and_client_leave_no_garbage_behind(fault: FaultServer) -> None:
    import weakref

    connections = ConnectionPool(proxy="")
    HTTPClient(fault.base_url, connections=connections).post("/echo", {})
    gone = weakref.ref(connections)
    del connections
    gc.collect()
    assert gone() is None


def test_names_and_text_of_host_rows_are_read_as_elsewhere() -> None:
    connections = ConnectionPool(hosts={"API.test": {"maxsize": "3"}})
    assert connections.host(("http", "api.test", 80)).settings.maxsize == 3


# --- the urllib3 handle


def test_handle_is_urllib3s_pool_with_our_connections(connections: ConnectionPool, fault: FaultServer) -> None:
    import urllib3

    with connections.get_connection("openai", fault.base_url) as http:
        assert isinstance(http, urllib3.HTTPConnectionPool)
        for number in range(3):
            assert http.request("POST", "/v1/echo", body=b"%d" % number).data == b"%d" % number
        reply = http.request("POST", "/v1/echo", json={"a": 1}, preload_content=False)
        assert reply.json() == {"a": 1}
        reply.release_conn()
    connections.request("POST", f"{fault.base_url}/echo", body="x")
    assert fault.counters()["connections"] == 1
    assert fault.stats()["recent"][0]["headers"]["user-agent"].startswith("perfkit/")
    assert "openai" in repr(http)


def test_handle_works_over_tls(any_connections: ConnectionPool, any_fault: FaultServer) -> None:
    with any_connections.get_connection("openai", any_fault.base_url) as http:
        assert [http.request("POST", "/v1/echo", body=b"x").data for _ in range(2)] == [b"x"] * 2
    assert any_fault.counters()["connections"] == 1


def test_handle_waits_in_the_same_queue(fault: FaultServer) -> None:
    import urllib3

    connections = ConnectionPool(proxy="", maxsize=1, timeout=0.05)
    stream = HTTPClient(fault.base_url, connections=connections).stream(CHAT, ASK)
    with (
        connections.get_connection("openai", fault.base_url) as http,
        pytest.raises(urllib3.exceptions.EmptyPoolError, match=r"1 of 1 in use"),
    ):
        http.request("GET", "/v1/models")
    stream.close()
    connections.close()


def test_reply_of_a_handle_that_is_forgotten_gives_its_slot_back(fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="", maxsize=1, timeout=1)
    fault.behave(faults.stall(after_events=1))
    with connections.get_connection("openai", fault.base_url) as http:
        assert http.request("POST", "/v1/chat/completions", json=ASK, preload_content=False).status == 200
        gc.collect()
        fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)
        fault.behave()
        assert http.request("POST", "/v1/echo", body=b"x").data == b"x"
    assert stats(connections)["in_use"] == 0
    connections.close()


def test_reply_of_a_handle_that_was_read_lets_go_of_the_connection_for_good(fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="", maxsize=1, timeout=1)
    with connections.get_connection("openai", fault.base_url) as http:
        old = http.request("POST", "/v1/echo", body=b"x", preload_content=False)
        assert old.read() == b"x"
        stream = HTTPClient(fault.base_url, connections=connections).stream(CHAT, ASK)
        del old
        gc.collect()
        assert len(list(stream.events())) > 3
    assert fault.counters()["connections"] == 1
    connections.close()


def test_timeout_of_a_handle_is_a_deadline_too(connections: ConnectionPool, fault: FaultServer) -> None:
    import urllib3

    fault.behave(faults.drip(faults.ok("x" * 5000), size=1, interval=0.02, part="body"))
    with (
        connections.get_connection("openai", fault.base_url) as http,
        pytest.raises(urllib3.exceptions.ReadTimeoutError),
    ):
        http.request("POST", "/v1/chat/completions", json=ASK, timeout=urllib3.Timeout(total=0.4), retries=False)
    fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)


# --- request()


def test_request_goes_to_any_url(connections: ConnectionPool, fault: FaultServer) -> None:
    response = connections.request("POST", f"{fault.base_url}/echo?x=1", body={"a": 1}, headers={"X-Y": "z"}, timeout=5)
    assert response.json() == {"a": 1}
    (seen,) = fault.stats()["recent"]
    assert (seen["query"], seen["headers"]["x-y"]) == ("x=1", "z")
    with pytest.raises(ConfigError):
        connections.request("GET", "ftp://host/")
    fault.refuse()
    connections.close()
    with pytest.raises(NetworkError):
        connections.request("GET", fault.base_url)
    fault.accept()


def test_live_repr_tells_hosts_and_no_secrets(connections: ConnectionPool, fault: FaultServer) -> None:
    connections.request("POST", f"{fault.base_url}/echo?key=s3cret", body={}, headers={"authorization": "s3cret"})
    assert f"127.0.0.1:{fault.port}: 0 in use, 1 idle, 0 waiting" in repr(connections)
    assert "s3cret" not in repr(connections)


def test_sockets_notice_dead_peers(connections: ConnectionPool, fault: FaultServer) -> None:
    connections.request("POST", f"{fault.base_url}/echo", body={})
    pool = connections.host(("http", "127.0.0.1", fault.port))
    connection = pool.take(1)
    for level, name, value in SOCKET_OPTIONS:
        assert connection.sock is not None
        assert connection.sock.getsockopt(level, name) == value
    pool.give(connection)
    if sys.platform == "linux":
        assert (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000) in SOCKET_OPTIONS


# --- presets


def test_presets_hold_where_the_table_says_nothing() -> None:
    origin = ("https", "api.openai.com", 443)
    assert ConnectionPool(proxy="").host(origin).settings.maxsize == 100
    assert ConnectionPool(proxy="").host(origin).settings.max_idle == 20
    assert ConnectionPool(proxy="", maxsize=7).host(origin).settings.maxsize == 7
    hosts = {"api.openai.com": {"maxsize": 30}}
    assert ConnectionPool(proxy="", maxsize=7, hosts=hosts).host(origin).settings.maxsize == 30
    assert ConnectionPool(proxy="").host(("https", "api.anthropic.com", 443)).settings.maxsize == 50
    assert ConnectionPool(proxy="").host(("https", "api.test", 443)).settings.maxsize == 20


@pytest.mark.parametrize("host", PRESETS)
def test_presets_are_settings(host: str) -> None:
    _check_rows({host: PRESETS[host]})


def test_sweep_keeps_the_latest_connections_when_traffic_ebbs(aging: ConnectionPool, fault: FaultServer) -> None:
    aging.configure(max_idle=2)
    assert aging.warm_up(fault.root_url, 5) == 5
    (pool,) = aging._hosts.values()
    taken = [pool.take(1.0) for _ in range(5)]
    for connection in taken:
        pool.give(connection)
    assert pool.sweep() == 3
    assert [connection.sock is not None for connection in taken] == [False, False, False, True, True]
    assert stats(aging) | {"idle": 2, "closed_idle": 3} == stats(aging)
    assert pool.sweep() == 0


# --- requests of a handle


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
@pytest.mark.parametrize("body", [None, b"", b"bytes", "text", [b"in ", b"pieces"], bytes(100_000)])
@pytest.mark.parametrize(
    "headers",
    [
        None,
        {"X-A": "1", "Accept-Encoding": "gzip"},
        {"User-Agent": "mine"},
        {"x-b": b"2"},
        HTTPHeaderDict([("a", "1"), ("a", "2")]),
    ],
)
def test_requests_of_a_handle_are_those_urllib3_would_send(
    peer: StartPeer, connections: ConnectionPool, method: str, body: Any, headers: Any
) -> None:
    seen = list[bytes]()

    def script(sock: socket.socket) -> None:
        got = b""
        while not got.endswith(b"the end"):
            got += sock.recv(65536)
        seen.append(got)

    server = peer(script)

    def sent(connection: HTTPConnection) -> Any:
        connection.request(method, "/a?b=c", body, headers)
        assert connection.sock is not None
        connection.sock.sendall(b"the end")
        polled(lambda: seen)
        head, _, rest = seen.pop().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        agents = () if headers == {"User-Agent": "mine"} else ("user-agent:",)
        connection.close()
        return first, sorted(line.lower() for line in lines if not line.lower().startswith(agents)), rest

    ours = connections.host(("http", "127.0.0.1", server.port)).take(1.0)
    assert sent(ours) == sent(HTTPConnection("127.0.0.1", server.port))


def test_plain_request_of_a_handle_is_one_send(
    peer: StartPeer, connections: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = list[int]()
    server = peer(answering(reply()))
    with connections.get_connection("openai", server.url) as handle:
        handle.request("POST", "/", body=b"{}", headers={"a": "b"})
        monkeypatch.setattr(PooledConnection, "putrequest", lambda *_, **__: sends.append(1))
        assert handle.request("POST", "/", body=b"{}", headers={"a": "b"}).data == b"fine"
    assert sends == []


# --- names that move


def test_new_address_of_a_name_is_followed_within_the_longest_lifetime(
    peer: StartPeer, aging: ConnectionPool, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = peer(answering(reply(b"old"))), peer(answering(reply(b"new")))
    now = [old]
    entry = socket.AF_INET, socket.SOCK_STREAM, 6, ""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(*entry, ("127.0.0.1", now[0].port))])
    answers = [aging.request("GET", "http://moving.test:1/").body]
    now[0] = new
    for _ in range(20):
        clock.advance(200)  # never idle for long enough to be closed for that
        answers.append(aging.request("GET", "http://moving.test:1/").body)
    moved = answers.index(b"new")
    assert answers == [b"old"] * moved + [b"new"] * (21 - moved)
    assert 0.9 * 3600 <= moved * 200 <= 3600 + 200
