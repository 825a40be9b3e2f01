"""What is read of a text is remembered, as texts come again; not of long ones, which would fill the memory instead."""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["remembered"]

T = TypeVar("T")
LONG = 4096  # characters
MOST = 512  # texts


def remembered(function: Callable[[str], T]) -> Callable[[str], T]:
    """Decorate a function of a text, whose results nobody changes."""
    once = lru_cache(maxsize=MOST)(function)

    @wraps(function)
    def read(text: str) -> T:
        return once(text) if len(text) <= LONG else function(text)

    return read
