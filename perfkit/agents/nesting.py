"""Nested loans: a block inside another one of the same thread gets the object that thread has already.

So code that borrows can call code that borrows, with a pool of one, as in Ruby's connection_pool. The object goes back
when the last of these blocks ends, in whatever thread that is.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfkit.agents.shelf import Slot

__all__ = ["Held", "Nest"]


class Held:
    """What a thread has borrowed.

    Attributes:
        slot: of the object.
        depth: blocks that use it.
        failed: one of them did.
        discarded: one of them found the object broken.
    """

    __slots__ = ("depth", "discarded", "failed", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.depth = 1
        self.failed = self.discarded = False


class Nest:
    """What each thread has borrowed of one type."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the fields of every Held: a block may end in another thread
        self._mine = threading.local()

    def enter(self) -> Held | None:
        """Return what this thread has borrowed, for one more block, or None."""
        held: Held | None = getattr(self._mine, "held", None)
        if held is None:
            return None
        with self._lock:
            if held.depth == 0 or held.discarded:
                return None
            held.depth += 1
        return held

    def begin(self, slot: Slot) -> Held:
        """Remember what this thread has just borrowed."""
        self._mine.held = held = Held(slot)
        return held

    def leave(self, held: Held, *, failed: bool, discarded: bool) -> bool:
        """End a block; return whether it was the last one."""
        with self._lock:
            held.depth -= 1
            held.failed |= failed
            held.discarded |= discarded
            return held.depth == 0
