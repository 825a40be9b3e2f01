"""Which proxy a host is reached through: the configured one, else what the environment says."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from urllib3.connection import ProxyConfig
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, make_headers, parse_url

from perfkit.errors import ConfigError
from perfkit.transport.origin import PORTS

if TYPE_CHECKING:
    import ssl

    from perfkit.transport.origin import Origin

__all__ = ["Proxy", "proxy_for"]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy to go through.

    Attributes:
        url: its address, without credentials.
        headers: what authenticates to it.
    """

    url: Url
    headers: dict[str, str]

    @property
    def origin(self) -> Origin:
        """Scheme, host and port."""
        scheme = self.url.scheme or "http"
        return scheme, self.url.host or "", self.url.port or PORTS[scheme]

    def options(self, ssl_context: ssl.SSLContext | None) -> dict[str, Any]:
        """Return the arguments of urllib3's pools."""
        return {
            "_proxy": self.url,
            "_proxy_headers": self.headers,
            "_proxy_config": ProxyConfig(ssl_context, False, None, None),  # CONNECT for https, always
        }


def proxy_for(origin: Origin, configured: str | None) -> Proxy | None:
    """Return the proxy for `origin`, None to connect directly.

    Args:
        origin: scheme, host and port to reach.
        configured: a URL; "" for no proxy; None for HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

    Raises:
        ConfigError: the URL is not that of an HTTP proxy.
    """
    if configured is None:
        scheme, host, port = origin
        known = urllib.request.getproxies()
        found = known.get(scheme, known.get("all"))
        configured = "" if found is None or urllib.request.proxy_bypass(f"{host}:{port}") else found
    return _parsed(configured) if configured else None


def _parsed(text: str) -> Proxy:
    try:
        url = parse_url(text if "://" in text else f"http://{text}")
    except LocationParseError:
        url = Url()
    if url.scheme not in PORTS or not url.host:
        raise ConfigError(
            f"connections.proxy: must be http(s)://[user:password@]host:port, not {url.scheme or 'something else'}",
            key="connections.proxy",
        )
    headers = make_headers(proxy_basic_auth=url.auth) if url.auth else {}
    return Proxy(url._replace(auth=None), dict(headers))
