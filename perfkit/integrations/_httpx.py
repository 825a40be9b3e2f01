"""A transport for httpx and its successor httpx2, made for whichever of the two a library is built on.

Both have the same interface and different classes, and clients check for theirs: requests fail with the exceptions of
that module, so that the retries of an SDK work as with its own client.
"""

from __future__ import annotations

import functools
import math
import ssl
import sys
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from perfkit.errors import ConfigError, DeadlineExceeded, PoolTimeout, TransportError
from perfkit.integrations._cookies import RememberingJar
from perfkit.integrations._extra import load_extra
from perfkit.integrations._wire import Wire
from perfkit.transport.call import Waits
from perfkit.transport.encoding import CodingError
from perfkit.transport.headers import by_name
from perfkit.transport.origin import PORTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import httpx2

    from perfkit.integrations._wire import Incoming
    from perfkit.metrics import PerformanceTracker
    from perfkit.transport import ConnectionPool

__all__ = ["client_of_sdk", "make_client", "module_of"]

_URLS = 256
_OF_THE_POOL = {
    "verify": "ca_file",
    "proxy": "proxy",
    "limits": "maxsize",
    "cert": "ConnectionPool(ssl_context=...)",
    "http1": "HTTP/1.1, always",
    "http2": "HTTP/1.1, always",
    "transport": "ConnectionPool",
    "mounts": "ConnectionPool",
}


def module_of(sdk: str) -> ModuleType:
    """Return the module that the client classes of an SDK come from: httpx2, or httpx in older ones.

    Raises:
        ConfigError: the SDK is not installed.
    """
    client = load_extra(f"{sdk}:DefaultHttpxClient", sdk)
    name = next(base.__module__.partition(".")[0] for base in client.__mro__ if base.__name__ == "Client")
    return sys.modules[name]


def client_of_sdk(
    sdk: str,
    *,
    deadline: float | None = None,
    connections: ConnectionPool | None = None,
    tracker: PerformanceTracker | None = None,
    **options: Any,
) -> httpx2.Client:
    """Return what an SDK takes as `http_client=`; it keeps its interface, exceptions, retries and timeouts.

    Args:
        sdk: name of its package and of the extra that installs it.
        deadline: seconds for each try, from asking for a connection to the last byte of the reply or stream; None for
            none: the SDK's timeouts begin anew with each byte.
        connections: None for `perfkit.connections`; closing the SDK's client leaves it open.
        tracker: where `http_request_duration` and `first_token` are recorded; None for `perfkit.tracker`.
        **options: further ones of `httpx2.Client`, such as `timeout`, which the SDK takes as its own default.

    Raises:
        ConfigError: the SDK is not installed, or an option is the pool's business.
        ValueError: `deadline` is not above 0.
    """
    wire = Wire(deadline=deadline, connections=connections, tracker=tracker)
    client: httpx2.Client = make_client(module_of(sdk), wire, options)
    return client


def make_client(module: Any, wire: Wire, options: dict[str, Any]) -> Any:
    """Return a client of `module` whose requests go through `wire`.

    Raises:
        ConfigError: an option is one that only the transport it replaces would obey.
    """
    for name in options.keys() & _OF_THE_POOL.keys():
        raise ConfigError(
            f"http_client({name}=...) has no effect here: it is the pool's ({_OF_THE_POOL[name]})", key=name
        )
    usual = {"follow_redirects": True, "cookies": RememberingJar()}
    return _client(module)(transport=_transport(module)(wire), **{**usual, **options})


@functools.cache
def _client(module: Any) -> type[Any]:
    """Return the client class of `module` with a memory for the URLs SDKs pass again and again as text."""
    parsed = functools.lru_cache(_URLS)(module.URL)

    def build_request(self: Any, method: str, url: Any, **parts: Any) -> Any:
        return module.Client.build_request(self, method, parsed(url) if isinstance(url, str) else url, **parts)

    return type("PooledClient", (module.Client,), {"build_request": build_request})


@functools.cache
def _transport(module: Any) -> type[Any]:
    body = type("PooledBody", (_Body, module.SyncByteStream), {"module": module})
    return type("PooledTransport", (_Transport, module.BaseTransport), {"module": module, "body": body})


class _Transport:
    """`module.BaseTransport` over a wire."""

    module: Any
    body: Any

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def handle_request(self, request: Any) -> Any:
        """Send `request` and return the response, its body unread.

        Raises:
            module.TransportError: of the kind that httpx's own transport would raise.
        """
        module, url, wire = self.module, request.url, self._wire
        if url.scheme not in PORTS:
            what = f"has an unsupported protocol '{url.scheme}://'" if url.scheme else "is missing http:// or https://"
            raise module.UnsupportedProtocol(f"Request URL {what}.", request=request)
        if "sni_hostname" in request.extensions:
            raise ConfigError(
                "the extension sni_hostname has no effect here: names are those of URLs", key="sni_hostname"
            )
        origin = url.scheme, url.raw_host.decode("ascii"), url.port or PORTS[url.scheme]
        fields = _fields(request.headers.raw)
        waits = _waits(request.extensions.get("timeout", {}))
        call = wire.call(request.method, url.raw_path.decode("ascii"), fields, request.read(), waits=waits)
        try:
            incoming = wire.send(origin, call)
        except TransportError as error:
            raise translated(error, module, request) from error
        except ConfigError:
            raise
        except ValueError as error:
            raise module.LocalProtocolError(str(error), request=request) from error
        return self._response(incoming, request)

    def _response(self, incoming: Incoming, request: Any) -> Any:
        response = self.module.Response(
            incoming.status,
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in incoming.fields],
            stream=self.body(incoming, request),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": incoming.reason.encode("latin-1")},
        )
        if all(value.isascii() for _, value in incoming.fields):
            response.headers.encoding = "ascii"  # which it finds out by decoding everything when it is not told
        return response

    def close(self) -> None:
        """Leave the connections to the pool, which others use too."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._wire.connections!r})"


class _Body:
    """`module.SyncByteStream` of a reply."""

    module: Any

    def __init__(self, incoming: Incoming, request: Any) -> None:
        self._incoming = incoming
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._incoming
        except TransportError as error:
            raise translated(error, self.module, self._request) from error

    def close(self) -> None:
        """Let go of the connection."""
        self._incoming.close()


def _fields(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    fields = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(fields) == len(raw):
        return fields
    return by_name([(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw])


def _waits(given: dict[str, float | None]) -> Waits:
    waits = (given.get(name) for name in ("pool", "connect", "read", "write"))
    return Waits(*(math.inf if seconds is None else seconds for seconds in waits))


def translated(error: TransportError, module: Any, request: Any) -> Exception:
    """Return `error` as the exception `module` has for it."""
    made: Exception = getattr(module, _name_of(error))(str(error), request=request)
    return made


def _name_of(error: TransportError) -> str:
    if isinstance(error, PoolTimeout):
        return "PoolTimeout"
    if isinstance(error, DeadlineExceeded):
        return "ReadTimeout" if error.sent else "ConnectTimeout"
    if not error.sent:
        return "ConnectError"
    cause = error.__cause__
    if isinstance(cause, CodingError):
        return "DecodingError"
    ended = isinstance(cause, HTTPException | ssl.SSLEOFError)  # the peer's end, not a failure of the network
    return "ReadError" if isinstance(cause, OSError) and not ended else "RemoteProtocolError"
