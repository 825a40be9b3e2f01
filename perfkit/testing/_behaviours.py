"""What a fault server can be told to do with a request, as small values that travel as JSON.

An answer (`ok`, `status`, `sse`, `raw`) says what is replied; a delivery (`hang`, `cut`, `drip`, ...) says how it is
spoilt on its way and takes the answer it spoils as `of`: `cut(ok("one two three"), after_events=2)`. Deliveries nest.
Without `of` they spoil the usual reply: the upstream's if the server has one, else `ok()`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Behaviour",
    "close",
    "close_idle",
    "content_filtered",
    "context_overflow",
    "cut",
    "drip",
    "garbage",
    "gzip",
    "hang",
    "malformed_sse",
    "model_not_found",
    "ok",
    "overloaded",
    "quota_exhausted",
    "rate_limited",
    "raw",
    "reset",
    "server_error",
    "sse",
    "stall",
    "status",
    "truncated",
    "unauthorized",
]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One behaviour by name, with its arguments and the behaviour it wraps."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    of: Behaviour | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Behaviour:
        """Build the behaviour `to_dict` described."""
        inner = data["of"]
        return cls(data["name"], data["args"], None if inner is None else cls.from_dict(inner))


def ok(
    text: str | None = None,
    *,
    usage: Mapping[str, int] | None = None,
    finish_reason: str = "stop",
    delay: float = 0.0,
    interval: float = 0.0,
    headers: Mapping[str, str] | None = None,
) -> Behaviour:
    """Answer in the wire format of the path, deterministically.

    Args:
        text: the answer; None echoes the last user message as "echo: ...".
        usage: any of prompt_tokens (cached ones included), completion_tokens, cached_tokens, cache_write_tokens and
            reasoning_tokens, put into each format's own fields; the first two are word counts unless given.
        finish_reason: in OpenAI's words ("stop", "length", ...); translated for the other formats.
        delay: seconds before the first byte.
        interval: seconds between the events of a stream.
        headers: added to the reply.
    """
    args = {"text": text, "usage": dict(usage or {}), "finish_reason": finish_reason}
    return Behaviour("ok", args | {"delay": delay, "interval": interval, "headers": dict(headers or {})})


def status(
    code: int,
    *,
    kind: str | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    delay: float = 0.0,
) -> Behaviour:
    """Answer with a status and a body.

    Args:
        code: HTTP status; from 400 on, the body defaults to the provider's error body for it.
        kind: which error the default body tells of where a status has several, a key of `_refusals.ERRORS`.
        body: str sent as it is, anything else as JSON.
        headers: added to the reply, or in the place of its own.
        delay: seconds before the first byte.
    """
    args = {"code": code, "kind": kind, "body": body, "headers": dict(headers or {}), "delay": delay}
    return Behaviour("status", args)


def rate_limited(retry_after: float | str | None = None, *, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Answer 429; `retry_after` (seconds or an HTTP date) becomes the Retry-After header."""
    wait = {} if retry_after is None else {"retry-after": str(retry_after)}
    return status(429, headers=wait | dict(headers or {}))


def quota_exhausted() -> Behaviour:
    """Answer 429 as providers do when no money is left: waiting does not help."""
    return status(429, kind="quota_exhausted")


def unauthorized() -> Behaviour:
    """Answer 401 for a wrong key."""
    return status(401)


def model_not_found() -> Behaviour:
    """Answer 404 for the model asked for."""
    return status(404)


def context_overflow() -> Behaviour:
    """Answer 400: the prompt is longer than the model's context."""
    return status(400, kind="context_overflow")


def content_filtered() -> Behaviour:
    """Answer 400: the provider's content policy refused the prompt."""
    return status(400, kind="content_filtered")


def server_error(code: int = 500) -> Behaviour:
    """Answer a 5xx."""
    return status(code)


def overloaded() -> Behaviour:
    """Answer 529, Anthropic's status for overload."""
    return status(529)


def sse(*blocks: Any, interval: float = 0.0, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Answer an event stream of these blocks: str sent as it is (end it with a blank line), else `data: <JSON>`."""
    return Behaviour("sse", {"blocks": list(blocks), "interval": interval, "headers": dict(headers or {})})


def raw(data: bytes | str) -> Behaviour:
    """Send these very bytes in the place of an HTTP reply, then FIN."""
    return Behaviour("raw", {"data": data.decode("latin-1") if isinstance(data, bytes) else data})


def garbage(kind: str = "bytes") -> Behaviour:
    """Answer nonsense: "bytes" (not HTTP), "html" (a page with status 200), "json" (invalid) or "empty" (no body)."""
    return {
        "bytes": raw(b"\x00\x01\xfe\xff not HTTP at all\r\n\r\n"),
        "html": status(
            200, body="<html><body>Welcome to the proxy</body></html>", headers={"content-type": "text/html"}
        ),
        "json": status(200, body='{"choices": [{"message": {"content": "half an ans', headers={}),
        "empty": status(200, body=""),
    }[kind]


def hang(of: Behaviour | None = None, *, seconds: float | None = None) -> Behaviour:
    """Read the request and say nothing until `FaultServer.release`, or for `seconds`; then reply with `of`."""
    return Behaviour("hang", {"seconds": seconds}, of)


def stall(
    of: Behaviour | None = None,
    *,
    after_events: int | None = None,
    after_bytes: int | None = None,
    seconds: float | None = None,
) -> Behaviour:
    """Stop in the middle of the body as `cut` does, but hold the connection; then as `hang`, send the rest."""
    args = {"after_events": after_events, "after_bytes": after_bytes, "seconds": seconds}
    return Behaviour("stall", args, of)


def reset() -> Behaviour:
    """Read the request, then RST."""
    return Behaviour("reset")


def close() -> Behaviour:
    """Read the request, then FIN."""
    return Behaviour("close")


def cut(
    of: Behaviour | None = None,
    *,
    after_events: int | None = None,
    after_bytes: int | None = None,
    how: str = "rst",
) -> Behaviour:
    """End the connection in the middle of the body.

    Args:
        of: what to reply.
        after_events: whole pieces sent before: the events of a stream, or the chunks of an upstream.
        after_bytes: bytes of the body sent before, chunk framing not counted. One of the two; 0 is just the head.
        how: "rst" or "fin".
    """
    return Behaviour("cut", {"after_events": after_events, "after_bytes": after_bytes, "how": how}, of)


def drip(of: Behaviour | None = None, *, size: int = 1, interval: float = 0.01, part: str = "body") -> Behaviour:
    """Send `size` bytes every `interval` seconds; `part` is "head", "body" or "all"."""
    return Behaviour("drip", {"size": size, "interval": interval, "part": part}, of)


def truncated(of: Behaviour | None = None, *, missing: int = 10) -> Behaviour:
    """Announce `missing` bytes more in Content-Length than come (a chunked body lacks its last chunk), then FIN."""
    return Behaviour("truncated", {"missing": missing}, of)


def close_idle(of: Behaviour | None = None, *, after: float = 0.0, announce: int | None = 5) -> Behaviour:
    """Reply, then FIN after `after` idle seconds, whatever `Keep-Alive: timeout=<announce>` promised (None: none)."""
    return Behaviour("close_idle", {"after": after, "announce": announce}, of)


def gzip(of: Behaviour | None = None, *, broken: bool = False) -> Behaviour:
    """Compress the body; `broken` leaves out its second half (of a stream: the end mark) in a reply whole otherwise."""
    return Behaviour("gzip", {"broken": broken}, of)


def malformed_sse(of: Behaviour | None = None, *, after_events: int = 1, block: str | None = None) -> Behaviour:
    """Put one broken event into a stream after so many good ones; `block` is its text."""
    block = 'data: {"choices": [{"delta": {"conte\n\n' if block is None else block
    return Behaviour("malformed_sse", {"after_events": after_events, "block": block}, of)
