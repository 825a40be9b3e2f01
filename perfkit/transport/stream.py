"""A reply read while it arrives, its events and its lines.

Leaving a stream early closes its connection at once, so that the provider stops generating; a finished one goes back to
the pool; one that is forgotten gives its slot back soon after it is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from perfkit._process import deferred
from perfkit.transport import encoding
from perfkit.transport.ndjson import read_lines, read_values
from perfkit.transport.sse import EventTooLargeError, ServerSentEvent, read_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perfkit.transport.exchange import Exchange

__all__ = ["HTTPStream"]

_END_MARK = "[DONE]"  # what the OpenAI format says last, before the connection's own end of the reply


class HTTPStream:
    """A reply in pieces; close it, or use it as a context manager.

    Attributes:
        status: HTTP status.
        reason: words behind it.
        headers: fields by name in any case.
    """

    def __init__(self, exchange: Exchange, most: int, ended: Callable[[], None] | None = None) -> None:
        reply = exchange.reply
        self.status: int = reply.status
        self.reason: str = reply.reason
        self.headers = reply.fields
        self._exchange = exchange
        self._most = most
        self._ended = ended
        self._finalizer = None if exchange.complete else deferred.when_gone(self, exchange.drop)
        self._marked = False

    def read(self) -> bytes:
        """Return all that is left, decoded.

        Raises:
            TransportError: see `iter_bytes`; also when it is more than `connections.max_body` bytes.
        """
        pieces, size = [], 0
        for piece in self.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > self._most:
                raise self._exchange.unreadable(ValueError(f"the body has more than {self._most} bytes"))
        return b"".join(pieces)

    def iter_bytes(self) -> Iterator[bytes]:
        """Yield decoded bytes as they arrive.

        Raises:
            DeadlineExceeded: the deadline of the stream, or the longest silence, has passed.
            NetworkError: the stream broke off, or its compressed content is damaged.
        """
        exchange = self._exchange
        try:
            unpack = encoding.decoder(self.headers.get("content-encoding", ""), self._most)
            while data := exchange.read1():
                if unpack is not None:
                    data = unpack.feed(data)
                if data:
                    yield data
            if unpack is not None:
                unpack.finish()
        except encoding.CodingError as error:
            raise exchange.unreadable(error) from error
        self._end()

    def events(self) -> Iterator[ServerSentEvent]:
        """Yield server-sent events as they arrive.

        Raises:
            TransportError: see `iter_bytes`; also when one event is larger than 16 MiB.
        """
        try:
            for event in read_events(self.iter_bytes()):
                self._marked = event.data == _END_MARK
                yield event
        except EventTooLargeError as error:
            raise self._exchange.unreadable(error) from error

    def lines(self) -> Iterator[str]:
        r"""Yield lines as they arrive, without the "\n" that ends them.

        Raises:
            TransportError: see `iter_bytes`; also when one line is larger than 16 MiB.
        """
        try:
            for line in read_lines(self.iter_bytes()):
                yield line.decode("utf-8", "replace")
        except EventTooLargeError as error:
            raise self._exchange.unreadable(error) from error

    def json_lines(self) -> Iterator[Any]:
        """Yield the JSON value of each line as it arrives (NDJSON: Ollama); blank lines are passed over.

        Raises:
            TransportError: see `lines`; also when a line is not JSON.
        """
        try:
            for value in read_values(self.iter_bytes()):
                self._marked = isinstance(value, dict) and value.get("done") is True  # what Ollama says last
                yield value
        except ValueError as error:
            raise self._exchange.unreadable(error) from error

    def extend(self, timeout: float) -> None:
        """Give the stream another deadline: `timeout` seconds from when it was asked for."""
        self._exchange.extend(timeout)

    def finish(self) -> None:
        """Close after the last event of interest: the connection is kept if only the end of the reply is to come.

        Nothing is waited for here. The next call on the connection reads the end, or waits for it one round trip, 50 ms
        at most; if it is not there by then, the connection is closed.
        """
        self._exchange.leave()
        self._end()

    def close(self) -> None:
        """Let go of the connection: at once if the reply has not ended; after [DONE], as `finish`."""
        if self._marked:
            self.finish()
        else:
            self._exchange.drop()
            self._end()

    def _end(self) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = (
            "complete" if self._exchange.complete else "open" if self._finalizer and self._finalizer.alive else "closed"
        )
        return f"HTTPStream({self.status}, {state}, {self.headers!r})"
