"""Forked children and their parent: everybody gets their own replies, over plain sockets and over TLS."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
from _forks import await_child, fork_unnoticed, in_child, places_are_free, start_child
from transport.peers import Peer, tunnel

import perfkit.integrations.requests
from perfkit._process import forks
from perfkit.errors import NetworkError, PoolTimeout
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient, kernel, limits, tls

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
CHAT = "/chat/completions"
ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "a b c d e"}]}


def wrong_replies(client: HTTPClient, who: str, calls: int = 20) -> list[Any]:
    wrong = []
    for number in range(calls):
        sent = {"who": who, "number": number}
        got = client.post("/echo", sent).json()
        if got != sent:
            wrong.append((sent, got))
    return wrong


def test_children_and_parent_get_their_own_replies(any_client: HTTPClient, any_fault: FaultServer) -> None:
    any_client.post("/echo", {})
    children = [start_child(lambda n=n: wrong_replies(any_client, f"child {n}")) for n in range(4)]  # type: ignore[misc]
    assert wrong_replies(any_client, "parent") == []
    assert [await_child(*child) for child in children] == [[]] * 4
    counters = any_fault.counters()
    assert counters["requests"] == 101
    assert counters["connections"] == 5  # one for each process; the parent still has its first


def test_fork_that_python_is_not_told_of_is_noticed(any_client: HTTPClient, any_fault: FaultServer) -> None:
    any_client.post("/echo", {})
    children = [
        start_child(lambda n=n: wrong_replies(any_client, f"child {n}"), fork=fork_unnoticed)  # type: ignore[misc]
        for n in range(2)
    ]
    assert wrong_replies(any_client, "parent") == []
    assert [await_child(*child) for child in children] == [[]] * 2
    assert any_fault.counters()["connections"] == 3


def test_child_of_a_child_works_too(any_client: HTTPClient, any_fault: FaultServer) -> None:
    any_client.post("/echo", {})
    assert in_child(lambda: (wrong_replies(any_client, "c"), in_child(lambda: wrong_replies(any_client, "g")))) == (
        [],
        [],
    )
    assert wrong_replies(any_client, "parent") == []
    assert any_fault.counters()["connections"] == 3


def test_child_has_all_slots_though_the_parent_used_them(
    any_fault: FaultServer, any_connections: ConnectionPool
) -> None:
    any_connections.configure(maxsize=2, timeout=0.5)
    client = HTTPClient(any_fault.base_url, retries=0, connections=any_connections)
    streams = [client.stream(CHAT, ASK) for _ in range(2)]
    assert in_child(lambda: wrong_replies(client, "child")) == []
    assert [len(list(stream.events())) for stream in streams] == [len(list(client.stream(CHAT, ASK).events()))] * 2


@pytest.mark.parametrize("fork", [os.fork, fork_unnoticed])
def test_stream_of_the_parent_survives_a_child_that_drops_it(
    any_client: HTTPClient, any_fault: FaultServer, fork: Callable[[], int]
) -> None:
    any_fault.behave(faults.stall(after_events=2))
    stream = any_client.stream(CHAT, ASK)
    events = stream.events()
    first = next(events)

    def drop() -> str:
        nonlocal stream, events
        stream.close()
        del stream, events
        return "dropped"

    assert in_child(drop, fork=fork) == "dropped"
    any_fault.release()
    rest = list(events)
    assert first.data.startswith("{")
    assert rest[-1].data == "[DONE]"
    assert any_fault.counters() | {"completed": 1, "aborted_by_client": 0} == any_fault.counters()


def test_child_that_reads_a_stream_of_its_parent_gets_an_error_not_its_bytes(
    any_client: HTTPClient, any_fault: FaultServer
) -> None:
    any_fault.behave(faults.stall(after_events=2))
    stream = any_client.stream(CHAT, ASK)
    events = stream.events()
    next(events)

    def read() -> str:
        try:
            return str([event.data for event in events])
        except ConnectionError as error:
            return type(error).__name__

    assert in_child(read) == "NetworkError"
    any_fault.release()
    assert list(events)[-1].data == "[DONE]"


def test_dropped_stream_of_the_parent_adds_no_slot_in_the_child(fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="", maxsize=1, timeout=0.1)
    client = HTTPClient(fault.base_url, retries=0, connections=connections)
    inherited = client.stream(CHAT, ASK)

    def work() -> str:
        own = client.stream(CHAT, ASK)
        inherited.close()
        try:
            client.post("/echo", {})
        except PoolTimeout:
            own.close()
            return "full"
        return "one too many"

    assert in_child(work) == "full"
    inherited.close()
    connections.close()


def test_parent_that_leaves_early_ends_the_stream_though_a_child_lives(
    any_client: HTTPClient, any_fault: FaultServer
) -> None:
    any_fault.behave(faults.stall(after_events=1))
    stream = any_client.stream(CHAT, ASK)
    next(stream.events())
    waiting, go = os.pipe()

    def live() -> bytes:
        os.close(go)
        return os.read(waiting, 1)

    child = start_child(live)
    stream.close()
    any_fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)
    os.close(go)  # the child lives until here
    os.close(waiting)
    await_child(*child)


def test_locks_held_at_the_fork_do_not_stop_the_child(client: HTTPClient, connections: ConnectionPool) -> None:
    client.post("/echo", {})
    (pool,) = connections._hosts.values()
    with connections._lock, pool.pool._lock, pool._tally._lock:
        assert in_child(lambda: wrong_replies(client, "child", 3)) == []


def test_counts_begin_anew_in_the_child(client: HTTPClient, connections: ConnectionPool) -> None:
    client.post("/echo", {})

    def count() -> tuple[float, float]:
        client.post("/echo", {})
        (stats,) = connections.stats().values()
        return stats["created"], stats["reused"]

    assert in_child(count) == (1, 0)


def test_threads_of_the_parent_keep_working_while_it_forks(any_client: HTTPClient, any_fault: FaultServer) -> None:
    wrong, stop = list[Any](), threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            wrong.extend(wrong_replies(any_client, f"thread {number}", 5))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    children = [in_child(lambda n=n: wrong_replies(any_client, f"child {n}", 10)) for n in range(5)]  # type: ignore[misc]
    stop.set()
    for thread in threads:
        thread.join(20)
    assert (children, wrong) == ([[]] * 5, [])


def by_handle(client: HTTPClient, connections: ConnectionPool) -> None:
    with connections.get_connection("tests", client.base_url) as host:
        host.request("GET", "/health", retries=False)


def by_call(client: HTTPClient, _: ConnectionPool) -> None:
    client.post("/echo", {})


def by_stream(client: HTTPClient, _: ConnectionPool) -> None:
    with client.stream(CHAT, ASK) as stream:
        assert list(stream.events())


@pytest.mark.parametrize("ask", [by_call, by_stream, by_handle])
def test_no_fork_divides_a_handshake_nor_what_follows_it(
    tls_fault: FaultServer, monkeypatch: pytest.MonkeyPatch, ask: Callable[[HTTPClient, ConnectionPool], None]
) -> None:
    """OpenSSL's locks would stay locked in the child, whose own first handshake would never end."""
    steps = list[str]()
    connections = ConnectionPool(proxy="", ca_file=tls_fault.ca_file)
    client = HTTPClient(tls_fault.base_url, connections=connections, retries=0)

    def counted() -> AbstractContextManager[None]:
        steps.append(threading.current_thread().name)
        return forks.undivided()

    for module in (kernel, limits, tls):
        monkeypatch.setattr(module, "undivided", counted)
    ask(client, connections)
    assert len(steps) >= 2  # the handshake, which may need more than one, and the first bytes of the reply
    steps.clear()
    ask(client, connections)
    assert steps == []
    connections.close()


def is_held() -> bool:
    """Return whether a fork in another thread would have to wait."""
    with ThreadPoolExecutor(1) as other:
        return not other.submit(places_are_free, 0).result(20)


def test_whatever_openssl_locks_for_holds_off_forks(
    tls_fault: FaultServer, peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = dict[tuple[str, int], bool]()  # how it was the first time, with tickets among what is read

    def watch(owner: type, name: str) -> None:
        work = getattr(owner, name)

        def watched(self: Any, *given: Any, **more: Any) -> Any:
            if getattr(self, "protocol", None) is not ssl.PROTOCOL_TLS_SERVER:  # the proxy's, which is here too
                seen.setdefault((name, id(self)), is_held())
            return work(self, *given, **more)

        monkeypatch.setattr(owner, name, watched)

    for name in ("load_verify_locations", "load_cert_chain", "_wrap_socket", "_wrap_bio"):
        watch(ssl.SSLContext, name)
    for name in ("do_handshake", "read"):
        watch(ssl.SSLObject, name)
    watch(tls.Socket, "read")
    assert tls_fault._authority is not None
    pair = tls_fault._authority.server_file
    connections = ConnectionPool(proxy="")
    with perfkit.integrations.requests.session(connections=connections) as session:
        assert session.get(f"{tls_fault.base_url}/models", verify=tls_fault.ca_file, cert=pair).ok
    through = ConnectionPool(proxy=peer(tunnel, tls=pair).url, ca_file=tls_fault.ca_file)
    assert HTTPClient(tls_fault.base_url, connections=through).post("/echo", {}).json() == {}
    direct = ConnectionPool(proxy="", ca_file=tls_fault.ca_file)
    by_handle(HTTPClient(tls_fault.base_url), direct)
    for pool in (connections, through, direct):
        pool.close()
    assert {name for name, _ in seen} >= {"load_cert_chain", "_wrap_socket", "_wrap_bio", "do_handshake", "read"}
    assert [name for (name, _), held in seen.items() if not held] == []


def test_fork_does_not_wait_for_a_handshake_that_waits(peer: Callable[..., Peer]) -> None:
    greeted, done = threading.Event(), threading.Event()

    def silent(sock: socket.socket) -> None:
        if sock.recv(5):
            greeted.set()
        done.wait(20)

    connections = ConnectionPool(proxy="")
    client = HTTPClient(peer(silent).url.replace("http", "https"), retries=0, connections=connections)
    failed = list[BaseException]()

    def call() -> None:
        try:
            client.get("/", timeout=20)
        except NetworkError as error:
            failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert greeted.wait(20)
    assert places_are_free()  # not for as long as it waits
    done.set()
    thread.join(20)
    assert len(failed) == 1
    connections.close()
