"""What a call gives back: status, headers and body, with everything secret kept out of its repr."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perfkit.transport import encoding

if TYPE_CHECKING:
    from perfkit.transport.exchange import Exchange
    from perfkit.transport.headers import Headers

__all__ = ["HTTPResponse", "read_whole"]


class HTTPResponse:
    """A whole reply.

    Attributes:
        status: HTTP status; 4xx and 5xx are replies like any other.
        headers: fields by name in any case.
        body: decoded bytes.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self) -> str:
        """The body as UTF-8, which is what JSON and event streams are; bad bytes become U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the parsed body.

        Raises:
            ValueError: the body is not JSON.
        """
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"HTTPResponse({self.status}, {len(self.body)} bytes, {self.headers!r})"


def read_whole(exchange: Exchange, most: int) -> HTTPResponse:
    """Read the reply of `exchange` to its end.

    Raises:
        TransportError: the body broke off, took too long, is not what its coding says or has more than `most` bytes.
    """
    body = exchange.read(most)
    reply = exchange.reply
    coding = reply.fields.get("content-encoding")
    if coding is not None and body:
        try:
            body = encoding.decode(body, coding, most)
        except encoding.CodingError as error:
            raise exchange.unreadable(error) from error
    return HTTPResponse(reply.status, reply.fields, body)
