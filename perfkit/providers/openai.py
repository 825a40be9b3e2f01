"""OpenAI Chat Completions, and everybody who speaks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from perfkit.providers.http import HTTPProvider, Options
from perfkit.providers.secret import Secret
from perfkit.providers.wire import openai as wire

if TYPE_CHECKING:
    from perfkit.values import ChatRequest

__all__ = ["BearerProvider", "OpenAIOptions", "OpenAIProvider"]

_OWN_HOSTS = (".openai.com", ".openai.azure.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIOptions(Options):
    """Where servers deviate.

    Attributes:
        key_header: header that takes the key; Azure's own is "api-key", without the word Bearer.
        max_tokens_field: what the server calls the bound of the answer; None: `max_completion_tokens` at OpenAI, whose
            newer models refuse the old name, and `max_tokens` elsewhere, where the new one may be ignored in silence.
        include_usage: ask for usage at the end of a stream.
    """

    key_header: str = "authorization"
    max_tokens_field: str | None = None
    include_usage: bool = True


class BearerProvider(HTTPProvider):
    """A server that takes the key as a bearer token, as most do."""

    def _frame(self, key: Secret | None) -> dict[str, str]:
        return {} if key is None else {"authorization": Secret(f"Bearer {key}")}


class OpenAIProvider(BearerProvider):
    """A server that answers POST /chat/completions."""

    options_class: ClassVar[type[Options]] = OpenAIOptions
    chat_path = "/chat/completions"
    options: OpenAIOptions

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        is_own = f".{urlsplit(self.base_url).hostname}".endswith(_OWN_HOSTS)
        default = "max_completion_tokens" if is_own else "max_tokens"
        self._max_tokens_field = self.options.max_tokens_field or default

    def _frame(self, key: Secret | None) -> dict[str, str]:
        if key is None or self.options.key_header == "authorization":
            return super()._frame(key)
        return {self.options.key_header: key}

    def _payload(self, request: ChatRequest, *, stream: bool) -> dict[str, Any]:
        return wire.payload(
            request,
            stream=stream,
            max_tokens_field=self._max_tokens_field,
            include_usage=self.options.include_usage,
        )

    _reply = staticmethod(wire.reply)
    _reader = wire.Reader
