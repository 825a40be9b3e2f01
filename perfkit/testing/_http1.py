"""Just enough HTTP/1.1 over asyncio streams for a server that must also speak it wrongly on purpose.

Bodies are async iterators of pieces: what the peer sent as one chunk, or what should leave as one. `Reply` keeps its
header lines as they are, so that an upstream's reply passes through unchanged and a test can put anything in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import StreamReader
    from collections.abc import AsyncIterator

__all__ = ["Reply", "Request", "read_reply", "read_request"]

BODILESS = frozenset({204, 304})


class _Headers:
    """Header lines in order, with look-up by name in any case."""

    __slots__ = ()
    headers: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        """Return the value of the last header of that name."""
        return next((value for key, value in reversed(self.headers) if key.lower() == name), None)

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return (self.header("transfer-encoding") or "").lower() == "chunked"

    @property
    def closing(self) -> bool:
        """Whether the connection should end after this message."""
        return (self.header("connection") or "").lower() == "close"


@dataclass(slots=True)
class Request(_Headers):
    """One request, body included."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object, empty if it is not one."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def head(self) -> bytes:
        """Return the head to send on, with the body's length in the place of its framing."""
        kept = [
            (name, value) for name, value in self.headers if name.lower() not in {"transfer-encoding", "content-length"}
        ]
        return _head(f"{self.method} {self.target} {self.version}", [*kept, ("content-length", str(len(self.body)))])


@dataclass(slots=True)
class Reply(_Headers):
    """One reply on its way out."""

    status: int
    headers: list[tuple[str, str]]
    body: AsyncIterator[bytes]
    reason: str | None = None
    raw: bool = False  # the body is all there is: no status line, no headers
    head_pace: tuple[int, float] | None = field(default=None)  # bytes, and seconds between them

    def put(self, name: str, value: str | None) -> None:
        """Set a header, in the place of those of the same name; None removes it."""
        self.headers = [pair for pair in self.headers if pair[0].lower() != name]
        if value is not None:
            self.headers.append((name, value))

    def head(self) -> bytes:
        """Return status line and headers."""
        if self.raw:
            return b""
        reason = self.reason if self.reason is not None else _reason(self.status)
        return _head(f"HTTP/1.1 {self.status} {reason}", self.headers)

    @property
    def endless(self) -> bool:
        """Whether only the end of the connection tells the end of the body."""
        return not self.chunked and self.header("content-length") is None and self.status not in BODILESS


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded"  # 529, the one status in use that is not registered


def _head(first: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def _read_head(reader: StreamReader) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the three words of the first line, and the headers."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first.split(" ", 2), [(name, value.strip()) for name, _, value in pairs]


async def read_request(reader: StreamReader) -> Request:
    """Read one request.

    Raises:
        asyncio.IncompleteReadError: the peer ended the connection first.
        ValueError: this is not HTTP/1.1.
    """
    (method, target, version), headers = await _read_head(reader)
    request = Request(method, target, version, headers)
    length = int(request.header("content-length") or 0)
    if request.chunked:
        request.body = b"".join([piece async for piece in _chunks(reader)])
    elif length:
        request.body = await reader.readexactly(length)
    return request


async def read_reply(reader: StreamReader, method: str) -> Reply:
    """Read a reply's head; its body is read as the caller iterates over it.

    Raises:
        asyncio.IncompleteReadError: the peer ended the connection first, now or in the middle of the body.
    """
    (_, status, *reason), headers = await _read_head(reader)
    reply = Reply(int(status), headers, _whole(reader), "".join(reason))
    if reply.chunked:
        reply.body = _chunks(reader)
    elif method == "HEAD" or reply.status in BODILESS:
        reply.body = _counted(reader, 0)
    elif not reply.endless:
        reply.body = _counted(reader, int(reply.header("content-length") or 0))
    return reply


async def _chunks(reader: StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers


async def _counted(reader: StreamReader, left: int) -> AsyncIterator[bytes]:
    from asyncio import IncompleteReadError

    while left:
        piece = await reader.read(min(left, 65536))
        if not piece:
            raise IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


async def _whole(reader: StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(65536):
        yield piece
