"""The pool of one host: urllib3's connection pool with a fair queue, ages, counts and a life after fork.

A connection is handed out only if it has not been idle too long, is not too old, and nothing has arrived on it since
its last reply. Both kinds of callers take connections here: `Exchange`, and users of a urllib3 handle
(`ConnectionPool.get_connection`), whose `urlopen` calls `_get_conn` and `_put_conn`.
"""

from __future__ import annotations

import threading
import weakref
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING, Any

from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import EmptyPoolError
from urllib3.util import Timeout

from perfkit import _process
from perfkit.errors import PoolTimeout
from perfkit.metrics.operations import operations
from perfkit.transport import proxies, tls
from perfkit.transport.connection import PooledConnection, PooledTLSConnection
from perfkit.transport.dial import SOCKET_OPTIONS
from perfkit.transport.limits import Limits
from perfkit.transport.message import USER_AGENT
from perfkit.transport.slots import FairLifo, Slot
from perfkit.transport.tally import Tally

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from perfkit._settings import ConnectionsSettings
    from perfkit.clock import Clock
    from perfkit.transport.origin import Origin
    from perfkit.transport.proxies import Proxy

__all__ = ["HTTPHost", "HTTPSHost", "HostPool", "host_pool"]

_LEAST_DRAIN, _LONGEST_DRAIN = 0.025, 0.05  # seconds; a server that is near may be busy
_NOTABLE = 0.001  # seconds of waiting for a connection that slow runs are told of
_LONGEST_OWED = 1.0  # seconds an idle connection may owe the end of its last reply
_NEVER = (lambda: None), 0  # what a thread that has taken no connection has taken


class HostPool(HTTPConnectionPool):
    """Connections to one host.

    Args:
        settings: those that hold for this host.
        clock: for ages and deadlines.
        name: host and port, as the user knows them.
        prefix: put before the path, "http://host:port" behind a forwarding proxy.
        options: for urllib3's pool.
    """

    QueueCls = FairLifo  # type: ignore[assignment]  # has all that urllib3 uses of a queue
    ConnectionCls = PooledConnection
    pool: FairLifo  # type: ignore[assignment]

    def __init__(
        self, host: str, port: int, *, settings: ConnectionsSettings, clock: Clock, name: str, **options: Any
    ) -> None:
        self.settings = settings
        self.name = name
        self.prefix: str = options.pop("prefix", "")
        self.provider = ""
        self.generation = 0
        self._now = clock.now
        self._retired = False
        super().__init__(
            host,
            port,
            maxsize=settings.maxsize,
            block=True,
            timeout=Timeout(connect=settings.connect_timeout, read=settings.read_timeout),
            headers={"user-agent": USER_AGENT},
            socket_options=SOCKET_OPTIONS,
            **options,
        )
        self._tally = Tally()
        self._lent = threading.local()  # what each thread last took for a urllib3 handle
        self._alive: weakref.WeakSet[PooledConnection] = weakref.WeakSet()
        _process.bind(self)

    def _after_fork(self) -> None:
        self.generation += 1
        for connection in list(self._alive):
            connection.abandon()
        self._alive = weakref.WeakSet()
        self._tally.clear()
        self.pool.clear()

    def take(self, seconds: float) -> PooledConnection:
        """Take a connection, perhaps not yet open, waiting `seconds` at most.

        Raises:
            PoolTimeout: none became free.
        """
        _process.check()
        _process.deferred.run()  # a forgotten stream may have the slot
        began = self._now()
        try:
            held: PooledConnection | Slot = self.pool.get(timeout=seconds)
        except Empty:
            raise PoolTimeout(self._crowded(seconds)) from None
        now = self._now()
        try:
            connection = self._new_conn(held) if isinstance(held, Slot) else self._renewed(held, now)
            connection.generation = self.generation
            connection.lease += 1
            self._tally.handed_out(now - began, reused=connection.sock is not None)
            if now - began > _NOTABLE:
                operations.waited("connection", self.name, began, now)
        except BaseException:  # whatever it is, the slot is free again, and not only when the traceback is gone
            self.pool.put(held if isinstance(held, Slot) else held.slot)
            if not isinstance(held, Slot):
                held.close()
            raise
        return connection

    def _renewed(self, connection: PooledConnection, now: float) -> PooledConnection:
        if unfit := self._unfit(connection, now, min(max(connection.round_trip, _LEAST_DRAIN), _LONGEST_DRAIN)):
            connection.close()
            self._tally.add(unfit)
            self._tally.add("reconnected")
        return connection

    def _get_conn(self, timeout: float | None = None) -> PooledConnection:
        try:
            connection = self.take(self.settings.timeout if timeout is None else timeout)
        except PoolTimeout as error:
            raise EmptyPoolError(self, str(error)) from error
        self._lent.last = weakref.ref(connection), connection.lease
        return connection

    def _crowded(self, seconds: float) -> str:
        in_use, _, waiting = self.pool.counts()
        return (
            f"no free connection to {self.name} within {seconds:.3g} s: {in_use} of {self.settings.maxsize} in use, "
            f"{waiting} more waiting; raise connections.maxsize, or close streams that are no longer read"
        )

    def _unfit(self, connection: PooledConnection, now: float, wait: float) -> str:
        """Return why an idle connection is not to be used, "" when it is good; `wait` for the end of its last reply."""
        if now - connection.idle_since > min(self.settings.keep_alive, connection.idle_most):
            return "closed_idle"
        if now - connection.born > self.settings.max_lifetime * connection.lifespan:
            return "closed_old"
        if connection.rest is not None and not connection.drain(wait):
            return "closed_by_peer" if wait or now - connection.idle_since > _LONGEST_OWED else ""
        return "" if connection.is_connected else "closed_by_peer"

    def _new_conn(self, slot: Slot | None = None) -> PooledConnection:
        connection: PooledConnection = super()._new_conn()  # type: ignore[assignment]
        connection.slot = slot
        connection.now, connection.limits = self._now, Limits(self._now)
        connection.tally = self._tally
        self._alive.add(connection)
        return connection

    def open(self, connection: PooledConnection, seconds: float | None = None) -> None:
        """Connect: name, TCP, tunnel and TLS together within `seconds` and the time of the call.

        Args:
            connection: one of this pool's, closed.
            seconds: None for `connect_timeout`.

        Raises:
            urllib3.exceptions.HTTPError, OSError: it failed; nothing of a request has been sent.
        """
        _process.background.ensure()
        limits = connection.limits
        of_call = limits.deadline, limits.silence
        connection.timeout = limits.silence = limits.wait(self.settings.connect_timeout if seconds is None else seconds)
        limits.deadline = limits.now() + connection.timeout
        try:
            if self.proxy is not None and not self.prefix:
                self._prepare_proxy(connection)
            else:
                connection.connect()
        finally:
            limits.deadline, limits.silence = of_call

    def reopen(self, connection: PooledConnection, seconds: float | None = None) -> None:
        """Connect anew after a reused connection turned out to be dead."""
        connection.close()
        self.open(connection, seconds)
        self._tally.add("reconnected")

    def give(self, connection: PooledConnection, *, keep: bool = True) -> None:
        """Put back a connection, open or closed, or without `keep` its slot alone; never blocks."""
        if connection.generation != self.generation:  # taken before a fork: its slot is the parent's
            connection.close()
            return
        connection.lease += 1
        connection.limits.deadline = None
        connection.idle_since = self._now()
        if self._retired:
            connection.close()
        self.pool.put(connection if keep and connection.sock is not None else connection.slot)

    def _make_request(self, conn: Any, *arguments: Any, **options: Any) -> Any:
        """Add to a urllib3 handle's request what urllib3 lacks: `Timeout(total=)` that holds, and replies to forget."""
        timeout = options.get("timeout")
        if isinstance(timeout, Timeout) and isinstance(timeout.total, int | float):
            conn.limits.arm(self._now, self._now() + timeout.total, self.settings.read_timeout)
        reply = super()._make_request(conn, *arguments, **options)
        if options.get("response_conn") is not None:  # the reply is read later, or never
            _process.deferred.when_gone(reply, partial(self._forgotten, conn, conn.lease))
        return reply

    def _forgotten(self, connection: PooledConnection | None, lease: int) -> None:
        if connection is not None and connection.lease == lease:
            connection.hang_up()
            self.give(connection)

    def _put_conn(self, conn: Any) -> None:
        if conn is None:  # urllib3 has closed and forgotten the one this thread took
            reference, lease = getattr(self._lent, "last", _NEVER)
            self._forgotten(reference(), lease)
        else:
            self.give(conn)

    def sweep(self) -> int:
        """Close idle connections that would not be handed out any more, or are more than `max_idle`; return how many.

        They are looked at under the queue's lock, so that nobody takes one meanwhile; looking never waits.
        """
        now, most = self._now(), self.settings.max_idle
        closed = self._close_idle(lambda connection: bool(self._unfit(connection, now, 0.0)))
        surplus = 0 if most is None else self.pool.counts()[1] - most
        return closed + (self._close_longest_idle(surplus) if surplus > 0 else 0)

    def _close_longest_idle(self, number: int) -> int:
        left = iter(range(number))  # the queue shows the longest idle first
        return self._close_idle(lambda _: next(left, None) is not None)

    def _close_idle(self, unwanted: Callable[[PooledConnection], bool]) -> int:
        closed = self.pool.remove(unwanted)
        for connection in closed:
            connection.close()
        self._tally.add("closed_idle", len(closed))
        return len(closed)

    def close(self) -> None:
        """Close what is idle now, and what is in use when it comes back; the pool itself keeps working."""
        self._retired = True
        self._close_idle(lambda _: True)

    def stats(self) -> dict[str, float]:
        """Return counts since the process began (or forked) and the present state; times in seconds."""
        in_use, idle, waiters = self.pool.counts()
        return {
            **{name: self._tally.count(name) for name in ("created", "reused", "reconnected")},
            "in_use": in_use,
            "idle": idle,
            "waiters": waiters,
            "wait_p95": self._tally.wait_p95(),
            "closed_idle": self._tally.count("closed_idle"),
            "odd": self._tally.count("odd"),
        }

    def __repr__(self) -> str:
        in_use, idle, waiting = self.pool.counts()
        provider = f"{self.provider} at " if self.provider else ""
        return f"{type(self).__name__}({provider}{self.name}: {in_use} in use, {idle} idle, {waiting} waiting)"


class HTTPHost(HostPool):
    """Connections without TLS."""


class HTTPSHost(HostPool, HTTPSConnectionPool):  # type: ignore[misc]  # narrower types than urllib3's
    """Connections over TLS, all with the process's one context."""

    ConnectionCls = PooledTLSConnection


def host_pool(
    origin: Origin, settings: ConnectionsSettings, clock: Clock, ssl_context: ssl.SSLContext | None = None
) -> HostPool:
    """Return a new pool for `origin`, through a proxy where settings or environment ask for one.

    Args:
        origin: scheme, host and port.
        settings: those of this host.
        clock: for ages and deadlines.
        ssl_context: None for the process's.

    Raises:
        ConfigError: the proxy or the CA file cannot be used.
    """
    scheme, host, port = origin
    shown = f"[{host}]" if ":" in host else host
    options: dict[str, Any] = {"settings": settings, "clock": clock, "name": f"{shown}:{port}"}
    proxy: Proxy | None = proxies.proxy_for(origin, settings.proxy)
    if scheme == "https" or (proxy is not None and proxy.url.scheme == "https"):
        options["ssl_context"] = tls.context(settings.ca_file) if ssl_context is None else ssl_context
    if proxy is not None:
        options |= proxy.options(options.get("ssl_context"))
        if scheme == "http":  # the proxy forwards: it is the one connected to, and asked for the whole URL
            options["prefix"] = f"http://{shown}:{port}"
            scheme, host, port = proxy.origin
    return (HTTPSHost if scheme == "https" else HTTPHost)(host, port, **options)
