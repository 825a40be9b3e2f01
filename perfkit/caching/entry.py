"""A value at rest: how it is kept, what it weighs, and how it comes out again.

What can be changed in a value is kept as JSON bytes: a hit can never be changed by who got it before, and what goes in
comes out equal and of the same type. The bound counts the bytes of the whole value as JSON.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from cachetools import LRUCache

from perfkit.values import ChatResponse

__all__ = ["ENTRY_OVERHEAD", "Cached", "Entry", "Store", "keep"]

ENTRY_OVERHEAD = 300  # bytes of a key, an entry and its place in the map on 64-bit CPython
FIELDS = 600  # bytes of a ChatResponse beside its text and what the provider sent: names, numbers, attempts


class Cached(NamedTuple):
    """A value and when it was stored (epoch seconds), None when it was computed for this caller alone."""

    value: Any
    stored_at: float | None = None


class _Kept(NamedTuple):
    """A value at rest: what can be changed is JSON, so that nobody who got it changes what the next one gets."""

    data: bytes  # JSON of the value; of a ChatResponse, of its changeable fields
    frozen: ChatResponse | None  # the rest of it
    size: int  # bytes of the whole


class Entry(NamedTuple):
    """What is kept under a key."""

    value: _Kept
    stored_at: float  # epoch seconds
    expires: float  # monotonic seconds
    tags: frozenset[str]

    def decode(self) -> Cached:
        """Return the value as its next owner's own."""
        value = json.loads(self.value.data)
        if self.value.frozen is not None:
            raw, tool_calls = value
            value = self.value.frozen.evolve(raw=raw, tool_calls=tuple(tool_calls))
        return Cached(value, self.stored_at)


class Store(LRUCache[str, Entry]):
    """Least recently used goes first; evictions are counted."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda entry: entry.value.size + ENTRY_OVERHEAD)
        self.evictions = 0

    def popitem(self) -> tuple[str, Entry]:
        """Evict one entry, counting it."""
        self.evictions += 1
        return super().popitem()


def is_answer(response: ChatResponse) -> bool:
    """Tell whether there is something to keep: what a content filter refused, or left empty, may differ next time."""
    return response.finish_reason != "content_filter" and bool(response.text or response.tool_calls)


def keep(value: Any) -> _Kept:
    """Return a ChatResponse or a plain JSON value as it is kept.

    Raises:
        TypeError: the value would not come back equal (tuples, sets, objects, keys that are not strings).
        ValueError: a JSON value holds NaN or an infinity; in a ChatResponse some servers send them (logprobs).
    """
    if isinstance(value, ChatResponse):
        frozen = value.evolve(raw=None, tool_calls=())
        data = _lenient([value.raw, value.tool_calls]).encode("utf-8", "surrogatepass")
        return _Kept(data, frozen, len(data) + len(value.text.encode("utf-8", "surrogatepass")) + FIELDS)
    data = _strict(value).encode("utf-8", "surrogatepass")
    if not _same(json.loads(data), value):
        raise TypeError("only JSON values can be cached: this one would come back changed (tuple, or keys not strings)")
    return _Kept(data, None, len(data))


_strict = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_lenient = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _same(a: Any, b: Any) -> bool:
    """Tell whether two JSON values are equal with the same types throughout (1 is not 1.0, nor True)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
