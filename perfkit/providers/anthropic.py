"""Anthropic Messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from perfkit._settings import number
from perfkit.providers.http import HTTPProvider, Options
from perfkit.providers.wire import anthropic as wire

if TYPE_CHECKING:
    from perfkit.providers.secret import Secret
    from perfkit.values import ChatRequest

__all__ = ["AnthropicOptions", "AnthropicProvider"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicOptions(Options):
    """What Anthropic wants to know beside.

    Attributes:
        max_tokens: bound of the answer when a request has none; the API requires one.
        version: of the API, the `anthropic-version` header.
    """

    max_tokens: int = number(4096, least=1)
    version: str = "2026-10-21"


class AnthropicProvider(HTTPProvider):
    """A server that answers POST /messages."""

    options_class: ClassVar[type[Options]] = AnthropicOptions
    chat_path = "/messages"
    models_path = "/models?limit=1000"
    options: AnthropicOptions

    def _frame(self, key: Secret | None) -> dict[str, str]:
        version = {"anthropic-version": self.options.version}
        return version if key is None else {**version, "x-api-key": key}

    def _payload(self, request: ChatRequest, *, stream: bool) -> dict[str, Any]:
        return wire.payload(request, stream=stream, max_tokens=self.options.max_tokens)

    _reply = staticmethod(wire.reply)
    _reader = wire.Reader
