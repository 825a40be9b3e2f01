"""Hearing a stream out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from perfkit.values import ChatResponse


def whole(deltas: Generator[str, None, ChatResponse]) -> tuple[str, ChatResponse]:
    """Return the text of a stream and the response it ends with."""
    heard = []
    while True:
        try:
            heard.append(next(deltas))
        except StopIteration as end:
            return "".join(heard), end.value
