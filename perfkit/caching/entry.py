"""A value at rest: how it is kept, what it weighs, and how it comes out again.

What can be changed in a value is kept as bytes: a hit can never be changed by who got it before, and what goes in comes
out equal and of the same type. In the memory of one process these bytes are marshal's, read back at a third of the cost
of JSON; they never leave it. The bound counts the bytes of the whole value as JSON.
"""

from __future__ import annotations

import json
import marshal
from typing import Any, NamedTuple

from cachetools import LRUCache

from perfkit.values import ChatResponse

__all__ = ["ENTRY_OVERHEAD", "Cached", "Entry", "Kept", "Store", "is_answer", "keep"]

ENTRY_OVERHEAD = 300  # bytes of a key, an entry and its place in the map on 64-bit CPython
FIELDS = 600  # bytes of a ChatResponse beside its text and what the provider sent: names, numbers, attempts


class Cached(NamedTuple):
    """A value that was computed for this caller alone; an Entry has the same two attributes."""

    value: Any
    stored_at: None = None


class Kept(NamedTuple):
    """A value at rest: what can be changed is bytes, so that nobody who got it changes what the next one gets."""

    data: bytes | None  # of the value; of a ChatResponse, of its changeable fields; None: nothing can be changed
    frozen: Any  # the rest of it
    size: int  # bytes of the whole


class Entry(NamedTuple):
    """What is kept under a key."""

    kept: Kept
    stored_at: float  # epoch seconds
    expires: float  # monotonic seconds
    tags: frozenset[str]

    @property
    def value(self) -> Any:
        """The value as its next owner's own; made anew each time."""
        data, frozen, _ = self.kept
        if data is None:
            return frozen
        return marshal.loads(data) if frozen is None else self.answer()  # noqa: S302 - bytes of this process

    @property
    def cost(self) -> float | None:
        """What the kept answer cost in US dollars."""
        cost: float | None = self.kept.frozen.cost
        return cost

    def answer(self, **changes: Any) -> ChatResponse:
        """Return the kept answer as its next owner's own, with some fields changed."""
        data, frozen, _ = self.kept
        if data is not None:
            changes["raw"], changes["tool_calls"] = marshal.loads(data)  # noqa: S302 - bytes of this process
        answer: ChatResponse = frozen.evolve(**changes)
        return answer


class Store(LRUCache[str, Entry]):
    """Least recently used goes first; evictions are counted."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda entry: entry.kept.size + ENTRY_OVERHEAD)
        self.evictions = 0

    def popitem(self) -> tuple[str, Entry]:
        """Evict one entry, counting it."""
        self.evictions += 1
        return super().popitem()


def is_answer(response: ChatResponse) -> bool:
    """Tell whether there is something to keep: what a content filter refused, or left empty, may differ next time.

    A fresh answer with a `cache_decision` is not quite what was asked for.
    """
    said = bool(response.text or response.tool_calls)
    return said and response.finish_reason != "content_filter" and not response.cache_decision


def keep(value: Any) -> Kept:
    """Return a ChatResponse or a plain JSON value as it is kept.

    Raises:
        TypeError: the value would not come back equal (tuples, sets, objects, keys that are not strings).
        ValueError: a JSON value holds NaN or an infinity; in a ChatResponse some servers send them (logprobs).
    """
    if isinstance(value, ChatResponse):
        changeable = (value.raw, value.tool_calls)
        text = _lenient(changeable)
        size = _weight(text) + _weight(value.text) + FIELDS
        if value.raw is None and not value.tool_calls:
            return Kept(None, value, size)
        return Kept(_marshalled(changeable, text), value.evolve(raw=None, tool_calls=()), size)
    text = _strict(value)
    if type(value) in _UNCHANGEABLE:
        return Kept(None, value, _weight(text))
    if not _same(json.loads(text), value):
        raise TypeError("only JSON values can be cached: this one would come back changed (tuple, or keys not strings)")
    return Kept(marshal.dumps(value), None, _weight(text))


_UNCHANGEABLE = frozenset({str, int, float, bool, type(None)})


def _weight(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _marshalled(changeable: tuple[Any, tuple[Any, ...]], text: str) -> bytes:
    """Return the changeable parts of an answer as bytes; what is of a class of its own comes back as JSON says it."""
    try:
        return marshal.dumps(changeable)
    except ValueError:
        raw, tool_calls = json.loads(text)
        return marshal.dumps((raw, tuple(tool_calls)))


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
