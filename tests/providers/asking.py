"""The smallest request, for tests of what providers make of it."""

from __future__ import annotations

from typing import Any

from perfkit.values import ChatRequest


def asked(messages: Any = "hi", **settings: Any) -> ChatRequest:
    return ChatRequest(messages, "m", **settings)
