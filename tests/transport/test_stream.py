from __future__ import annotations

import gc
import socket
import threading
import zlib
from collections.abc import Callable

import pytest
from _forks import in_child
from _servers import polled
from transport.peers import Peer, answering, read_request, reply

from perfkit.clock import FakeClock
from perfkit.errors import DeadlineExceeded, NetworkError
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient, HTTPStream, ServerSentEvent, sse
from perfkit.transport.connection import PooledConnection
from perfkit.transport.hosts import HostPool

StartPeer = Callable[..., Peer]
CHAT = "/chat/completions"
ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "a b c"}]}


def state(client: HTTPClient) -> tuple[float, float]:
    """Return connections in use and idle."""
    assert client._connections is not None
    (stats,) = client._connections.stats().values()
    return stats["in_use"], stats["idle"]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.usefixtures("patient")
def test_stream_read_to_its_end_goes_back(any_client: HTTPClient, any_fault: FaultServer) -> None:
    for _ in range(5):
        with any_client.stream(CHAT, ASK) as stream:
            events = list(stream.events())
        assert events[-1].data == "[DONE]"
    assert state(any_client) == (0, 1)
    assert any_fault.counters()["connections"] == 1


@pytest.mark.usefixtures("patient")
def test_consumer_that_stops_at_the_end_mark_keeps_the_connection(
    any_client: HTTPClient, any_fault: FaultServer
) -> None:
    for _ in range(5):
        with any_client.stream(CHAT, ASK) as stream:
            for event in stream.events():
                if event.data == "[DONE]":
                    break
    assert state(any_client) == (0, 1)
    assert any_fault.counters() | {"connections": 1, "completed": 5} == any_fault.counters()


@pytest.mark.usefixtures("patient")
def test_consumer_that_stops_at_an_end_of_its_own_may_say_so(client: HTTPClient, fault: FaultServer) -> None:
    for _ in range(3):
        stream = client.stream("/messages", ASK)
        for event in stream.events():
            if event.event == "message_stop":
                break
        stream.finish()
    assert fault.counters()["connections"] == 1


NDJSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_lines_are_there_as_they_arrive(peer: StartPeer, connections: ConnectionPool) -> None:
    """The server ends only after the client has its first line."""
    seen = threading.Event()

    def script(sock: socket.socket) -> None:
        while read_request(sock):
            sock.sendall(NDJSON + chunk(b'{"response":"h\xc3') + chunk(b'\xa9"}\n{"resp'))
            assert seen.wait(10)
            sock.sendall(chunk(b'onse":"","done":true}\n') + chunk(b""))

    client = HTTPClient(peer(script).url, connections=connections)
    with client.stream("/api/generate", {}) as stream:
        values = stream.json_lines()
        assert next(values) == {"response": "h\u00e9"}
        seen.set()
        assert next(values) == {"response": "", "done": True}  # what Ollama says last; the rest need not be read
    with client.stream("/api/generate", {}) as stream:
        assert list(stream.lines()) == ['{"response":"h\u00e9"}', '{"response":"","done":true}']
    assert state(client) == (0, 1)


@pytest.mark.parametrize("rest", [b'{"response":"a"}\n{"resp\n', b'{"response":"a"}\n{"resp'])
def test_line_that_is_not_json_is_an_error(peer: StartPeer, connections: ConnectionPool, rest: bytes) -> None:
    client = HTTPClient(peer(answering(NDJSON + chunk(rest) + chunk(b""))).url, connections=connections)
    values = client.stream("/api/generate", {}).json_lines()
    assert next(values) == {"response": "a"}
    with pytest.raises(NetworkError, match="reading the reply"):
        next(values)


def left_at_the_mark(client: HTTPClient) -> None:
    with client.stream("/", b"{}") as stream:
        assert next(stream.events()).data == "[DONE]"


def ending(*rests: bytes, wait: threading.Event) -> Callable[[socket.socket], None]:
    """Answer each request up to its end mark, and go on with the next of `rests` once `wait` is set."""

    def script(sock: socket.socket) -> None:
        for rest in rests:
            if not read_request(sock):
                return
            sock.sendall(HEAD + chunk(b"data: [DONE]\n\n"))
            assert wait.wait(10)
            sock.sendall(rest)
        if read_request(sock):
            sock.sendall(reply(b"on the old connection"))

    return script


def test_end_of_a_stream_is_read_by_who_comes_next(peer: StartPeer, connections: ConnectionPool) -> None:
    wait = threading.Event()
    server = peer(ending(chunk(b""), chunk(b""), wait=wait))
    client = HTTPClient(server.url, connections=connections)
    left_at_the_mark(client)
    assert state(client) == (0, 1)  # though the server has not ended it
    wait.set()
    pool = connections.host(("http", "127.0.0.1", server.port))
    (connection,) = pool._alive
    polled(connection._has_come)
    left_at_the_mark(client)
    assert server.accepted == 1


def test_end_that_does_not_come_is_waited_for_one_round_trip_at_most(
    peer: StartPeer, connections: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()
    drain = PooledConnection.drain

    def noting(self: PooledConnection, seconds: float) -> bool:
        waits.append(seconds)
        return drain(self, seconds)

    monkeypatch.setattr(PooledConnection, "drain", noting)
    wait = threading.Event()
    server = peer(ending(b"", wait=wait), answering(reply(b"fine")))
    client = HTTPClient(server.url, connections=connections)
    left_at_the_mark(client)
    (connection,) = connections.host(("http", "127.0.0.1", server.port))._alive
    connection.round_trip = 10.0
    assert client.get("/").body == b"fine"
    assert waits == [0.0, 0.05]
    assert (server.accepted, state(client)) == (2, (0, 1))
    wait.set()


@pytest.mark.parametrize("rest", [chunk(b"data: more\n\n") * 100, b"zz\r\n", chunk(b"") + b"HTTP/1.1 200 OK\r\n"])
def test_connection_is_not_used_again_after_anything_but_the_end(
    peer: StartPeer, connections: ConnectionPool, rest: bytes
) -> None:
    wait = threading.Event()
    wait.set()
    server = peer(ending(rest, wait=wait), answering(reply(b"fine")))
    client = HTTPClient(server.url, connections=connections)
    left_at_the_mark(client)
    assert client.get("/").body == b"fine"
    assert server.accepted == 2


def test_sweep_reads_the_end_that_has_come_and_closes_what_stays_silent(peer: StartPeer) -> None:
    clock, wait = FakeClock(), threading.Event()
    connections = ConnectionPool(proxy="", clock=clock)
    server = peer(ending(chunk(b""), wait=wait), ending(b"", wait=wait))
    client, pool = HTTPClient(server.url, connections=connections), connections.host(("http", "127.0.0.1", server.port))
    left_at_the_mark(client)
    (first,) = pool._alive
    assert pool.sweep() == 0
    wait.set()
    polled(first._has_come)
    assert pool.sweep() == 0
    assert first.rest is None
    with client.stream("/", b"{}"):
        left_at_the_mark(client)  # on another connection, for the first has a reader
    clock.advance(2.0)
    assert pool.sweep() == 1
    connections.close()


def test_stream_left_at_its_mark_does_not_touch_the_parents_connection_in_a_child(
    peer: StartPeer, connections: ConnectionPool
) -> None:
    wait = threading.Event()
    server = peer(ending(chunk(b""), chunk(b""), wait=wait))
    client = HTTPClient(server.url, connections=connections)
    stream = client.stream("/", b"{}")
    assert next(stream.events()).data == "[DONE]"
    assert in_child(lambda: stream.finish() or state(client)) == (0, 0)  # type: ignore[func-returns-value]
    stream.finish()
    wait.set()
    (connection,) = connections.host(("http", "127.0.0.1", server.port))._alive
    polled(connection._has_come)
    left_at_the_mark(client)
    assert server.accepted == 1


def test_leaving_early_closes_the_connection_at_once(any_client: HTTPClient, any_fault: FaultServer) -> None:
    any_fault.behave(faults.stall(after_events=1))
    stream = any_client.stream(CHAT, ASK)
    next(stream.events())
    stream.close()
    any_fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)
    assert state(any_client) == (0, 0)
    stream.close()
    assert state(any_client) == (0, 0)


def test_closing_from_another_thread_ends_the_wait(any_client: HTTPClient, any_fault: FaultServer) -> None:
    any_fault.behave(faults.stall(after_events=1))
    stream = any_client.stream(CHAT, ASK)
    events = stream.events()
    next(events)
    caught, waiting = list[BaseException](), threading.Event()

    def wait() -> None:
        waiting.set()
        try:
            next(events)
        except NetworkError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait(10)
    stream.close()
    thread.join(10)
    assert len(caught) == 1
    assert state(any_client) == (0, 0)


def test_closed_stream_does_not_pass_for_a_finished_one(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.stall(after_events=1))
    stream = client.stream(CHAT, ASK)
    next(stream.events())
    stream.close()
    with pytest.raises(NetworkError, match="closed before its end"):
        stream.read()


def test_forgotten_streams_give_their_slots_back(fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="", maxsize=2, timeout=1)
    client = HTTPClient(fault.base_url, retries=0, connections=connections)
    fault.behave(faults.stall(after_events=1))
    streams = [client.stream(CHAT, ASK) for _ in range(2)]
    assert state(client) == (2, 0)
    streams.append(streams)  # type: ignore[arg-type]  # a cycle: only the collector finds it
    del streams
    gc.collect()
    fault.wait_until(lambda counters: counters["aborted_by_client"] == 2)
    polled(lambda: state(client) == (0, 0))
    fault.behave()
    assert client.post(CHAT, ASK).status == 200
    connections.close()


def test_forgotten_generator_gives_its_slot_back(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.stall(after_events=1))
    for _ in client.stream(CHAT, ASK).events():
        break
    gc.collect()
    polled(lambda: state(client) == (0, 0))


def test_forgotten_stream_is_closed_by_another_thread_than_the_collectors(
    client: HTTPClient, fault: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    closers: list[threading.Thread] = []
    give = HostPool.give

    def noted(host: HostPool, connection: PooledConnection, **options: bool) -> None:
        closers.append(threading.current_thread())
        give(host, connection, **options)

    monkeypatch.setattr(HostPool, "give", noted)
    fault.behave(faults.stall(after_events=1))
    client.stream(CHAT, ASK)
    polled(lambda: closers)
    assert closers != [threading.current_thread()]


def test_stream_is_cut_at_its_deadline(any_client: HTTPClient, any_fault: FaultServer) -> None:
    any_fault.behave(faults.ok("word " * 500, interval=0.02))
    got = list[ServerSentEvent]()
    stream = any_client.stream(CHAT, ASK, timeout=1.0)
    with pytest.raises(DeadlineExceeded, match="reading the reply"):
        got.extend(stream.events())
    assert 0 < len(got) < 500
    any_fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)
    assert state(any_client) == (0, 0)


def test_deadline_of_a_stream_can_be_moved_once_it_speaks(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.ok("word " * 30, interval=0.04))  # takes 1.2 s
    stream = client.stream(CHAT, ASK, timeout=1.0)
    events = stream.events()
    next(events)
    stream.extend(30)
    assert list(events)[-1].data == "[DONE]"
    assert state(client) == (0, 1)


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_stream_that_breaks_off_is_an_error(client: HTTPClient, fault: FaultServer, how: str) -> None:
    fault.behave(faults.cut(after_events=2, how=how))
    events = list[ServerSentEvent]()
    with pytest.raises(NetworkError) as caught, client.stream(CHAT, ASK) as stream:
        events.extend(stream.events())
    assert len(events) <= 2
    assert caught.value.sent is True
    assert state(client) == (0, 0)
    assert fault.counters()["requests"] == 1


def test_stream_shorter_than_its_length_is_an_error(peer: StartPeer, connections: ConnectionPool) -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ndata: x\n\n")

    client = HTTPClient(peer(script).url, retries=0, connections=connections)
    stream = client.stream("/", b"{}")
    with pytest.raises(NetworkError, match="IncompleteRead"):
        stream.read()


def test_event_is_delivered_when_it_arrives_whatever_the_framing(peer: StartPeer, connections: ConnectionPool) -> None:
    until_closed = HEAD.replace(b"Transfer-Encoding: chunked", b"X: y")
    for head, frame in ((HEAD, chunk), (until_closed, bytes)):
        seen = threading.Event()

        def script(
            sock: socket.socket,
            head: bytes = head,
            frame: Callable[[bytes], bytes] = frame,
            seen: threading.Event = seen,
        ) -> None:
            read_request(sock)
            sock.sendall(head + frame(b"data: first\n\n"))
            assert seen.wait(10)  # nothing more comes before the first has been seen
            sock.sendall(frame(b"data: second\n\n") + (b"0\r\n\r\n" if frame is chunk else b""))

        client = HTTPClient(peer(script).url, connections=connections)
        with client.stream("/", b"{}") as stream:
            events = stream.events()
            assert next(events).data == "first"
            seen.set()
            assert [event.data for event in events] == ["second"]


def packed(*pieces: bytes) -> list[bytes]:
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*parts, packer.flush()]


def test_compressed_stream_is_decoded_as_it_arrives(peer: StartPeer, connections: ConnectionPool) -> None:
    seen = threading.Event()
    first, second, end = packed(b"data: first\n\n", b"data: second\n\n")

    def script(sock: socket.socket) -> None:
        assert b"accept-encoding: identity" in read_request(sock)
        sock.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + chunk(first))
        assert seen.wait(10)
        sock.sendall(chunk(second + end) + b"0\r\n\r\n")

    client = HTTPClient(peer(script).url, connections=connections)
    with client.stream("/", b"{}") as stream:
        events = stream.events()
        assert next(events).data == "first"
        seen.set()
        assert [event.data for event in events] == ["second"]
    assert state(client) == (0, 1)


def test_compressed_stream_cut_short_is_refused(peer: StartPeer, connections: ConnectionPool) -> None:
    first, *_ = packed(b"data: first\n\n")
    data = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + chunk(first) + b"0\r\n\r\n"
    client = HTTPClient(peer(answering(data)).url, connections=connections)
    with pytest.raises(NetworkError, match="cut short"), client.stream("/", b"{}") as stream:
        list(stream.events())


def test_body_of_an_error_can_be_read(client: HTTPClient, fault: FaultServer) -> None:
    fault.behave(faults.unauthorized())
    with client.stream(CHAT, ASK) as stream:
        assert stream.status == 401
        assert b"error" in stream.read()
        assert stream.headers["content-type"].startswith("application/json")
    assert state(client) == (0, 1)


def test_endless_line_is_an_error(client: HTTPClient, fault: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    fault.behave(faults.sse("data: " + "x" * 3000 + "\n\n"))
    with pytest.raises(NetworkError, match="more than 1000 bytes"), client.stream(CHAT, ASK) as stream:
        list(stream.events())
    assert state(client) == (0, 0)


def test_whole_reading_of_a_stream_is_bounded(fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="", max_body=1000)
    fault.behave(faults.sse(*["data: " + "x" * 500 + "\n\n"] * 5))
    with (
        pytest.raises(NetworkError, match="more than 1000 bytes"),
        HTTPClient(fault.base_url, connections=connections).stream(CHAT, ASK) as stream,
    ):
        stream.read()
    connections.close()


def test_repr_shows_state_and_no_secret(peer: StartPeer, connections: ConnectionPool) -> None:
    client = HTTPClient(peer(answering(reply(bytes(50_000), "Set-Cookie: a=s3cret"))).url, connections=connections)
    stream: HTTPStream = client.stream("/", b"{}")
    assert "open" in repr(stream)
    stream.read()
    assert "complete" in repr(stream)
    assert "s3cret" not in repr(stream)
