"""HTTPClient: calls to one base URL, over the shared connections."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import TransportError
from perfkit.transport import message, retry
from perfkit.transport.call import Call, prepare, usual_fields
from perfkit.transport.exchange import Exchange
from perfkit.transport.origin import authority, split_url
from perfkit.transport.pool import ConnectionPool
from perfkit.transport.response import HTTPResponse, read_whole
from perfkit.transport.stream import HTTPStream
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from perfkit.clock import Clock
    from perfkit.metrics import Handle, PerformanceTracker
    from perfkit.transport.hosts import HostPool

    T = TypeVar("T")

__all__ = ["HTTPClient"]

log = logging.getLogger("perfkit.transport")


class HTTPClient:
    """Calls to one base URL over pooled keep-alive connections; safe in threads and after fork.

    Replies of any status are returned; only what comes back broken or not at all is raised. `timeout` is the time of
    the whole call: waiting for a connection, connecting, sending, the reply to its last byte, and all retries.

    Args:
        base_url: put before each path, for example "https://api.openai.com/v1".
        timeout: seconds for a call that gives none.
        retries: further tries after a transport error, for requests the server cannot have begun or may begin twice.
        compress_requests: send bodies over 1000 bytes as gzip; the server must accept that.
        headers: sent with every request.
        connections: None for `perfkit.connections`.
        tracker: where `http_request_duration` is recorded; None for `perfkit.tracker`.
        clock: time, for deadlines and pauses.

    Raises:
        ConfigError: `base_url` is not an http or https URL.
        ValueError: a header name is illegal or `timeout` is not above 0.
    """

    def __init__(  # noqa: PLR0913 - the public API
        self,
        base_url: str,
        timeout: float = 30.0,
        retries: int = 3,
        compress_requests: bool = False,
        *,
        headers: Mapping[str, str] | None = None,
        connections: ConnectionPool | None = None,
        tracker: PerformanceTracker | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = finite("timeout", timeout, above=0)
        self.retries = retries
        self.compress_requests = compress_requests
        self._origin, prefix = split_url(self.base_url)
        self._prefix = prefix.rstrip("/")
        self._name = authority(self._origin)
        self._fields = usual_fields(self._origin, headers)
        self._connections = connections
        self._tracker = tracker
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._handles: dict[str, Handle] = {}
        self._verbose = _verbose()

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, timeout: float | None = None) -> HTTPResponse:
        """Return the reply to GET `path`; see `request`."""
        return self.request("GET", path, None, headers, timeout=timeout)

    def post(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> HTTPResponse:
        """Return the reply to POST `path`; see `request`."""
        return self.request("POST", path, body, headers, timeout=timeout)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> HTTPResponse:
        """Send a request and return the whole reply.

        Args:
            method: any method.
            path: put behind the base URL.
            body: bytes, text or anything JSON-able; sent as application/json unless a header says otherwise.
            headers: sent with this request, over those of the client.
            timeout: seconds for the whole call, retries included; a call without its own takes that of the client,
                and the reply must then begin within `connections.read_timeout`.

        Raises:
            ValueError, TypeError: the request cannot be written down.
            NetworkError: refused, reset, cut off, not trusted or not HTTP; `sent` says whether it may have arrived.
            PoolTimeout: no connection became free.
            DeadlineExceeded: the time ran out.
        """
        call = self._call(method, path, body, headers, timeout)
        try:
            return self._whole(call)
        except TransportError as error:
            return self._again(error, call, self._whole)

    def stream(
        self,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
        method: str = "POST",
    ) -> HTTPStream:
        """Send a request and return its reply as a stream, once the head is there.

        Args:
            path: as for `request`, like all others.
            body: what to send.
            headers: over those of the client; unless they ask for a coding, none is.
            method: any method.
            timeout: seconds for all of the stream.

        Raises:
            TransportError: as for `request`.
        """
        call = self._call(method, path, body, {"accept-encoding": "identity", **(headers or {})}, timeout)
        try:
            return self._opened(call)
        except TransportError as error:
            return self._again(error, call, self._opened)

    def _call(
        self, method: str, path: str, body: Any, headers: Mapping[str, str] | None, timeout: float | None
    ) -> Call:
        fields = self._fields.copy()
        if headers is not None:
            fields.update(message.lowered(headers))
        call = prepare(
            method,
            self._prefix + path if path.startswith(("/", "?")) or not path else f"{self._prefix}/{path}",
            fields,
            body,
            now=self._clock.now,
            timeout=self.timeout if timeout is None else timeout,
            patience=self._pool().settings.read_timeout if timeout is None else None,
            compress=self.compress_requests,
        )
        if self._verbose:
            log.info("%s %s %s", call.method, self._shown(call), message.masked(fields))
        return call

    def _pool(self) -> HostPool:
        if self._connections is None:
            self._connections = ConnectionPool.instance()
        return self._connections.host(self._origin)

    def _again(self, error: TransportError, call: Call, send: Callable[[Call], T]) -> T:
        try:
            if self.retries < 1 or not retry.worth_another_try(error, call.method):
                raise error
            return retry.persist(lambda: send(call), error, call, self.retries, self._clock)
        except TransportError:
            self._record("error", call)
            raise

    def _whole(self, call: Call) -> HTTPResponse:
        pool = self._pool()
        response = read_whole(Exchange(pool, call).begin(), pool.settings.max_body)
        self._note(call, response)
        self._record(f"{response.status // 100}xx", call)
        return response

    def _opened(self, call: Call) -> HTTPStream:
        pool = self._pool()
        exchange = Exchange(pool, call).begin()
        status = f"{exchange.reply.status // 100}xx"
        stream = HTTPStream(exchange, pool.settings.max_body, lambda: self._record(status, call))
        self._note(call, stream)
        return stream

    def _note(self, call: Call, reply: HTTPResponse | HTTPStream) -> None:
        if self._verbose:
            log.info("%s %s -> %r", call.method, self._shown(call), reply)

    def _shown(self, call: Call) -> str:
        return self._name + call.target.partition("?")[0]  # some providers take their key in the query

    def _record(self, status: str, call: Call) -> None:
        handle = self._handles.get(status)
        if handle is None:
            handle = self._handles[status] = self._new_handle(status)
        handle.record(call.now() - call.started)

    def _new_handle(self, status: str) -> Handle:
        if self._tracker is None:
            from perfkit.metrics import PerformanceTracker

            self._tracker = PerformanceTracker.instance()
        return self._tracker.handle("http_request_duration", {"host": self._name, "status": status})

    def __repr__(self) -> str:
        return f"HTTPClient({self.base_url}, timeout={self.timeout:g}, retries={self.retries})"


def _verbose() -> bool:
    """Return whether HTTP_DEBUG=1 asks for a log of requests and replies, and make sure that it is seen somewhere."""
    if os.environ.get("HTTP_DEBUG") != "1":
        return False
    log.setLevel(logging.INFO)
    if not log.hasHandlers():
        log.addHandler(logging.StreamHandler())
    return True
