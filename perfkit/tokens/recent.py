"""A bounded dict of what was used last, for what is looked up at every call.

It does what cachetools.LRUCache does without sizes of values, in one step of Python a look-up instead of five.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, V]):
    """At most so many entries, those least recently set or found go first; its owner locks.

    Args:
        most: entries kept.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def find(self, key: K) -> V | None:
        """Return the value of a key and note its use; None when there is none."""
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]

    def put(self, key: K, value: V) -> V:
        """Set and return the value of a key."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)
        return value
