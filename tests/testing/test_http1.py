from __future__ import annotations

import asyncio

import pytest

from perfkit.testing._http1 import Reply, Request, read_reply, read_request


async def fed(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def request(data: bytes) -> Request:
    async def read() -> Request:
        return await read_request(await fed(data))

    return asyncio.run(read())


def reply(data: bytes, method: str = "GET") -> tuple[Reply, list[bytes]]:
    async def read() -> tuple[Reply, list[bytes]]:
        found = await read_reply(await fed(data), method)
        return found, [piece async for piece in found.body]

    return asyncio.run(read())


def test_requests_are_read_with_their_body() -> None:
    found = request(b"POST /a?b=1 HTTP/1.1\r\nX-Key:  v: w \r\nContent-Length: 3\r\n\r\nabcdef")
    assert (found.method, found.target, found.path, found.body) == ("POST", "/a?b=1", "/a", b"abc")
    assert found.header("x-key") == "v: w"
    assert found.header("x-other") is None


def test_chunks_may_have_extensions_and_trailers() -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
    found = request(head + b"3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n")
    assert found.body == b"abc0123456789"


def test_a_request_is_sent_on_with_its_length() -> None:
    found = request(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
    assert found.head() == b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 1\r\n\r\n"


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff"])
def test_a_body_that_is_no_object_is_an_empty_one(body: bytes) -> None:
    assert Request("POST", "/", "HTTP/1.1", [], body).json() == {}


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nab"])
def test_half_a_request_is_none(data: bytes) -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        request(data)


def test_what_is_not_http_is_an_error() -> None:
    with pytest.raises(ValueError, match="unpack"):
        request(b"hello\r\n\r\n")


def test_replies_keep_their_head_and_their_chunks() -> None:
    head = b"HTTP/1.1 200 All right\r\nX-One: 1\r\ntransfer-encoding: chunked\r\nX-Two: 2\r\n\r\n"
    found, pieces = reply(head + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    assert found.head() == head
    assert pieces == [b"ab", b"c"]


@pytest.mark.parametrize(
    ("data", "method", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabc", "GET", b"ab"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", "HEAD", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\nabc", "GET", b""),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", "GET", b"abc"),
    ],
)
def test_bodies_end_where_the_head_says(data: bytes, method: str, body: bytes) -> None:
    assert b"".join(reply(data, method)[1]) == body


def test_a_body_cut_off_is_an_error() -> None:
    with pytest.raises(asyncio.IncompleteReadError):
        reply(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc")


def test_headers_are_replaced_and_removed_in_any_case() -> None:
    found, _ = reply(b"HTTP/1.1 204\r\nX-One: 1\r\nx-one: 2\r\nX-Two: 3\r\n\r\n")
    found.put("x-one", "9")
    found.put("x-two", None)
    assert found.headers == [("x-one", "9")]
