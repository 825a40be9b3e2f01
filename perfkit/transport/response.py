"""What a call gives back: status, headers and body, with everything secret kept out of its repr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from perfkit.transport import encoding
from perfkit.transport.message import masked

if TYPE_CHECKING:
    from perfkit.transport.exchange import Exchange

__all__ = ["HTTPResponse", "Headers", "read_whole"]


T = TypeVar("T")


class Headers(Mapping[str, str]):
    """Header fields by name in any case; a field that came more than once is joined by ", " (RFC 9110 section 5.3).

    Args:
        pairs: fields as received.
        fields: the same by lower-case name.
    """

    __slots__ = ("_fields", "_pairs")

    def __init__(self, pairs: list[tuple[str, str]], fields: dict[str, str]) -> None:
        self._pairs = pairs
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: T) -> str | T: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """Return a field, or `default`; Mapping's own raises and catches an error for each that is not there."""
        return self._fields.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return every value of `name` in the order received: for Set-Cookie, which must not be joined."""
        return tuple(value for key, value in self._pairs if key.lower() == name.lower())

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The fields as received: names in their own case, repeated ones apart."""
        return self._pairs.copy()

    def __repr__(self) -> str:
        return f"Headers({masked(self)})"


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
    return HTTPResponse(reply.status, Headers(reply.pairs or [], reply.fields), body)
