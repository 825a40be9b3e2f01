"""What went wrong, in perfkit's terms: urllib3, http.client, ssl and the socket each have their own."""

from __future__ import annotations

import ssl
from http.client import BadStatusLine, HTTPException, RemoteDisconnected
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from perfkit.errors import DeadlineExceeded, NetworkError, TransportError

if TYPE_CHECKING:
    from perfkit.transport.call import Call

__all__ = ["CONNECTING", "FAILURES", "READING", "WAITING", "explain", "is_permanent"]

CONNECTING, WAITING, READING = "connecting", "waiting for the reply", "reading the reply"
FAILURES = (OSError, HTTPException, HTTPError, ValueError)  # ValueError: a file or a decoder that is at its end


def explain(error: Exception, call: Call, host: str, step: str) -> TransportError:
    """Return the perfkit error for `error`, which happened to `call` during `step`."""
    if isinstance(error, TransportError):
        return error
    elapsed = call.now() - call.started
    kind, what = _judge(error, call, step)
    return kind(
        f"{call.method} {host}: {what}", host=host, attempt=call.attempt, elapsed=elapsed, sent=step != CONNECTING
    )


def _judge(error: Exception, call: Call, step: str) -> tuple[type[TransportError], str]:
    root, elapsed = _root(error), call.now() - call.started
    if isinstance(root, TimeoutError):
        if call.now() >= call.deadline:
            return DeadlineExceeded, f"its {call.deadline - call.started:.3g} s ran out while {step}"
        limit = "connect_timeout" if step == CONNECTING else "read_timeout or write_timeout"
        whose = f"connections.{limit}" if call.waits is None else "the timeout it was given"
        return DeadlineExceeded, f"no progress after {elapsed:.3g} s while {step} ({whose})"
    if is_permanent(error):
        return NetworkError, f"its certificate is not trusted ({root}); connections.ca_file adds a private CA"
    if isinstance(root, BadStatusLine) and not isinstance(root, RemoteDisconnected):
        return NetworkError, "what came back is not HTTP; are host, port and http or https of base_url right?"
    return NetworkError, f"{type(root).__name__} while {step}: {root}"


def is_permanent(error: BaseException) -> bool:
    """Return whether trying again is useless: the certificate will be as wrong as now."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        seen = seen.__cause__
    return False


def _root(error: BaseException) -> BaseException:
    while isinstance(error.__cause__, OSError):
        error = error.__cause__
    return error
