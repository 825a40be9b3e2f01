from __future__ import annotations

import http.client
import io
from contextlib import suppress
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perfkit.transport.connection import PooledConnection
from perfkit.transport.failures import FAILURES
from perfkit.transport.limits import BoundedReader, Limits
from perfkit.transport.reply import Reply, WholeReply, parse_head
from perfkit.transport.tally import Tally


class Wire:
    """A socket that has `data` to receive, in pieces of `size` bytes, and then ends."""

    def __init__(self, data: bytes, size: int = 1 << 20) -> None:
        self._data, self._size = io.BytesIO(data), size

    def recv_into(self, buffer: Any) -> int:
        piece = self._data.read(min(self._size, len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)

    def recv(self, count: int) -> bytes:
        return self._data.read(min(self._size, count))

    def gettimeout(self) -> float:
        return 10.0

    def settimeout(self, seconds: float) -> None:
        pass

    def close(self) -> None: ...

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data.getvalue())


def ours(data: bytes, method: str = "GET", size: int = 1 << 20) -> Reply:
    reply = Reply(BoundedReader(Wire(data, size), Limits(lambda: 0.0)), 0, method)
    reply.begin()
    return reply


def received(data: bytes, method: str = "GET", size: int = 1 << 20) -> Reply | WholeReply:
    """Return the reply as a connection receives it."""
    connection = PooledConnection("host.test")
    connection.sock = cast("Any", Wire(data, size))
    connection.limits = Limits(lambda: 0.0)
    connection.limits.arm(lambda: 0.0, 10.0, 10.0)
    connection.tally = Tally()
    return connection._receive(method)


def theirs(data: bytes, method: str = "GET") -> http.client.HTTPResponse:
    reply = http.client.HTTPResponse(Wire(data), 0, method)  # type: ignore[arg-type]
    reply.begin()
    return reply


TOKENS = st.text("abcXYZ019-_!", min_size=1, max_size=8)
FRAMING = ["Content-Length", "content-length", "Transfer-Encoding", "Connection", "Keep-Alive", "Set-Cookie"]
NAMES = st.one_of(TOKENS, st.sampled_from(FRAMING))
VALUES = st.one_of(
    st.text('ab,;="é\t ()', max_size=12).map(str.strip),
    st.sampled_from(["0", "5", "5, 5", "-1", "+5", "chunked", "Chunked", "gzip, chunked", "close", "keep-alive", ""]),
)
ODD_LINES = st.sampled_from(
    [" folded", "\tfolded too", "no colon", "bad name: x", ": no name", "a:b\0c", "é: x", "x:\ry"]
)
LINES = st.one_of(
    *[st.builds("{}:{}{}".format, NAMES, st.sampled_from(["", " ", "  "]), VALUES)] * 8, ODD_LINES, TOKENS
)
STATUS = st.sampled_from(
    ["HTTP/1.1 200 OK"] * 6
    + ["HTTP/1.1 404 Not Found", "HTTP/1.1 204 No Content", "HTTP/1.1 304 x", "HTTP/1.1 200", "HTTP/1.1 200 "]
    + [
        "HTTP/1.0 200 OK",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
        "HTTP/1.1 20 x",
        "HTTP/1.1 2000 x",
        "HTTP/2 200",
    ]
    + ["HTTP/1.1  200 OK", "http/1.1 200 ok", "HTTP/1.1 ²00 OK", "", "ICY 200 OK", "HTTP/1.1 600 what"]
)
ENDS = st.sampled_from(["\r\n"] * 5 + ["\n"])
BODIES = st.sampled_from(
    [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"zz\r\n"]
)


def outcome(make: Any, data: bytes, method: str) -> dict[str, Any] | str:
    try:
        reply = make(data, method)
    except (http.client.HTTPException, ValueError, UnicodeError) as error:
        return type(error).__name__
    fields = [(name, " ".join(value.split())) for name, value in reply.headers.items()]
    if isinstance(reply, WholeReply):
        told = {"status": reply.status, "reason": reply.reason, "version": 11, "chunked": False}
        ends = {"length": 0 if method == "HEAD" or reply.status in (204, 304) else reply.length}
        return {**told, **ends, "will_close": reply.will_close, "fields": fields, "body": reply.body}
    told = {name: getattr(reply, name) for name in ("status", "reason", "version", "chunked", "length", "will_close")}
    try:
        body: bytes | str = reply.read()
    except http.client.IncompleteRead as error:
        body = f"cut after {error.partial!r}"
    return {**told, "fields": fields, "body": body}


@given(STATUS, st.lists(LINES, max_size=8), ENDS, BODIES, st.sampled_from(["GET", "POST", "HEAD"]))
@example("HTTP/1.1 200 OK", ["A: b"] * 101, "\r\n", b"", "GET")
@example("HTTP/1.1 200 OK", ["A: " + "b" * 70_000], "\r\n", b"", "GET")
@example("HTTP/1.1 200 OK", ["Content-Length: 5", "A: b "], "\r\n", b"hello", "GET")
def test_replies_are_understood_as_http_client_does(
    status: str, lines: list[str], end: str, body: bytes, method: str
) -> None:
    data = end.join([status, *lines, "", ""]).encode("latin-1", "replace") + body
    stock, mine = outcome(theirs, data, method), outcome(ours, data, method)
    if mine == "HTTPException" and isinstance(stock, dict):
        assert uncertain(lines)  # where http.client would guess
    elif isinstance(stock, dict) and isinstance(mine, dict):
        several = sum(line.lower().startswith("connection:") for line in lines) > 1
        unsure = several or stock["status"] in (204, 304) or uncertain(lines)
        dropped = ("will_close", "chunked", "body") if unsure else ()
        assert {k: v for k, v in mine.items() if k not in dropped} == {
            k: v for k, v in stock.items() if k not in dropped
        }
    else:
        assert mine == stock


@given(STATUS, st.lists(LINES, max_size=8), ENDS, BODIES, st.sampled_from(["GET", "POST", "HEAD"]), st.integers(1, 400))
@example("HTTP/1.1 200 OK", ["Content-Length: 5", "Set-Cookie: a", "Set-Cookie: b"], "\r\n", b"hello", "GET", 400)
@example("HTTP/1.1 204 No Content", ["Content-Length: 5"], "\r\n", b"", "GET", 400)
@example("HTTP/1.1 200 OK", ["Content-Length: 5"], "\r\n", b"", "HEAD", 400)
@example("HTTP/1.1 204 No Content", ["Content-Length: 5"], "\r\n", b"hello", "GET", 400)
@example("HTTP/1.1 200 OK", ["Content-Length: 5"], "\r\n", b"", "GET", 400)
@example("HTTP/1.1 200 OK", ["Content-Length: 0"], "\r\n", b"hello", "GET", 400)
@example("HTTP/1.1 204 No Content", ["Transfer-Encoding: chunked"], "\r\n", b"", "GET", 9)
def test_reply_that_comes_whole_is_understood_like_any_other(
    status: str, lines: list[str], end: str, body: bytes, method: str, size: int
) -> None:
    data = end.join([status, *lines, "", ""]).encode("latin-1", "replace") + body
    assert outcome(partial(received, size=size), data, method) == outcome(ours, data, method)


@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(b"HTTP/1.1 200 OK\r\n".__add__)), st.integers(1, 99)
)
def test_any_bytes_give_a_reply_or_an_error_the_caller_knows(data: bytes, size: int) -> None:
    with suppress(*FAILURES):
        reply = received(data, size=size)
        if isinstance(reply, Reply):
            reply.read()
    with suppress(*FAILURES):
        ours(data, size=size).read()


def uncertain(lines: list[str]) -> bool:
    names = [line.partition(":")[0].lower() for line in lines]
    return "transfer-encoding" in names or names.count("content-length") > 1


@given(st.integers(1, 40), st.sampled_from([b"hello", b"5\r\nhello\r\n0\r\n\r\n"]))
def test_reply_does_not_depend_on_how_it_arrives(size: int, body: bytes) -> None:
    framing = b"Content-Length: 5" if body == b"hello" else b"Transfer-Encoding: chunked"
    reply = ours(b"HTTP/1.1 200 OK\r\nX: y\r\n" + framing + b"\r\n\r\n" + body, size=size)
    assert (reply.status, reply.fields["x"], reply.read()) == (200, "y", b"hello")


def test_regular_head_takes_the_fast_way() -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n")
    assert head is not None
    assert (head.status, head.length, head.fields["set-cookie"]) == (200, 5, "a=1, b=2")


@pytest.mark.parametrize(
    ("sent", "value"), [(b" ", ""), (b"", ""), (b" b ", "b"), (b"b\t", "b"), (b" a  b \t", "a  b")]
)
def test_white_space_around_a_value_is_not_part_of_it(sent: bytes, value: str) -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\nA:" + sent + b"\r\n\r\n")
    assert head is not None
    assert head.fields.pairs == [("A", value)]


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_odd_head_is_left_to_http_client(head: bytes) -> None:
    assert parse_head(head) is None


@pytest.mark.parametrize(
    "fields",
    [b"Content-Length: 5\r\nContent-Length: 6", b"Transfer-Encoding: gzip", b"Transfer-Encoding: gzip, chunked"],
)
def test_reply_without_a_certain_end_is_refused(fields: bytes) -> None:
    with pytest.raises(http.client.HTTPException, match="no certain end"):
        ours(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\nhello!")


def test_folded_value_becomes_one_line() -> None:
    assert ours(b"HTTP/1.1 200 OK\r\nX: a\r\n  b\r\nContent-Length: 0\r\n\r\n").fields["x"] == "a b"


@pytest.mark.parametrize(("extra", "clean"), [(b"", True), (b"HTTP/1.1 200 OK\r\n", False)])
def test_bytes_after_the_end_are_noticed(extra: bytes, clean: bool) -> None:
    reply = ours(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + extra)
    assert reply.read() == b"hello"
    assert reply.clean is clean


def test_interim_replies_are_skipped() -> None:
    data = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    reply = ours(data + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (reply.status, dict(reply.fields), reply.read()) == (200, {"content-length": "2"}, b"ok")


def test_end_of_the_connection_before_any_byte_is_told_apart() -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        ours(b"")
