"""What lies under a response of requests: the raw reply it reads, and its exceptions for what can go wrong."""

from __future__ import annotations

import io
import ssl
from typing import TYPE_CHECKING

import urllib3
from requests import exceptions

from perfkit.errors import DeadlineExceeded, PoolTimeout, TransportError
from perfkit.transport.encoding import CodingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import PreparedRequest
    from typing_extensions import Buffer

    from perfkit.integrations._wire import Incoming

__all__ = ["Raw", "translated"]

_PIECE = 64 * 1024  # bytes


class Raw(io.RawIOBase):
    """What requests reads a reply from: decoded bytes as they arrive."""

    version = 11

    def __init__(self, incoming: Incoming, request: PreparedRequest) -> None:
        self._incoming = incoming
        self._request = request
        self._pieces = iter(incoming)
        self._left = memoryview(b"")
        self.status, self.reason = incoming.status, incoming.reason
        self.headers = urllib3.HTTPHeaderDict(incoming.fields)
        self._original_response = incoming.reply  # requests takes cookies from it

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer` with what has arrived, waiting for at least one byte; 0 is the end."""
        if not self._left:
            try:
                self._left = memoryview(next(self._pieces, b""))
            except TransportError as error:
                raise _broken(error, self._request) from error
        target = memoryview(buffer)
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def stream(self, amt: int | None = None, decode_content: bool | None = None) -> Iterator[bytes]:  # noqa: ARG002
        """Yield what arrives, in pieces of `amt` bytes at most."""
        while piece := self.read(_PIECE if amt is None else min(amt, _PIECE)):
            yield piece

    def close(self) -> None:
        """Let go of the connection, at once if the reply has not ended."""
        if not self.closed:
            self._incoming.close()
        super().close()


class _BodyTimeout(exceptions.ReadTimeout, exceptions.ConnectionError):
    """requests reports it as a ConnectionError when it happens in the body; it is a timeout all the same."""


def translated(error: TransportError, request: PreparedRequest) -> exceptions.RequestException:
    """Return `error`, met before the body, as the exception requests has for it."""
    kind: type[exceptions.RequestException]
    if isinstance(error, PoolTimeout | DeadlineExceeded):
        kind = exceptions.ReadTimeout if error.sent else exceptions.ConnectTimeout
    else:
        kind = _kind(error.__cause__)
    return kind(str(error), request=request)


def _kind(cause: BaseException | None) -> type[exceptions.RequestException]:
    seen = cause
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return exceptions.SSLError
        if isinstance(seen, urllib3.exceptions.ProxyError):
            return exceptions.ProxyError
        seen = seen.__cause__
    return exceptions.ConnectionError


def _broken(error: TransportError, request: PreparedRequest) -> exceptions.RequestException:
    kind: type[exceptions.RequestException] = exceptions.ChunkedEncodingError
    if isinstance(error, DeadlineExceeded):
        kind = _BodyTimeout
    elif isinstance(error.__cause__, CodingError):
        kind = exceptions.ContentDecodingError
    return kind(str(error), request=request)
