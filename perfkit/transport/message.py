"""A request as bytes: target, fields and body, checked so that no value can add a line to the head."""

from __future__ import annotations

import json
import platform
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from perfkit._version import __version__
from perfkit.transport import encoding

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["USER_AGENT", "WITH_BODY", "body_bytes", "compressed", "field_name", "head", "lowered", "masked"]

WITH_BODY = frozenset(("POST", "PUT", "PATCH"))  # methods whose requests tell a length even without a body
USER_AGENT = f"perfkit/{__version__} Python/{platform.python_version()}"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # RFC 9110 section 5.6.2
_VISIBLE = re.compile(r"[!-~]+").fullmatch
_SECRET = re.compile(r"authorization|cookie|api-?key|secret|token$").search
_WORTH_PACKING = 1000  # bytes


@lru_cache(1024)
def field_name(name: str) -> str:
    """Return the name of a field in lower case.

    Raises:
        ValueError: it is not a token.
    """
    if not _TOKEN(name):
        raise ValueError(f"illegal header name {name!r}")
    return name.lower()


@lru_cache(1024)
def _target(target: str) -> str:
    """Return a path and query that can stand in a request line: spaces and the like are quoted, quoted ones stay."""
    return target if _VISIBLE(target) else quote(target, safe="/?#[]@!$&'()*+,;=:%~")


@lru_cache(64)
def _method(method: str) -> str:
    if not _TOKEN(method):
        raise ValueError(f"illegal HTTP method {method!r}")
    return method


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Return `headers` with lower-case names.

    Raises:
        ValueError: a name is not a token.
    """
    return {field_name(name): value for name, value in headers.items()}


def head(method: str, target: str, fields: Mapping[str, str]) -> bytes:
    """Return the head of a request.

    Raises:
        ValueError: a value has a line break or a character that is not Latin-1; the message names it, not its value.
    """
    lines = [f"{_method(method)} {_target(target)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    text = "\r\n".join(lines)
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text or not text.isascii():
        _check_values(fields)
    return f"{text}\r\n\r\n".encode("latin-1")


def _check_values(fields: Mapping[str, str]) -> None:
    for name, value in fields.items():
        if re.search(r"[\r\n\0]|[^\0-\xff]", str(value)):
            raise ValueError(f"header {name!r} has a line break or a character outside Latin-1; strip or encode it")


def body_bytes(body: Any) -> bytes:
    """Return a body as bytes: bytes as they are, text as UTF-8, anything else as JSON.

    Raises:
        TypeError, ValueError: it is not JSON-able.
    """
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    if isinstance(body, str):
        return body.encode()
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: only its escaped form is legal
        return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def compressed(body: bytes, fields: dict[str, str]) -> bytes:
    """Return `body` as gzip, and say so in `fields`, where that makes it smaller."""
    if len(body) < _WORTH_PACKING or "content-encoding" in fields:
        return body
    packed = encoding.compress(body)
    if len(packed) >= len(body):
        return body
    fields["content-encoding"] = "gzip"
    return packed


def masked(headers: Mapping[str, str]) -> dict[str, str]:
    """Return `headers` with the values of credentials and cookies as "***"."""
    return {name: "***" if _SECRET(name.lower()) else value for name, value in headers.items()}
