"""Hearing a stream out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from perfkit.values import ChatResponse

__all__ = ["drain", "drained"]


def drain(deltas: Generator[str, None, ChatResponse]) -> tuple[list[str], ChatResponse]:
    """Return what a stream yields and the response it ends with."""
    heard = []
    while True:
        try:
            heard.append(next(deltas))
        except StopIteration as end:
            return heard, end.value


def drained(deltas: Generator[str, None, ChatResponse]) -> tuple[str, ChatResponse]:
    """Return the text of a stream and the response it ends with."""
    heard, response = drain(deltas)
    return "".join(heard), response
