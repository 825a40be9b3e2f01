"""One request and its reply on one pooled connection: the seam between what is called and what carries it.

Above it (`HTTPClient`, `HTTPStream`) nobody knows of sockets or pools; below it nobody knows of retries or encodings.
It owns the connection from the moment it is taken until the reply is complete (it goes back), or is given up (it is
closed at once, so that a provider stops generating).
"""

from __future__ import annotations

import math
import re
from http.client import HTTPException
from typing import TYPE_CHECKING, Self

from perfkit import _process
from perfkit.errors import NetworkError, TransportError
from perfkit.resilience import cancel
from perfkit.transport import message
from perfkit.transport.failures import CONNECTING, FAILURES, READING, WAITING, explain
from perfkit.transport.limits import BUFFER
from perfkit.transport.reply import Reply, WholeReply
from perfkit.transport.retry import IDEMPOTENT

if TYPE_CHECKING:
    from perfkit.transport.call import Call
    from perfkit.transport.connection import PooledConnection
    from perfkit.transport.hosts import HostPool

__all__ = ["Exchange"]

_IN_A_MOMENT, _AT_ONCE = 0.25, 1.0  # seconds
_ANNOUNCED = re.compile(r"\btimeout\s*=\s*(\d+)", re.IGNORECASE).search


class Exchange:
    """One call on the wire; used by one thread at a time, except for `drop`.

    Args:
        host: pool to take a connection from.
        call: what to send.
    """

    __slots__ = ("__weakref__", "_call", "_held", "_host", "_rest", "_step", "_waits", "complete", "reply")

    reply: Reply | WholeReply

    def __init__(self, host: HostPool, call: Call) -> None:
        self._host = host
        self._call = call
        self._waits = host.settings if call.waits is None else call.waits
        self._held: list[PooledConnection] = []  # one or none; whoever pops it lets go of it, and only once
        self._rest = b""  # of a reply that came whole, and whose connection has gone back already
        self._step = CONNECTING
        self.complete = False

    def begin(self) -> Self:
        """Send the request and read the head of the reply.

        Raises:
            PoolTimeout: no connection became free.
            DeadlineExceeded: a wait was too long.
            NetworkError: the connection could not be made or failed.
            ValueError: the request cannot be written down.
        """
        host, call = self._host, self._call
        fields = {**call.fields, **host.proxy_headers} if host.prefix else call.fields
        head = message.head(call.method, host.prefix + call.target, fields)
        connection = self._take()
        self._held.append(connection)
        cancel.watch(self.drop)
        connection.limits.arm(call.now, call.deadline, call.patience)
        try:
            self.reply = self._converse(connection, head)
            self._step = READING
            if isinstance(self.reply, WholeReply):
                self._rest = self.reply.body
                self._finish()
            else:
                connection.limits.silence = self._waits.read_timeout
        except FAILURES as error:
            self.drop()
            raise explain(error, call, host.name, self._step) from error
        except BaseException:
            self.drop()
            raise
        return self

    def _take(self) -> PooledConnection:
        call, host = self._call, self._host
        left = call.deadline - call.now()
        if left > 0.0:
            try:
                return host.take(min(left, self._waits.timeout))
            except TransportError as error:
                error.__dict__.update(host=host.name, attempt=call.attempt, elapsed=call.now() - call.started)
                raise
        raise explain(TimeoutError(), call, host.name, CONNECTING)

    def _converse(self, connection: PooledConnection, head: bytes) -> Reply | WholeReply:
        call, waits = self._call, self._waits
        reused = connection.sock is not None
        if not reused:
            self._host.open(connection, waits.connect_timeout)
        self._step, began = WAITING, call.now()
        try:
            self._check_wanted(connection)
            return connection.converse(call.method, head, call.body, waits.write_timeout)
        except TimeoutError:
            raise
        except (OSError, HTTPException) as error:
            # A server may close an idle connection just as the request leaves: the one case in which it is sent again.
            # That shows within a round trip, or TCP tells that nobody read it; who dies later may have been at work.
            # Not so after `drop`, by which another thread has given the call up.
            took = call.now() - began
            if not reused or not self._held or connection.limits.heard or took > _AT_ONCE:
                raise
            if took > _IN_A_MOMENT and call.method not in IDEMPOTENT and not connection.was_unread(error):
                raise
        self._host.reopen(connection, waits.connect_timeout)
        self._check_wanted(connection)
        return connection.converse(call.method, head, call.body, waits.write_timeout)

    def _check_wanted(self, connection: PooledConnection) -> None:
        """Send nothing for a call that another thread has dropped: it would reach a provider that nobody listens to."""
        if not self._held:
            connection.close()
            raise ConnectionAbortedError("dropped by another thread")

    def read1(self) -> bytes:
        """Return what has arrived of the body, waiting for at least one byte; b"" at its end.

        Raises:
            DeadlineExceeded: a wait was too long.
            NetworkError: the reply broke off.
        """
        if not self._held:
            return self._after_end()
        reply = self.reply
        assert isinstance(reply, Reply)
        try:
            data = reply.read1(BUFFER)
        except FAILURES as error:
            raise self.unreadable(error) from error
        except BaseException:  # interrupted in the middle: nobody knows where the next byte belongs
            self.drop()
            raise
        if not data or reply.length == 0:
            self._finish()
        return data

    def read(self, most: int) -> bytes:
        """Return the whole body.

        Raises:
            DeadlineExceeded: a wait was too long.
            NetworkError: the reply broke off, or has more than `most` bytes.
        """
        if not self._held:
            return self._after_end(most)
        reply = self.reply
        assert isinstance(reply, Reply)
        if reply.length is None:
            return self._read_pieces(most)
        if reply.length > most:
            raise self.unreadable(_too_large(most))
        try:
            data = reply.read()
        except FAILURES as error:
            raise self.unreadable(error) from error
        except BaseException:  # interrupted in the middle: nobody knows where the next byte belongs
            self.drop()
            raise
        self._finish()
        return data

    def _read_pieces(self, most: int) -> bytes:
        pieces, size = [], 0
        while piece := self.read1():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise self.unreadable(_too_large(most))
        return b"".join(pieces)

    def _after_end(self, most: float = math.inf) -> bytes:
        if not self.complete:
            raise NetworkError(f"the reply of {self._host.name} was closed before its end", host=self._host.name)
        rest, self._rest = self._rest, b""
        if len(rest) > most:
            raise self.unreadable(_too_large(most))
        return rest

    def unreadable(self, error: Exception) -> TransportError:
        """Drop the connection and return the error to raise for a body that cannot be used."""
        self.drop()
        return explain(error, self._call, self._host.name, self._step)

    def _finish(self) -> None:
        """Give the connection back after the last byte, or close it if the reply said so."""
        reply, connection = self.reply, self._let_go()
        if connection is None:  # dropped by another thread
            return
        self.complete, reusable = True, False
        try:
            reply.end()
            if (kept := reply.fields.get("keep-alive")) is not None and (announced := _ANNOUNCED(kept)) is not None:
                connection.announce(float(announced[1]))
            reusable = reply.clean and not reply.will_close
        finally:
            if not reusable:
                connection.close()
            self._host.give(connection)

    def extend(self, timeout: float) -> None:
        """Let the call last `timeout` seconds from its start."""
        self._call.deadline = self._call.started + timeout
        for connection in self._held:
            connection.limits.deadline = self._call.deadline

    def leave(self) -> None:
        """Give the connection back although the end of the reply is still to come: it is read before the next call."""
        connection = self._let_go()
        if connection is None:
            return
        _process.check()  # as in `drop`
        assert isinstance(self.reply, Reply)
        connection.rest = self.reply
        connection.drain(0.0)
        self._host.give(connection)

    def _let_go(self) -> PooledConnection | None:
        try:
            return self._held.pop()
        except IndexError:
            return None

    def drop(self) -> None:
        """Close the connection at once, if it is still this exchange's, and return its slot; from any thread."""
        connection = self._let_go()
        if connection is not None:
            _process.check()  # in a forked child the connection is the parent's, and has been let go of by this
            connection.hang_up()
            self._host.give(connection, keep=False)


def _too_large(most: float) -> ValueError:
    return ValueError(f"the body has more than {most} bytes (connections.max_body)")
