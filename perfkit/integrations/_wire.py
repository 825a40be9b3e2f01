"""One request of another library over perfkit's connections, measured; the seam that all integrations share.

Requests arrive as that library wrote them, and are sent with its waits. Nothing is tried again here beyond what
`Exchange` does when an idle connection turns out to be dead: retries are the library's own.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import TransportError
from perfkit.transport import ConnectionPool, HTTPStream, encoding
from perfkit.transport.call import Call
from perfkit.transport.exchange import Exchange
from perfkit.transport.origin import authority
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perfkit.clock import Clock
    from perfkit.metrics import Handle, PerformanceTracker
    from perfkit.transport.call import Waits
    from perfkit.transport.origin import Origin

__all__ = ["Incoming", "Wire"]

_END_MARKS = (b"data: [DONE]", b"data:[DONE]")  # after which clients of the OpenAI format close
_TAIL = 32  # bytes; enough for the mark and the empty line behind it
# Text, or arguments of a tool, in an event of OpenAI's chat and responses, Anthropic's messages and their like.
_FIRST_TOKEN = re.compile(
    rb'"(?:content|reasoning_content|text|delta|arguments|partial_json|thinking)"\s*:\s*"[^"]'
).search


class Wire:
    """Sends requests and measures them; safe in threads and after fork.

    Args:
        connections: None for `perfkit.connections`.
        tracker: where `http_request_duration` and `first_token` go; None for `perfkit.tracker`.
        deadline: seconds for each request and its reply to the last byte; None for no end.
        clock: time, for deadlines and durations.

    Raises:
        ValueError: `deadline` is not above 0.
    """

    def __init__(
        self,
        *,
        connections: ConnectionPool | None = None,
        tracker: PerformanceTracker | None = None,
        deadline: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._connections = connections
        self._tracker = tracker
        self._deadline = math.inf if deadline is None else finite("deadline", deadline, above=0)
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._handles: dict[tuple[str, ...], Handle] = {}

    @property
    def connections(self) -> ConnectionPool:
        """The pool requests go over."""
        if self._connections is None:
            self._connections = ConnectionPool.instance()
        return self._connections

    def call(
        self, method: str, target: str, fields: dict[str, str], body: bytes, *, waits: Waits, deadline: float = math.inf
    ) -> Call:
        """Return a request ready to be sent; `fields` are by lower-case name and belong to it from now on."""
        coding = fields.get("accept-encoding", "identity")
        if coding != "identity":
            fields["accept-encoding"] = encoding.ACCEPT  # what is decoded here, where a body cut short is an error
        if fields.pop("transfer-encoding", None) is not None or body or "content-length" in fields:
            fields["content-length"] = str(len(body))
        started = self._clock.now()
        ends = started + min(deadline, self._deadline)
        return Call(method, target, fields, body, self._clock.now, started, ends, waits.read_timeout, waits=waits)

    def send(self, origin: Origin, call: Call, connections: ConnectionPool | None = None) -> Incoming:
        """Send `call` and return its reply, once the head is there.

        Raises:
            TransportError: there is none.
            ValueError: the request cannot be written down.
        """
        pool = (self.connections if connections is None else connections).host(origin)
        call.fields.setdefault("host", authority(origin))
        try:
            exchange = Exchange(pool, call).begin()
        except TransportError:
            self.record("http_request_duration", call, pool.name, "error")
            raise
        report = _Report(self, call, pool.name, f"{exchange.reply.status // 100}xx")
        return Incoming(exchange, pool.settings.max_body, report)

    def record(self, name: str, call: Call, host: str, status: str = "") -> None:
        """Record the time since `call` began."""
        handle = self._handles.get((name, host, status))
        if handle is None:
            handle = self._handles[name, host, status] = self._new_handle(name, host, status)
        handle.record(call.now() - call.started)

    def _new_handle(self, name: str, host: str, status: str) -> Handle:
        if self._tracker is None:
            from perfkit.metrics import PerformanceTracker

            self._tracker = PerformanceTracker.instance()
        return self._tracker.handle(name, {"host": host, "status": status} if status else {"host": host})


class _Report:
    """What is recorded of one reply; apart from `Incoming`, so that no cycle keeps a forgotten reply alive."""

    __slots__ = ("_call", "_host", "_wire", "status")

    def __init__(self, wire: Wire, call: Call, host: str, status: str) -> None:
        self._wire = wire
        self._call = call
        self._host = host
        self.status = status

    def first_token(self) -> None:
        self._wire.record("first_token", self._call, self._host)

    def ended(self) -> None:
        self._wire.record("http_request_duration", self._call, self._host, self.status)


class Incoming:
    """A reply on its way into another library's response: its head, and its decoded body to iterate over once.

    Closing it early closes the connection at once. Two endings are not early: what follows the end mark of a stream of
    events, and the body of an error that nobody wants to read; there the connection is kept if the rest has come.

    Attributes:
        status: HTTP status.
        reason: words behind it.
        fields: as received, without those of a coding that has been undone.
        reply: http.client's view of it.
    """

    def __init__(self, exchange: Exchange, most: int, report: _Report) -> None:
        stream = HTTPStream(exchange, most, report.ended)
        self.status, self.reason, self.reply = stream.status, stream.reason, exchange.reply
        self.fields = stream.headers.pairs
        if stream.headers.get("content-encoding", "identity") != "identity":
            self.fields = [
                pair for pair in self.fields if pair[0].lower() not in ("content-encoding", "content-length")
            ]
        self._events = stream.headers.get("content-type", "").startswith("text/event-stream")
        self._stream = stream
        self._report = report
        self._finish = stream.status >= 400  # noqa: PLR2004 - the errors begin there

    def __iter__(self) -> Iterator[bytes]:
        pieces = self._watched() if self._events else self._stream.iter_bytes()
        try:
            yield from pieces
        except TransportError:
            self._report.status = "error"
            raise

    def _watched(self) -> Iterator[bytes]:
        tail, silent = b"", True
        for piece in self._stream.iter_bytes():
            seen = tail + piece
            if silent and _FIRST_TOKEN(seen):
                silent = False
                self._report.first_token()
            tail = seen[-_TAIL:]
            self._finish = tail.rstrip().endswith(_END_MARKS)
            yield piece

    def close(self) -> None:
        """Let go of the connection; safe to call twice."""
        if self._finish:
            self._stream.finish()
        else:
            self._stream.close()
