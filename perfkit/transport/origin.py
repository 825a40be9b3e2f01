"""Where requests go: scheme, host and port of a URL, and how the Host field writes them."""

from __future__ import annotations

from functools import lru_cache

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from perfkit.errors import ConfigError

__all__ = ["PORTS", "Origin", "authority", "split_url"]

PORTS = {"http": 80, "https": 443}
Origin = tuple[str, str, int]  # scheme, host, port


@lru_cache(1024)
def split_url(url: str) -> tuple[Origin, str]:
    """Return scheme, host and port of `url`, and its path with query.

    Raises:
        ConfigError: it is not an http or https URL, or holds credentials.
    """
    try:
        parsed = parse_url(url)
    except LocationParseError:  # its words hold the URL, which may hold a password
        raise ConfigError("not a URL: its host or port cannot be read", key="base_url") from None
    scheme, host = parsed.scheme or "", (parsed.host or "").strip("[]")
    if scheme not in PORTS or not host:
        raise ConfigError(
            f"a URL must be http(s)://host[:port][/path], not {parsed._replace(auth=None).url!r}", key="base_url"
        )
    if parsed.auth:
        raise ConfigError(f"the URL of {host} holds credentials; send them as a header", key="base_url")
    return (scheme, host, parsed.port or PORTS[scheme]), parsed.request_uri


def authority(origin: Origin) -> str:
    """Return the value of the Host field."""
    scheme, host, port = origin
    shown = f"[{host}]" if ":" in host else host
    return shown if port == PORTS[scheme] else f"{shown}:{port}"
