"""Ollama, by its own interface: its OpenAI endpoint has no options and no counts of what the prompt cost in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.providers.openai import BearerProvider
from perfkit.providers.wire import ollama as wire
from perfkit.transport import ServerSentEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from perfkit.providers.wire.reply import Event
    from perfkit.transport import HTTPStream
    from perfkit.values import ChatRequest

__all__ = ["OllamaProvider"]


class OllamaProvider(BearerProvider):
    """A server that answers POST /chat in lines of JSON."""

    chat_path = "/chat"
    models_path = "/tags"

    def _payload(self, request: ChatRequest, *, stream: bool) -> dict[str, Any]:
        return wire.payload(request, stream=stream)

    @staticmethod
    def _listed(document: Mapping[str, Any]) -> list[str]:
        return [row["name"] for row in document["models"]]

    @staticmethod
    def _events(stream: HTTPStream) -> Iterator[Event]:
        return (ServerSentEvent("message", line) for line in stream.lines() if line.strip())

    _reply = staticmethod(wire.reply)
    _reader = wire.Reader
