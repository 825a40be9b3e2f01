"""One client's connection to the fault server and each request on it: read, answered as scripted, ended and counted."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter, deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from perfkit.testing._behaviours import ok
from perfkit.testing._fault_steps import Cut, dripped, pause, perform, pieces
from perfkit.testing._http1 import read_request

if TYPE_CHECKING:
    import ssl

    from perfkit.testing._behaviours import Behaviour
    from perfkit.testing._http1 import Reply, Request
    from perfkit.testing._upstream import Upstream

__all__ = ["Connection", "Counts", "Host"]

RECENT = 200  # requests kept word for word
OK = ok()
TLS_GOODBYE = 0.2  # seconds given to the client to answer close_notify
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close() sends RST


@dataclass(slots=True)
class Counts:
    """What was counted since the start or the last reset."""

    connections: int = 0
    peak_connections: int = 0
    tls_handshakes: int = 0
    tls_resumed: int = 0
    tls_failed: int = 0
    requests: int = 0
    peak_in_flight: int = 0
    completed: int = 0
    aborted_by_client: int = 0
    cut_by_server: int = 0
    paths: Counter[str] = field(default_factory=Counter)
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=RECENT))


class Host(Protocol):
    """What a connection asks of the server it belongs to."""

    latency: float
    connect_latency: float
    tls: ssl.SSLContext | None
    upstream: Upstream | None
    counts: Counts
    open: set[Connection]
    in_flight: int
    held: int
    gate: asyncio.Future[bool]  # the next release: True to go on, False to drop

    def next_behaviour(self, path: str) -> Behaviour | None:
        """Return what is scripted for the next request, None for nothing."""
        ...


class Connection(asyncio.StreamReaderProtocol):
    """One accepted connection; serves requests until either side ends it."""

    def __init__(self, host: Host, number: int) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=2**18)
        self._exchange: _Exchange | None = None
        self._serving: asyncio.Task[None] | None = None
        self.number = number
        self.ended = False  # by this side
        super().__init__(self._reader)

    def open(self, sock: socket.socket) -> None:
        """Serve the client at the other end of `sock`."""
        self._opening = self._loop.create_task(self._open(sock))

    async def _open(self, sock: socket.socket) -> None:
        tls = self._host.tls
        try:
            await pause(self._host.connect_latency)
            await self._loop.connect_accepted_socket(
                lambda: self, sock, ssl=tls, ssl_shutdown_timeout=None if tls is None else TLS_GOODBYE
            )
        except (OSError, asyncio.CancelledError):
            self._host.counts.tls_failed += not self.ended
            self._host.open.discard(self)
            sock.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the handshake and start to serve."""
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1)  # drain() means: handed to the kernel; 0 would not resume under TLS
        if (tls := transport.get_extra_info("ssl_object")) is not None:
            self._host.counts.tls_resumed += tls.session_reused
            self._host.counts.tls_handshakes += not tls.session_reused
        self.writer = asyncio.StreamWriter(transport, self, self._reader, self._loop)
        self._serving = self._loop.create_task(self._serve())

    def eof_received(self) -> bool:
        """Take the client's FIN for its leaving: nobody half-closes and waits."""
        super().eof_received()
        self._stop()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._host.open.discard(self)
        self._stop()

    def _stop(self) -> None:
        if self._serving is not None and self._exchange is not None:
            self._serving.cancel()

    def end(self, how: str) -> None:
        """End the connection by "fin" or "rst", whatever it is doing."""
        self.ended = True
        if self._serving is None:
            self._opening.cancel()
            return
        self._stop()
        if how == "rst":
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.writer.transport.abort()
        else:
            self.writer.close()

    async def _serve(self) -> None:
        linger: float | None = None
        how = "fin"
        try:
            while linger != 0 and (request := await self._next(linger)) is not None:
                self._exchange = _Exchange(self._host, self, request)
                linger = await self._exchange.run()
                self._exchange = None
        except Cut as cut:
            how = cut.how
        finally:
            self._exchange = None
            self.end(how)

    async def _next(self, linger: float | None) -> Request | None:
        """Return the next request, None if the client left, idled for `linger` seconds or does not speak HTTP."""
        try:
            async with asyncio.timeout(linger):
                return await read_request(self._reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, OSError):
            return None


class _Exchange:
    """One request and its reply."""

    def __init__(self, host: Host, connection: Connection, request: Request) -> None:
        self._host = host
        self._connection = connection
        self._counts = host.counts  # a reset must not get the ends of what began before it
        self._at_end = ExitStack()
        self.request = request
        self.linger: float | None = None
        self._record = self._begin()
        self.number = self._counts.requests

    def _begin(self) -> dict[str, Any]:
        counts, request = self._counts, self.request
        counts.requests += 1
        counts.paths[request.path] += 1
        self._host.in_flight += 1
        counts.peak_in_flight = max(counts.peak_in_flight, self._host.in_flight)
        record = {
            "method": request.method,
            "path": request.path,
            "query": request.target.partition("?")[2],
            "headers": {name.lower(): value for name, value in request.headers},
            "body": request.body.decode(errors="replace"),
            "connection": self._connection.number,
            "outcome": None,
        }
        counts.recent.append(record)
        return record

    async def run(self) -> float | None:
        """Reply; return for how many idle seconds the connection goes on, 0 for not at all, None for ever.

        Raises:
            Cut: the connection is to end by other means than a FIN after the reply.
        """
        with self._at_end:
            try:
                reply = await self._reply()
                await self._send(reply)
            except Cut:
                self._end("cut_by_server")
                raise
            except (asyncio.CancelledError, OSError):
                self._end("cut_by_server" if self._connection.ended else "aborted_by_client")
            else:
                self._end("completed")
                return 0 if reply.endless or reply.closing or self.request.closing else self.linger
            finally:
                self._host.in_flight -= 1
        return 0

    def _end(self, outcome: str) -> None:
        self._record["outcome"] = outcome
        setattr(self._counts, outcome, getattr(self._counts, outcome) + 1)

    async def _reply(self) -> Reply:
        behaviour = self._host.next_behaviour(self.request.path)
        await pause(self._host.latency)
        return await perform(self, behaviour)

    async def usual(self) -> Reply:
        """Reply as if nothing was scripted."""
        if self._host.upstream is None:
            return await perform(self, OK)
        return await self._host.upstream.forward(self.request, self._at_end.callback)

    async def hold(self, seconds: float | None) -> None:
        """Wait for a release, at most `seconds`; raise `Cut` if it drops the reply."""
        self._host.held += 1
        try:
            done, _ = await asyncio.wait({self._host.gate}, timeout=seconds)
        finally:
            self._host.held -= 1
        if any(not gate.result() for gate in done):
            raise Cut("fin")

    async def _send(self, reply: Reply) -> None:
        writer = self._connection.writer
        async for part in dripped(pieces([reply.head()]), *(reply.head_pace or (2**16, 0.0))):
            writer.write(part)
            await writer.drain()
        async for piece in reply.body:
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if reply.chunked else piece)
                await writer.drain()
        if reply.chunked:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
