"""Passing a provider's stream on: what the provider raises and what the caller does are kept apart."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from perfkit.errors import ResponseFormatError
from perfkit.values import ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Generator

    from perfkit.clock import Clock
    from perfkit.routing.attempts import Call
    from perfkit.values import ChatRequest

__all__ = ["checked", "open_stream", "relay"]

_KINDS: tuple[tuple[str, type], ...] = (("text", str), ("usage", Usage), ("model", str))  # what is read of any answer


def checked(response: Any, name: str) -> ChatResponse:
    """Return what a provider returned.

    Raises:
        ResponseFormatError: it is no ChatResponse, or one that cannot be told or counted.
    """
    if not isinstance(response, ChatResponse):
        kind = type(response).__name__
        raise ResponseFormatError(f"provider {name!r} returned {kind}, not a ChatResponse", provider=name)
    for field, kind_ in _KINDS:
        if not isinstance(getattr(response, field), kind_):
            told = f"provider {name!r} returned a ChatResponse whose {field} is no {kind_.__name__}"
            raise ResponseFormatError(told, provider=name)
    return response


def open_stream(provider: Any, request: ChatRequest) -> Generator[str, None, ChatResponse]:
    """Return the provider's stream; of one that cannot stream, the whole answer in one piece."""
    if hasattr(provider, "stream"):
        deltas: Generator[str, None, ChatResponse] = provider.stream(request)
        return deltas
    return _whole(provider, request)


def _whole(provider: Any, request: ChatRequest) -> Generator[str, None, ChatResponse]:
    response: ChatResponse = provider.chat_completion(request)
    yield response.text
    return response


def relay(call: Call, deltas: Generator[str, None, ChatResponse], clock: Clock) -> Generator[str, None, Any]:
    """Yield every delta and return the provider's response; its errors pass through.

    If the caller leaves in between, the provider's stream is closed at once and the attempt ends as abandoned.
    """
    with closing(deltas):
        while True:
            try:
                delta = next(deltas)
            except StopIteration as end:
                return end.value
            call.shown = True
            handed_out = clock.now()
            try:
                yield delta
            except BaseException:
                call.abandon(_partial(deltas))
                raise
            call.pauses += clock.now() - handed_out


def _partial(deltas: Generator[str, None, ChatResponse]) -> ChatResponse | None:
    """Close the provider's stream; return the response if it makes one of what came so far."""
    try:
        deltas.throw(GeneratorExit)
    except StopIteration as end:
        return end.value if isinstance(end.value, ChatResponse) else None
    except BaseException:  # the caller is leaving: nobody is there to be told
        return None
    return None
