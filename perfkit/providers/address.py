"""Checks a base URL before anything is sent there."""

from __future__ import annotations

from urllib.parse import urlsplit

from perfkit.errors import ConfigError

__all__ = ["checked_base_url"]


def checked_base_url(url: object, provider: str) -> str:
    """Return the URL without a slash at its end.

    Raises:
        ConfigError: it is not http(s)://host[:port][/path], or has credentials in it; nothing that may be one is shown.
    """
    where = f"base_url of provider {provider!r}"
    if url is None:
        raise ConfigError(f"{where} is missing: every customer has one of their own; pass base_url=", key="base_url")
    if not isinstance(url, str):
        raise ConfigError(f"{where} must be a URL such as 'https://api.example.com/v1', not {url!r}", key="base_url")
    try:
        parts = urlsplit(url.strip())
        known, port = parts.scheme in ("http", "https") and bool(parts.hostname), parts.port
    except ValueError:  # its words hold parts of the URL, which may be those of a password with a slash in it
        raise ConfigError(f"{where} is not a URL: its host or port cannot be read", key="base_url") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{where} has credentials in it; pass api_key= instead", key="base_url")
    if not known or port == 0 or any(character.isspace() for character in url.strip()):
        shown = "" if "@" in url else f", not {url!r}"
        raise ConfigError(f"{where} must be http://host or https://host with a path{shown}", key="base_url")
    if parts.query or parts.fragment:
        raise ConfigError(f"{where} must end with its path: paths of the API are put after it", key="base_url")
    return url.strip().rstrip("/")
