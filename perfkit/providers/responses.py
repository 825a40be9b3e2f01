"""OpenAI Responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.providers.openai import BearerProvider
from perfkit.providers.wire import responses as wire

if TYPE_CHECKING:
    from perfkit.values import ChatRequest

__all__ = ["ResponsesProvider"]


class ResponsesProvider(BearerProvider):
    """A server that answers POST /responses."""

    chat_path = "/responses"

    def _payload(self, request: ChatRequest, *, stream: bool) -> dict[str, Any]:
        return wire.payload(request, stream=stream)

    _reply = staticmethod(wire.reply)
    _reader = wire.Reader
