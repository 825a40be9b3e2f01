"""One request ready to be sent, and how long it may take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfkit.transport import encoding, message
from perfkit.transport.origin import authority
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perfkit.transport.origin import Origin

__all__ = ["Call", "Waits", "prepare", "usual_fields"]


@dataclass(frozen=True, slots=True)
class Waits:
    """Longest single waits of one call, in place of those of its host's settings; seconds, infinity for no limit.

    Attributes:
        timeout: for a free connection.
        connect_timeout: for name, TCP and TLS together.
        read_timeout: for the next bytes.
        write_timeout: for one send.
    """

    timeout: float
    connect_timeout: float
    read_timeout: float
    write_timeout: float


@dataclass(slots=True)
class Call:
    """A request as bytes.

    Attributes:
        head: first line and fields, without the empty line that ends them.
        started: clock time the call began.
        deadline: clock time it ends, infinity for never.
        patience: most seconds until the first byte of the reply.
        attempt: 1 for the first try.
        waits: its own, None for those of the host.
    """

    method: str
    target: str
    fields: dict[str, str]
    body: bytes
    now: Callable[[], float]
    started: float
    deadline: float
    patience: float
    attempt: int = 1
    waits: Waits | None = None


def usual_fields(origin: Origin, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the fields of a request to `origin`, by lower-case name; those of `headers` win.

    Raises:
        ValueError: a name is not a token.
    """
    usual = {"host": authority(origin), "user-agent": message.USER_AGENT, "accept-encoding": encoding.ACCEPT}
    return usual if headers is None else usual | message.lowered(headers)


def prepare(  # noqa: PLR0913 - a request has that many parts
    method: str,
    target: str,
    fields: dict[str, str],
    body: Any,
    *,
    now: Callable[[], float],
    timeout: float | None,
    patience: float | None = None,
    compress: bool = False,
) -> Call:
    """Return the call.

    Args:
        method: any method.
        target: path and query.
        fields: by lower-case name; those of the body are added.
        body: bytes, text or anything JSON-able; None for none.
        now: the clock of its deadline.
        timeout: seconds for all of it, None for no end.
        patience: most seconds until the first byte of the reply, None for as long as the call may take.
        compress: send a large body as gzip.

    Raises:
        ValueError, TypeError: the body is not JSON-able, or the timeout is not a number above 0.
    """
    if timeout is not None:
        finite("timeout", timeout, above=0)
    method, data = method.upper(), b""
    if body is not None:
        data = message.body_bytes(body)
        if compress:
            data = message.compressed(data, fields)
        fields.setdefault("content-type", "application/json")
    if data or method in message.WITH_BODY:
        fields["content-length"] = str(len(data))
    started = now()
    return Call(
        method,
        target,
        fields,
        data,
        now,
        started,
        math.inf if timeout is None else started + timeout,
        math.inf if patience is None else patience,
    )
