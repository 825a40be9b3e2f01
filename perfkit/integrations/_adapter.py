"""The adapter through which a requests session uses the pool."""

from __future__ import annotations

import math
import ssl
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import urllib3
from requests import exceptions
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.util import parse_url

from perfkit._process.forks import undivided
from perfkit.errors import ConfigError, TransportError
from perfkit.integrations._raw import Raw, translated
from perfkit.transport import ConnectionPool
from perfkit.transport.call import Waits
from perfkit.transport.message import lowered
from perfkit.transport.origin import PORTS
from perfkit.transport.tls import new_context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest, Response

    from perfkit._settings import ConnectionsSettings
    from perfkit.integrations._wire import Wire
    from perfkit.transport.hosts import HostPool
    from perfkit.transport.origin import Origin

__all__ = ["PoolAdapter"]


class PoolAdapter(HTTPAdapter):
    """Sends the requests of a session over a wire.

    Args:
        wire: what carries them.
    """

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire
        self._own: dict[tuple[Any, ...], ConnectionPool] = {}  # for what the session asks for and the pool does not do

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: ARG002 - the session reads the body
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Return the response, its body unread.

        Raises:
            requests.RequestException: of the kind that requests' own adapter would raise.
        """
        url, body = request.url or "", _whole(request.body)
        origin, proxy = _origin(url), select_proxy(url, proxies)
        try:
            pool = self._pool(origin, verify, cert, proxy)
            waits, deadline = _waits(timeout, pool.settings)
            fields = lowered({name: _text(value) for name, value in request.headers.items()})
            call = self._wire.call(
                request.method or "GET", request.path_url, fields, body, waits=waits, deadline=deadline
            )
            incoming = self._wire.send(origin, call, pool)
        except TransportError as error:
            raise translated(error, request) from error
        except ConfigError as error:
            if error.key != "connections.proxy":
                raise
            raise exceptions.InvalidProxyURL(str(error), request=request) from error
        except ValueError as error:
            raise exceptions.InvalidHeader(str(error), request=request) from error
        return self.build_response(request, cast("Any", Raw(incoming, request)))

    def _pool(self, origin: Origin, verify: bool | str, cert: Any, proxy: str | None) -> ConnectionPool:
        shared = self._wire.connections
        if origin[0] == "http":
            verify, cert = True, None
        if verify is True and cert is None and _goes_through(shared.host(origin), proxy, shared.settings.proxy):
            return shared
        key = verify, cert, proxy
        if key not in self._own:
            context = None if verify is True and cert is None else _context(verify, cert, shared.settings.ca_file)
            settings = {**asdict(shared.settings), "proxy": proxy if proxy is not None else shared.settings.proxy or ""}
            self._own.setdefault(key, ConnectionPool(ssl_context=context, **settings))
        return self._own[key]

    def close(self) -> None:
        """Close the connections that only this session uses."""
        super().close()
        for pool in list(self._own.values()):
            pool.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._wire.connections!r})"


def _origin(url: str) -> Origin:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    try:
        port = parts.port or PORTS[scheme]
    except (KeyError, ValueError) as error:
        raise exceptions.InvalidURL("a URL must be http(s)://host[:port][/path]") from error
    return scheme, parts.hostname or "", port


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _whole(body: Any) -> bytes:
    if body is None or isinstance(body, bytes | bytearray):
        return bytes(body or b"")
    if hasattr(body, "read"):
        body = body.read()
    if isinstance(body, bytes | str):
        return body.encode() if isinstance(body, str) else body
    return b"".join(piece.encode() if isinstance(piece, str) else piece for piece in body)


def _waits(timeout: Any, settings: ConnectionsSettings) -> tuple[Waits, float]:
    """Return the waits and the deadline that requests' `timeout` means: seconds, a pair, a urllib3.Timeout or None."""
    usual = settings.connect_timeout, settings.read_timeout
    if timeout is None:
        timeout = usual
    if isinstance(timeout, urllib3.Timeout):
        timeout = timeout.clone()
        timeout.start_connect()  # without which it does not tell
        given: Any = (timeout.connect_timeout, timeout.read_timeout)
        total = _seconds(timeout.total, math.inf)
    else:
        given, total = timeout if isinstance(timeout, tuple) else (timeout, timeout), math.inf
    connect, read = map(_seconds, given, usual)
    return Waits(settings.timeout, connect, read, min(read, settings.write_timeout)), total


def _seconds(given: Any, usual: float) -> float:
    """Return a part of a timeout: None is no limit, and what is no number is urllib3's word for the default."""
    if given is None:
        return math.inf
    return given if isinstance(given, int | float) else usual


def _goes_through(host: HostPool, proxy: str | None, configured: str | None) -> bool:
    """Return whether `host` is reached as the session wants."""
    if proxy is None:
        return host.proxy is None or configured is not None
    if host.proxy is None:
        return False
    wanted = parse_url(proxy if "://" in proxy else f"http://{proxy}")
    return (wanted.scheme, wanted.host, wanted.port) == (host.proxy.scheme, host.proxy.host, host.proxy.port)


def _context(verify: bool | str, cert: Any, ca_file: str | None) -> ssl.SSLContext:
    """Return TLS as `verify` and `cert` ask for it; with authorities of its own it trusts those and `ca_file` alone."""
    if isinstance(verify, str):
        path = Path(verify)
        if not path.exists():
            raise OSError(f"Could not find a suitable TLS CA certificate bundle, invalid path: {verify}")
        directory = path.is_dir()
        made = new_context(cafile=None if directory else verify, capath=verify if directory else None)
    else:
        made = new_context()
    with undivided():
        if ca_file is not None:
            made.load_verify_locations(ca_file)
        if cert is not None:
            made.load_cert_chain(*(cert if isinstance(cert, tuple) else (cert,)))
    if verify is False:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made
