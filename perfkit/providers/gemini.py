"""Gemini generateContent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from perfkit.providers.http import HTTPProvider
from perfkit.providers.wire import gemini as wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.providers.secret import Secret
    from perfkit.transport import HTTPResponse
    from perfkit.values import ChatRequest

__all__ = ["GeminiProvider"]


class GeminiProvider(HTTPProvider):
    """A server that answers POST /models/<model>:generateContent."""

    chat_path = "/models"
    models_path = "/models?pageSize=1000"

    def _frame(self, key: Secret | None) -> dict[str, str]:
        return {} if key is None else {"x-goog-api-key": key}

    def _path(self, model: str, *, stream: bool) -> str:
        name = quote(model if "/" in model else f"models/{model}")
        return f"/{name}:streamGenerateContent?alt=sse" if stream else f"/{name}:generateContent"

    def _payload(self, request: ChatRequest, *, stream: bool) -> dict[str, Any]:  # noqa: ARG002 - the path tells
        return wire.payload(request)

    def _probe(self, timeout: float) -> HTTPResponse | None:  # noqa: ARG002
        return None  # the list of models asks for the key already

    @staticmethod
    def _listed(document: Mapping[str, Any]) -> list[str]:
        return [row["name"].removeprefix("models/") for row in document["models"]]

    _reply = staticmethod(wire.reply)
    _reader = wire.Reader
