"""What each behaviour does: a table from its name to a coroutine that makes a reply, or changes the one it wraps.

A coroutine gets the exchange, `inner`, which makes the wrapped reply when awaited, and its arguments by name. Bodies
are async iterators, so a delivery changes one by wrapping it, and deliveries nest.
"""

from __future__ import annotations

import gzip
import json
import zlib
from asyncio import sleep
from typing import TYPE_CHECKING, Any, Protocol

from perfkit.testing import _formats as formats
from perfkit.testing._http1 import BODILESS, Reply
from perfkit.testing._refusals import error_body, error_kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from perfkit.testing._behaviours import Behaviour
    from perfkit.testing._http1 import Request

    Inner = Callable[[], Awaitable[Reply]]
    Step = Callable[..., Awaitable[Reply]]

__all__ = ["STEPS", "Cut", "Exchange", "dripped", "pause", "perform", "pieces", "refusal"]


class Cut(Exception):  # noqa: N818 - not an error: the script's own end of the connection
    """End the connection here and now, by "rst" or "fin"."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Exchange(Protocol):
    """What a behaviour knows of the request it answers."""

    request: Request
    number: int
    linger: float | None  # idle seconds after which the connection ends, None for never

    async def hold(self, seconds: float | None) -> None:
        """Wait for `FaultServer.release`, at most so long; raise `Cut` if it drops the reply."""
        ...

    async def usual(self) -> Reply:
        """Reply as if nothing was scripted."""
        ...


async def pause(seconds: float) -> None:
    """Wait, without a turn of the event loop for 0 seconds."""
    if seconds > 0:
        await sleep(seconds)


async def pieces(blocks: Iterable[bytes], interval: float = 0.0) -> AsyncIterator[bytes]:
    """Yield `blocks`, with `interval` seconds between them."""
    for number, block in enumerate(blocks):
        await pause(interval if number else 0)
        yield block


async def perform(exchange: Exchange, behaviour: Behaviour | None) -> Reply:
    """Make the reply that `behaviour` describes; None is the usual one."""
    if behaviour is None:
        return await exchange.usual()
    return await STEPS[behaviour.name](exchange, lambda: perform(exchange, behaviour.of), **behaviour.args)


# --- answers ----------------------------------------------------------------------------------------------------------


async def _ok(
    exchange: Exchange, _: Inner, *, delay: float, interval: float, headers: dict[str, str], **said: Any
) -> Reply:
    await pause(delay)
    return _signed(exchange, _route(exchange.request, interval, said), headers)


async def _status(
    exchange: Exchange, _: Inner, *, code: int, kind: str | None, body: Any, headers: dict[str, str], delay: float
) -> Reply:
    await pause(delay)
    if body is None and code >= 400:  # noqa: PLR2004 - where errors begin
        return _signed(exchange, refusal(exchange.request, code, kind), headers)
    data = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    return _signed(exchange, _whole(code, data.encode()), headers)


async def _sse(exchange: Exchange, _: Inner, *, blocks: list[Any], interval: float, headers: dict[str, str]) -> Reply:
    encoded = (block.encode() if isinstance(block, str) else formats.event(block) for block in blocks)
    return _signed(exchange, _stream(encoded, interval), headers)


async def _raw(_: Exchange, __: Inner, *, data: str) -> Reply:
    return Reply(200, [], pieces([data.encode("latin-1")]), raw=True)


def _route(request: Request, interval: float, said: dict[str, Any]) -> Reply:
    route = f"{request.method} /{request.path.rpartition('/')[2]}"
    spoken = _format(request)
    if request.method == "POST" and spoken is not None:
        return _spoken(_asked(request), spoken, interval, said)
    replies = {
        "POST /echo": lambda: _whole(200, request.body, request.header("content-type") or "application/octet-stream"),
        "GET /models": lambda: _whole(200, json.dumps(formats.models()).encode()),
        "GET /tags": lambda: _whole(200, json.dumps(formats.tags()).encode()),
        "GET /health": lambda: _whole(200, b'{"status": "ok"}'),
    }
    return replies.get(route, lambda: refusal(request, 404, "no_route"))()


def _format(request: Request) -> formats.Format | None:
    return next((spoken for ending, spoken in formats.FORMATS.items() if request.path.endswith(ending)), None)


def _asked(request: Request) -> dict[str, Any]:
    """Return what is asked, with the model if the path has it."""
    model, colon, _ = request.path.rpartition("/")[2].partition(":")
    return request.json() | ({"model": model} if colon else {})


def _spoken(asked: dict[str, Any], spoken: formats.Format, interval: float, said: dict[str, Any]) -> Reply:
    answer = formats.answer(asked, **said)
    if spoken.streams(asked):
        return _stream(spoken.events(answer), interval, spoken.content_type)
    return _whole(200, json.dumps(spoken.body(answer)).encode())


def refusal(request: Request, code: int, kind: str | None = None) -> Reply:
    """Return the provider's error reply to `request`."""
    model = str(_asked(request).get("model", formats.MODEL))
    body = error_body(kind or error_kind(code), dialect=_dialect(request), model=model)
    return _whole(code, json.dumps(body).encode())


def _dialect(request: Request) -> str:
    """Return whose words errors are told in."""
    if request.header("anthropic-version") is not None or "/messages" in request.path:
        return "anthropic"
    if request.path.endswith("/tags"):
        return "ollama"
    spoken = _format(request)
    return "openai" if spoken is None else spoken.dialect


def _signed(exchange: Exchange, reply: Reply, headers: dict[str, str]) -> Reply:
    reply.put("request-id" if _dialect(exchange.request) == "anthropic" else "x-request-id", f"req_{exchange.number}")
    for name, value in headers.items():
        reply.put(name.lower(), value)
    return reply


def _whole(status: int, body: bytes, content_type: str = "application/json") -> Reply:
    headers = [] if status in BODILESS else [("content-type", content_type), ("content-length", str(len(body)))]
    return Reply(status, headers, pieces([body]))


def _stream(blocks: Iterable[bytes], interval: float, content_type: str = "text/event-stream") -> Reply:
    headers = [("content-type", content_type), ("cache-control", "no-cache"), ("transfer-encoding", "chunked")]
    return Reply(200, headers, pieces(blocks, interval))


# --- deliveries -------------------------------------------------------------------------------------------------------


async def _hang(exchange: Exchange, inner: Inner, *, seconds: float | None) -> Reply:
    await exchange.hold(seconds)
    return await inner()


async def _reset(_: Exchange, __: Inner) -> Reply:
    raise Cut("rst")


async def _close(_: Exchange, __: Inner) -> Reply:
    raise Cut("fin")


async def _stall(
    exchange: Exchange, inner: Inner, *, after_events: int | None, after_bytes: int | None, seconds: float | None
) -> Reply:
    reply = await inner()
    reply.body = _interrupted(reply.body, after_events, after_bytes, lambda: exchange.hold(seconds))
    return reply


async def _cut(_: Exchange, inner: Inner, *, after_events: int | None, after_bytes: int | None, how: str) -> Reply:
    async def end() -> None:
        raise Cut(how)

    reply = await inner()
    reply.body = _interrupted(reply.body, after_events, after_bytes, end)
    return reply


async def _interrupted(
    body: AsyncIterator[bytes],
    after_events: int | None,
    after_bytes: int | None,
    interrupt: Callable[[], Awaitable[None]],
) -> AsyncIterator[bytes]:
    """Yield `body`, with one `interrupt` after so many pieces or bytes, at the latest at its end."""
    left = after_events or after_bytes or 0
    if not left:
        await interrupt()
    async for piece in body:
        size = 1 if after_events else len(piece)
        rest = piece
        if 0 < left <= size:
            here = len(piece) if after_events else left
            yield piece[:here]
            await interrupt()
            rest = piece[here:]
        left -= size
        yield rest
    if left > 0:
        await interrupt()


async def _drip(_: Exchange, inner: Inner, *, size: int, interval: float, part: str) -> Reply:
    reply = await inner()
    if part in {"head", "all"}:
        reply.head_pace = size, interval
    if part in {"body", "all"}:
        reply.body = dripped(reply.body, size, interval)
    return reply


async def dripped(body: AsyncIterator[bytes], size: int, interval: float) -> AsyncIterator[bytes]:
    """Yield `body` in pieces of `size` bytes, with `interval` seconds between them."""
    wait = 0.0
    async for piece in body:
        for start in range(0, len(piece), size):
            await pause(wait)
            yield piece[start : start + size]
            wait = interval


async def _truncated(_: Exchange, inner: Inner, *, missing: int) -> Reply:
    reply = await inner()
    length = reply.header("content-length")
    if length is not None:
        reply.put("content-length", str(int(length) + missing))
    reply.body = _unended(reply.body)
    return reply


async def _unended(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in body:
        yield piece
    raise Cut("fin")


async def _close_idle(exchange: Exchange, inner: Inner, *, after: float, announce: int | None) -> Reply:
    reply = await inner()
    if announce is not None:
        reply.put("connection", "keep-alive")
        reply.put("keep-alive", f"timeout={announce}")
    exchange.linger = after
    return reply


async def _gzip(_: Exchange, inner: Inner, *, broken: bool) -> Reply:
    reply = await inner()
    reply.put("content-encoding", "gzip")
    if reply.chunked:
        reply.body = _compressed(reply.body, broken=broken)
        return reply
    packed = gzip.compress(b"".join([piece async for piece in reply.body]), mtime=0)
    packed = packed[: len(packed) // 2] if broken else packed
    reply.put("content-length", str(len(packed)))
    reply.body = pieces([packed])
    return reply


async def _compressed(body: AsyncIterator[bytes], *, broken: bool) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    async for piece in body:
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    if not broken:
        yield packer.flush()


async def _malformed_sse(_: Exchange, inner: Inner, *, after_events: int, block: str) -> Reply:
    reply = await inner()
    reply.body = _inserted(reply.body, after_events, block.encode())
    return reply


async def _inserted(body: AsyncIterator[bytes], place: int, block: bytes) -> AsyncIterator[bytes]:
    number = 0
    async for piece in body:
        if number == place:
            yield block
        yield piece
        number += 1


STEPS: dict[str, Step] = {
    "ok": _ok,
    "status": _status,
    "sse": _sse,
    "raw": _raw,
    "hang": _hang,
    "stall": _stall,
    "reset": _reset,
    "close": _close,
    "cut": _cut,
    "drip": _drip,
    "truncated": _truncated,
    "close_idle": _close_idle,
    "gzip": _gzip,
    "malformed_sse": _malformed_sse,
}
