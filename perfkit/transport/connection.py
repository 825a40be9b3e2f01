"""One connection: urllib3's, with bounded waiting, one send for head and body, and a memory of its own age.

urllib3 keeps all it knows about proxies, tunnels and TLS; what is replaced is dialling (`dial`), reading (`Reply` under
`Limits`) and the question whether an idle connection is still good.
"""

from __future__ import annotations

import math
import os
import random
import select
import socket
import ssl
from contextlib import suppress
from http.client import HTTPException, RemoteDisconnected
from typing import TYPE_CHECKING, Any

from urllib3._base_connection import _ResponseOptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.request import SKIP_HEADER

from perfkit._process.forks import undivided
from perfkit.transport import kernel, message, tls
from perfkit.transport.dial import dial
from perfkit.transport.failures import FAILURES
from perfkit.transport.limits import BUFFER, BoundedReader, Limits
from perfkit.transport.origin import authority
from perfkit.transport.reply import Reply, WholeReply, parse_head, whole_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perfkit.transport.slots import Slot
    from perfkit.transport.tally import Tally

__all__ = ["PooledConnection", "PooledTLSConnection"]

_IDLE, _SENT = "Idle", "Request-sent"  # http.client's words for the state of a connection
_HTTPS_PORT = 443
_ONE_SEND = 64 * 1024  # bytes; above, copying the body behind the head costs more than a second send
_PIECE = 256 * 1024  # bytes
_STATUS_BEGINS, _STATUS_ENDS, _REFUSAL = 9, 12, b"300"  # of "HTTP/1.1 429 ..."
_BARELY = 0.001  # seconds, to read what is there
_ROUND_TRIPS, _LEAST_WAIT, _MOST_WAIT = 2.0, 0.025, 1.0  # seconds, for a reset that is under way
_ALERTED = "UNEXPECTED_EOF_WHILE_READING"  # to which OpenSSL sends an alert, and that may be what is reset
_MOST_DRAINED = 16  # reads; what follows an end mark is the end of the stream or nothing
_JITTER = 0.1  # of the lifetime: connections opened together do not all end together


class PooledConnection(HTTPConnection):
    """A connection of a `HostPool`.

    Attributes:
        slot: of the pool's queue; free again when this is collected, if it was not given back.
        now: the pool's clock, for ages.
        limits: what the present call may spend.
        tally: the pool's counts.
        generation: of the pool when the connection was handed out; a connection taken before a fork is of an older one.
        lease: counts hand-outs and returns, so that a late finalizer knows whether it still has the connection.
        born: clock time it was connected.
        lifespan: share of the pool's longest lifetime this connection gets.
        idle_since: clock time it was last put back.
        round_trip: seconds the network took to connect.
        rest: a reply whose reader has left at its end mark; what follows is read before the connection is used again.
        idle_most: seconds the peer will keep it open when idle, as announced.
    """

    slot: Slot | None = None
    now: Callable[[], float]
    limits: Limits
    tally: Tally
    generation = 0
    lease = 0
    born = 0.0
    lifespan = 1.0
    idle_since = 0.0
    round_trip = 0.0
    rest: Reply | None = None
    refused: bool = False  # the reply came before all of the request was sent: nothing can follow it
    _acknowledged = b""  # how much the peer had taken when the connection was found to be good
    _early = b""  # of a reply that has come while the request was sent
    _emptied = False  # the last reply came whole in a receive that had room for all of its last TLS record
    idle_most = math.inf

    def connect(self) -> None:
        """Connect, through a tunnel and TLS as needed; a proxy's tickets come with its answer to CONNECT."""
        self.rest, self.refused, self._early, self._acknowledged = None, False, b"", b""
        self.limits.tickets = self.proxy is not None and self.proxy.scheme == "https"
        super().connect()
        self.limits.tickets = isinstance(self.sock, tls.Socket)
        if isinstance(self.sock, ssl.SSLSocket):
            vars(self.sock)["suppress_ragged_eofs"] = False  # an end without close_notify is a cut, not an end
        self.born = self.now()
        self.lifespan = 1.0 - _JITTER * random.random()
        self.idle_most = math.inf
        self.tally.add("created")

    def announce(self, seconds: float) -> None:
        """Note for how long the peer keeps the connection open (`Keep-Alive: timeout=`), less the time of a request."""
        self.idle_most = max(seconds - 1.0, seconds / 2.0)

    def response_class(  # type: ignore[override]  # http.client calls it like the class it usually is
        self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> Reply:
        """Return the reply http.client will read: for proxies' answers to CONNECT and for urllib3 handles."""
        if sock.gettimeout() is None:
            kernel.hand_back(sock)
        self.limits.patience = math.nan
        ahead, self._early = self._early, b""
        return Reply(BoundedReader(sock, self.limits, ahead, hold=True), debuglevel, method, url, last=self.refused)

    def request(
        self, method: str, url: str, body: Any = None, headers: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Send the request of a urllib3 handle: in one piece when it is as plain as requests to providers are."""
        head = (
            None if options.get("chunked") or self.proxy is not None else plain_head(self, method, url, body, headers)
        )
        state = vars(self)
        if head is None or state["_HTTPConnection__state"] != _IDLE:
            super().request(method, url, body, headers, **options)
            return
        if self.sock is None:
            self.connect()
        options.pop("chunked", None)
        kept = {"preload_content": True, "decode_content": True, "enforce_content_length": True, **options}
        self._response_options = _ResponseOptions(method, url, **kept)
        state["_method"] = method
        self._emptied, data = False, head + (body or b"")
        sent = self.sock.send(data)  # with the timeout that it has: to turn it into the kernel's costs more than a send
        if sent < len(data):
            self._send(memoryview(data)[sent:], self._most())
        state["_HTTPConnection__state"] = _SENT

    def send(self, data: Any) -> None:
        """Send what http.client writes of a request that is not plain."""
        if self.sock is None or vars(self)["_HTTPConnection__state"] == _IDLE:  # it connects first, or asks a proxy
            super().send(data)
        else:
            self._send(memoryview(data).cast("B"), self._most())

    def _most(self) -> float:
        return self.timeout if isinstance(self.timeout, int | float) else math.inf

    def _new_conn(self) -> socket.socket:
        """Dial within `timeout` seconds for all addresses together; what is left of them is for TLS."""
        seconds = self.timeout if isinstance(self.timeout, int | float) else None
        try:
            sock, self.round_trip = dial((self._dns_host, self.port or 0), seconds, self.now)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection to {self.host} within {self.timeout} s") from error
        except OSError as error:
            raise NewConnectionError(self, f"cannot connect: {error}") from error
        return sock

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open and nothing has come since its last reply."""
        sock = self.sock
        if sock is None:
            return False
        if isinstance(sock, ssl.SSLSocket):
            return (self._emptied or not sock.pending()) and (not self._has_come() or kernel.only_tickets(self._open()))
        return not self._has_come()

    def _has_come(self) -> bool:
        """Return whether something can be read, its end included; asked before each call."""
        self._acknowledged = kernel.at_rest(self.sock)
        return not self._acknowledged and kernel.is_ready(self.sock, select.POLLIN, 0.0) != 0

    def drain(self, seconds: float) -> bool:
        """Read the rest of the reply that is owed; return whether the connection is free for the next.

        Args:
            seconds: how long to wait for it; after that the connection is closed. 0 to read what is there and, if it is
                not the end, to be asked again.
        """
        reply, limits = self.rest, self.limits
        assert reply is not None
        if not seconds and not self._has_rest(reply):
            return False
        self.rest = None
        limits.arm(self.now, self.now() + max(seconds, _BARELY), seconds + _BARELY)
        try:
            ended = _reads_to_its_end(reply)
        except FAILURES:
            ended = False
        finally:
            limits.deadline = None
        if not ended:
            self.close()
        return ended

    def _has_rest(self, reply: Reply) -> bool:
        if self.sock is None or self._has_come():
            return True
        self.limits.arm(self.now, self.now(), 0.0)  # so that looking into the buffer does not receive
        return reply.ends_in_buffer()

    def converse(self, method: str, head: bytes, body: bytes, most: float) -> Reply | WholeReply:
        """Send a request and return its reply, the head read.

        A server may answer and close before it has read the request (429 during a long upload): sending that breaks is
        an error only if there is no reply either.

        Args:
            method: of the request.
            head: its first line and fields, with the empty line.
            body: its body.
            most: seconds one send may take.

        Raises:
            TimeoutError: a wait was too long.
            OSError: the connection failed.
            http.client.HTTPException: the reply is not HTTP.
        """
        broken = None
        try:
            if len(body) < _ONE_SEND:
                self._send(head + body, most)
            else:
                self._send(head, most)
                self._send(body, most)
        except TimeoutError:
            raise
        except OSError as error:
            broken = error
        try:
            return self._receive(method)
        except (OSError, HTTPException):
            if broken is not None:
                raise broken from None
            raise

    def was_unread(self, error: Exception) -> bool:
        """Return whether the peer, whose end was `error`, has not read the request that was sent last."""
        wait = min(max(_ROUND_TRIPS * self.round_trip, _LEAST_WAIT), _MOST_WAIT)
        answered = isinstance(error, ssl.SSLError) and error.reason == _ALERTED
        return kernel.was_unread(self.sock, self._acknowledged, None if answered else wait)

    def _receive(self, method: str) -> Reply | WholeReply:
        """Return the reply: at once when all of it has come, as most do, in the first piece."""
        limits, ahead, self._early = self.limits, self._early, b""
        if not ahead:
            sock = self._open()
            ahead = limits.receive(sock, sock.recv, BUFFER)
        if not ahead:
            raise RemoteDisconnected("closed without a reply")
        limits.heard = True
        end = ahead.find(b"\r\n\r\n") + 4
        head = parse_head(ahead[:end]) if end > 3 else None  # noqa: PLR2004 - find() gave -1
        whole = None if head is None else whole_reply(head, ahead, end, method)
        self._emptied = whole is not None
        if whole is not None:
            whole.will_close |= self.refused
            return whole
        reply = Reply(BoundedReader(self.sock, limits, ahead), 0, method, last=self.refused)
        if head is not None:
            reply.begin_with(head, end)
        else:
            self.tally.add("odd")
            reply.begin()
        return reply

    def _open(self) -> Any:
        """Return the socket, on which the kernel waits from now on.

        Raises:
            OSError: there is none any more.
        """
        sock = self.sock
        if sock is None:
            raise ConnectionAbortedError("closed by another thread")
        if sock.gettimeout() != 0.0:
            kernel.hand_over(sock)
            self.limits.patience = math.nan
            if sock.gettimeout() != 0.0:  # not the standard library's
                self.limits.bound(sock, math.inf)
        return sock

    def _send(self, data: bytes | memoryview, most: float) -> None:
        sock, sent = self._open(), 0
        with suppress(*kernel.NOT_YET):
            sent = sock.send(data[:_PIECE] if len(data) > _PIECE else data)
        if sent < len(data):
            self._send_rest(sock, memoryview(data)[sent:], most)

    def _send_rest(self, sock: Any, rest: memoryview, most: float) -> None:
        """Send what the peer has had no room for, each wait within `most` seconds; not sendall, which is not bounded.

        Raises:
            BrokenPipeError: it has refused the request, and may never read the rest of it.
            TimeoutError: a wait was too long.
        """
        while rest:
            self.limits.bound(sock, most)
            if sock.gettimeout() == 0.0 and not self._has_room(sock, self.limits.wait(most)):
                continue
            with suppress(*kernel.NOT_YET):
                rest = rest[sock.send(rest[:_PIECE]) :]

    def _has_room(self, sock: Any, seconds: float) -> bool:
        """Wait until more can be sent or a reply comes already; return whether more can be sent."""
        undecided = len(self._early) < _STATUS_ENDS
        found = kernel.is_ready(sock, select.POLLOUT | (select.POLLIN if undecided else 0), seconds)
        if not found:
            raise TimeoutError("nobody reads")
        if found & select.POLLIN and undecided:
            self._look_for_refusal(sock)
        return found & ~select.POLLIN != 0

    def _look_for_refusal(self, sock: Any) -> None:
        """Take in what comes while the request is being sent: a reply, TLS's tickets, or the end."""
        try:
            with kernel.not_blocking(sock), undivided():
                came = bytes(sock.recv(BUFFER))
        except kernel.NOT_YET:
            return
        self._early += came
        self.limits.heard = bool(self._early)
        self.refused = self._early[_STATUS_BEGINS:_STATUS_ENDS] >= _REFUSAL
        if self.refused or not came:
            raise BrokenPipeError("the peer ended or refused the request while it was sent")

    def hang_up(self) -> None:
        """Close at once, even if another thread is reading or a forked child has the socket too."""
        if self.sock is not None:
            with suppress(OSError):  # gone already
                socket.socket.shutdown(_bare(self.sock), socket.SHUT_RDWR)  # SSLSocket's own strips the encryption off
        self.close()

    def abandon(self) -> None:
        """Close the inherited descriptor in a forked child, and nothing else.

        No shutdown, no close_notify: they would end the connection of the parent. Nothing is flushed or unlocked
        either, for a thread that does not exist here may hold the lock.
        """
        if self.sock is None:
            return
        sock, self.sock = _bare(self.sock), None
        if isinstance(sock, ssl.SSLSocket):
            vars(sock)["_sslobj"] = None  # it would go on using the number of the descriptor
        descriptor = sock.detach()
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        """Close what an interrupted thread has let fall."""
        sock = vars(self).get("sock")
        if sock is not None:
            sock.close()


def plain_head(
    connection: PooledConnection, method: str, url: str, body: Any, headers: Mapping[str, Any] | None
) -> bytes | None:
    """Return the head of a handle's request, None when http.client should write it."""
    pairs = [] if headers is None else list(headers.items())
    if not (body is None or type(body) is bytes) or not all(type(v) is str and v != SKIP_HEADER for _, v in pairs):
        return None
    given = message.lowered(dict(pairs))
    if len(given) < len(pairs) or "transfer-encoding" in given or len(body or b"") >= _ONE_SEND:
        return None
    scheme = "https" if connection.default_port == _HTTPS_PORT else "http"
    host = authority((scheme, connection.host.strip("[]"), connection.port or connection.default_port))
    fields = {"host": host, "accept-encoding": "identity", "user-agent": message.USER_AGENT, **given}
    if body is not None or method.upper() in message.WITH_BODY:
        fields.setdefault("content-length", str(len(body or b"")))
    return message.head(method, url, fields)


def _reads_to_its_end(reply: Reply) -> bool:
    for _ in range(_MOST_DRAINED):
        if not reply.read1(BUFFER) or reply.length == 0:
            reply.end()
            return reply.clean and not reply.will_close
    return False


class PooledTLSConnection(PooledConnection, HTTPSConnection):
    """The same over TLS."""


def _bare(sock: Any) -> socket.socket:
    """Return the socket itself, also of TLS inside the TLS of a proxy, which urllib3 makes of a socket and a buffer."""
    bare: socket.socket = getattr(sock, "socket", sock)
    return bare
