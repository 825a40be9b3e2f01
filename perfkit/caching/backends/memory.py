"""The default: nothing beside the memory of this process, which every cache has anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfkit.caching.backends import Setup

__all__ = ["none"]


def none(setup: Setup) -> None:
    """Return no backend."""
    del setup
