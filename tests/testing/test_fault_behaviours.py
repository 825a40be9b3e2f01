"""Each behaviour as a client sees it on the wire, and as the server counts it."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from perfkit.testing import _fault_steps, faults
from perfkit.testing.faults import Behaviour, FaultServer

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
LONG = 3600.0  # seconds no test waits for


@pytest.fixture(scope="module")
def running() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def server(running: FaultServer) -> Iterator[FaultServer]:
    yield running
    running.reset()


class Client(http.client.HTTPConnection):
    """One connection that asks as providers do."""

    def __init__(self, server: FaultServer) -> None:
        super().__init__("127.0.0.1", server.port, timeout=10)

    def ask(self, text: str = "one two", *, path: str = CHAT, stream: bool = False) -> http.client.HTTPResponse:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
        self.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return self.getresponse()


@pytest.fixture
def client(server: FaultServer) -> Iterator[Client]:
    client = Client(server)
    yield client
    client.close()


def ended(server: FaultServer, outcome: str, times: int = 1) -> None:
    """Wait until the server has counted the end of every request."""
    server.wait_until(lambda seen: seen["in_flight"] == 0 and seen[outcome] == times)


def raw_ask(server: FaultServer) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sock.sendall(f"POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n{{}}".encode())
    return sock


def content(reply: http.client.HTTPResponse) -> str:
    return str(json.load(reply)["choices"][0]["message"]["content"])


def events(body: bytes) -> list[bytes]:
    return body.split(b"\n\n")[:-1]


def test_every_behaviour_is_known_to_the_server() -> None:
    constructors = [getattr(faults, name) for name in faults.__all__ if name.islower()]
    arguments: dict[str, tuple[Any, ...]] = {"status": (200,), "raw": (b"",)}
    made = [make(*arguments.get(make.__name__, ())) for make in constructors]
    assert {behaviour.name for behaviour in made} == set(_fault_steps.STEPS)


def test_behaviours_survive_the_way_through_json() -> None:
    behaviour = faults.drip(faults.cut(faults.ok("hi", usage={"prompt_tokens": 3}), after_events=2), size=4)
    assert Behaviour.from_dict(json.loads(json.dumps(behaviour.to_dict()))) == behaviour


# --- answers ---


def test_answers_echo_the_last_user_message_by_default(client: Client) -> None:
    assert content(client.ask("who is there")) == "echo: who is there"


def test_ok_says_what_it_is_told(server: FaultServer, client: Client) -> None:
    server.behave(faults.ok("hello", usage={"prompt_tokens": 100}, finish_reason="length", headers={"X-Limit": "7"}))
    reply = client.ask()
    body = json.load(reply)
    assert reply.headers["x-limit"] == "7"
    assert body["usage"]["prompt_tokens"] == 100
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == "hello"


def test_ok_can_be_late(server: FaultServer, client: Client) -> None:
    server.behave(faults.ok(delay=LONG))
    client.timeout = 0.05
    with pytest.raises(TimeoutError):
        client.ask()
    client.close()
    ended(server, "aborted_by_client")


def test_interval_keeps_the_events_of_a_stream_apart(server: FaultServer, client: Client) -> None:
    server.behave(faults.ok(interval=LONG))
    reply = client.ask(stream=True)
    assert len(events(reply.read1())) == 1
    assert server.counters()["in_flight"] == 1


@pytest.mark.parametrize(
    ("behaviour", "code", "openai_code", "anthropic_type"),
    [
        (faults.rate_limited(3), 429, "rate_limit_exceeded", "rate_limit_error"),
        (faults.quota_exhausted(), 429, "insufficient_quota", "rate_limit_error"),
        (faults.unauthorized(), 401, "invalid_api_key", "authentication_error"),
        (faults.model_not_found(), 404, "model_not_found", "not_found_error"),
        (faults.context_overflow(), 400, "context_length_exceeded", "invalid_request_error"),
        (faults.content_filtered(), 400, "content_policy_violation", "invalid_request_error"),
        (faults.server_error(503), 503, None, "api_error"),
        (faults.overloaded(), 529, "overloaded", "overloaded_error"),
    ],
    ids=lambda value: str(value.args["code"]) if isinstance(value, Behaviour) else None,
)
def test_errors_speak_the_language_of_the_path(
    server: FaultServer, client: Client, behaviour: Behaviour, code: int, openai_code: str | None, anthropic_type: str
) -> None:
    server.behave(behaviour)
    replies = []
    for path in (CHAT, MESSAGES):
        reply = client.ask(path=path)
        replies.append((reply.status, json.load(reply)["error"]))
    assert [status for status, _ in replies] == [code, code]
    assert replies[0][1]["code"] == openai_code
    assert replies[1][1]["type"] == anthropic_type


def test_rate_limited_tells_how_long_to_wait(server: FaultServer, client: Client) -> None:
    server.behave(faults.rate_limited(1.5), faults.rate_limited(), faults.rate_limited("Wed, 21 Oct 2026 07:28:00 GMT"))
    waits = []
    for _ in range(3):
        reply = client.ask()
        reply.read()
        waits.append(reply.headers["retry-after"])
    assert waits == ["1.5", None, "Wed, 21 Oct 2026 07:28:00 GMT"]


def test_status_sends_any_body(server: FaultServer, client: Client) -> None:
    server.behave(faults.status(200, body={"a": 1}), faults.status(418, body="tea"), faults.status(204))
    assert json.load(client.ask()) == {"a": 1}
    assert client.ask().read() == b"tea"
    assert client.ask().read() == b""
    assert server.counters()["connections"] == 1


def test_sse_sends_blocks_as_they_are(server: FaultServer, client: Client) -> None:
    server.behave(faults.sse({"a": 1}, ": keep-alive\n\n", "data: [DONE]\n\n"))
    assert client.ask().read() == b'data: {"a": 1}\n\n: keep-alive\n\ndata: [DONE]\n\n'


def test_raw_replaces_the_whole_reply(server: FaultServer) -> None:
    server.behave(faults.raw(b"\xff\x00 what"))
    with raw_ask(server) as sock:
        assert sock.makefile("rb").read() == b"\xff\x00 what"


def test_garbage_is_no_answer_in_four_ways(server: FaultServer, client: Client) -> None:
    server.behave(*(faults.garbage(kind) for kind in ("html", "json", "empty", "bytes")))
    page = client.ask()
    assert (page.status, page.headers["content-type"], page.read()[:6]) == (200, "text/html", b"<html>")
    with pytest.raises(json.JSONDecodeError):
        json.load(client.ask())
    assert client.ask().read() == b""
    with pytest.raises(http.client.BadStatusLine):
        client.ask()


def test_a_connection_close_header_closes(server: FaultServer, client: Client) -> None:
    server.behave(faults.ok(headers={"connection": "close"}))
    client.ask().read()
    client.ask().read()
    assert server.counters()["connections"] == 2


# --- deliveries ---


def test_hang_says_nothing_until_released(server: FaultServer) -> None:
    server.behave(faults.hang(faults.ok(headers={"connection": "close"})))
    with raw_ask(server) as sock:
        server.wait_until(lambda seen: seen["held"] == 1)
        sock.settimeout(0.02)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(10)
        assert server.release() == 1
        assert sock.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_a_release_can_drop_instead(server: FaultServer) -> None:
    server.behave(faults.hang())
    with raw_ask(server) as sock:
        server.wait_until(lambda seen: seen["held"] == 1)
        server.release(drop=True)
        assert sock.recv(1) == b""
    ended(server, "cut_by_server")


def test_hang_ends_by_itself_if_told_so(server: FaultServer, client: Client) -> None:
    server.behave(faults.hang(faults.ok("late"), seconds=0.01))
    assert content(client.ask()) == "late"


def test_leaving_a_hanging_request_counts_as_abort(server: FaultServer) -> None:
    server.behave(faults.hang())
    raw_ask(server).close()
    ended(server, "aborted_by_client")
    assert server.counters()["open_connections"] == 0
    assert server.stats()["recent"][0]["outcome"] == "aborted_by_client"


def test_reset_is_a_reset(server: FaultServer) -> None:
    server.behave(faults.reset())
    with raw_ask(server) as sock, pytest.raises(ConnectionResetError):
        sock.recv(1)
    ended(server, "cut_by_server")


def test_close_is_a_quiet_end(server: FaultServer) -> None:
    server.behave(faults.close())
    with raw_ask(server) as sock:
        assert sock.recv(1) == b""
    ended(server, "cut_by_server")


@pytest.mark.parametrize(("how", "error"), [("rst", ConnectionResetError), ("fin", http.client.IncompleteRead)])
def test_cut_ends_a_body_after_so_many_bytes(
    server: FaultServer, client: Client, how: str, error: type[Exception]
) -> None:
    server.behave(faults.cut(after_bytes=7, how=how))
    reply = client.ask()
    assert reply.read(7) == b'{"id": '
    with pytest.raises(error):
        reply.read()
    ended(server, "cut_by_server")


def test_cut_ends_a_stream_after_whole_events(server: FaultServer, client: Client) -> None:
    server.behave(faults.cut(faults.ok("a b c d"), after_events=3, how="fin"))
    reply = client.ask(stream=True)
    with pytest.raises(http.client.IncompleteRead) as caught:
        reply.read()
    texts = [json.loads(event[6:])["choices"][0]["delta"]["content"] for event in events(caught.value.partial)]
    assert texts == ["", "a ", "b "]


def test_cut_after_nothing_leaves_the_head(server: FaultServer, client: Client) -> None:
    server.behave(faults.cut(how="fin"))
    reply = client.ask()
    assert reply.status == 200
    with pytest.raises(http.client.IncompleteRead) as caught:
        reply.read()
    assert caught.value.partial == b""


def test_stall_holds_a_stream_in_the_middle(server: FaultServer, client: Client) -> None:
    server.behave(faults.stall(faults.ok("a b"), after_events=2))
    reply = client.ask(stream=True)
    server.wait_until(lambda seen: seen["held"] == 1)
    before = reply.read1() + reply.read1()
    assert len(events(before)) == 2
    server.release()
    assert reply.read().endswith(b"data: [DONE]\n\n")
    ended(server, "completed")


def test_drip_sends_a_body_bit_by_bit(server: FaultServer, client: Client) -> None:
    server.behave(faults.drip(faults.ok("hello"), size=3, interval=LONG), faults.drip(faults.ok("hello"), interval=0))
    with raw_ask(server) as sock:
        reply = b""
        while not reply.endswith(b'\r\n\r\n{"i'):
            reply += sock.recv(100)
        assert server.counters()["in_flight"] == 1
    assert content(client.ask()) == "hello"


def test_drip_sends_a_head_bit_by_bit(server: FaultServer, client: Client) -> None:
    server.behave(faults.drip(size=5, interval=LONG, part="head"), faults.drip(interval=0.0, size=50, part="all"))
    with raw_ask(server) as sock:
        assert sock.recv(100) == b"HTTP/"
        assert server.counters()["in_flight"] == 1
    assert content(client.ask("x")) == "echo: x"


def test_truncated_promises_more_than_it_sends(server: FaultServer, client: Client) -> None:
    server.behave(faults.truncated(faults.status(200, body="12345"), missing=4))
    reply = client.ask()
    assert reply.headers["content-length"] == "9"
    with pytest.raises(http.client.IncompleteRead) as caught:
        reply.read()
    assert caught.value.partial == b"12345"
    ended(server, "cut_by_server")


def test_a_truncated_stream_lacks_its_last_chunk(server: FaultServer, client: Client) -> None:
    server.behave(faults.truncated())
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.ask(stream=True).read()
    assert caught.value.partial.endswith(b"data: [DONE]\n\n")


def test_close_idle_breaks_the_promise_of_keep_alive(server: FaultServer, client: Client) -> None:
    server.behave(faults.close_idle(announce=60))
    reply = client.ask()
    assert reply.headers["keep-alive"] == "timeout=60"
    assert content(reply) == "echo: one two"
    assert client.sock.recv(1) == b""
    ended(server, "completed")


def test_close_idle_waits_for_the_next_request(server: FaultServer, client: Client) -> None:
    server.behave(faults.close_idle(after=LONG, announce=None), faults.close_idle(after=0.01))
    assert "keep-alive" not in client.ask().headers
    client.close()
    client.ask().read()
    assert client.sock.recv(1) == b""


def test_gzip_compresses(server: FaultServer, client: Client) -> None:
    server.behave(faults.gzip(faults.ok("hello")))
    reply = client.ask()
    assert reply.headers["content-encoding"] == "gzip"
    assert b"hello" in gzip.decompress(reply.read())


def test_gzip_compresses_a_stream_event_by_event(server: FaultServer, client: Client) -> None:
    server.behave(faults.stall(faults.gzip(faults.ok("hello")), after_events=2))
    reply = client.ask(stream=True)
    first = reply.read1() + reply.read1()
    assert b"hello" in zlib.decompressobj(wbits=31).decompress(first)
    server.release()
    assert gzip.decompress(first + reply.read()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_broken_gzip_is_whole_http(server: FaultServer, client: Client, *, stream: bool) -> None:
    server.behave(faults.gzip(broken=True))
    body = client.ask(stream=stream).read()
    with pytest.raises(EOFError):
        gzip.decompress(body)
    ended(server, "completed")


def test_malformed_sse_breaks_one_event(server: FaultServer, client: Client) -> None:
    server.behave(faults.malformed_sse(faults.ok("a b"), after_events=2, block="data: {oops\n\n"))
    found = events(client.ask(stream=True).read())
    assert found[2] == b"data: {oops"
    assert found[-1] == b"data: [DONE]"


def test_deliveries_nest(server: FaultServer, client: Client) -> None:
    server.behave(faults.drip(faults.cut(faults.gzip(faults.status(500)), after_bytes=10, how="fin"), interval=0.0))
    reply = client.ask()
    assert reply.status == 500
    with pytest.raises(http.client.IncompleteRead) as caught:
        reply.read()
    assert len(caught.value.partial) == 10
