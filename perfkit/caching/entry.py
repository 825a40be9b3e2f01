"""A value at rest: how it is kept, what it weighs, and how it comes out again.

What can be changed in a value is kept as bytes: a hit can never be changed by who got it before, and what goes in comes
out equal and of the same type. In the memory of one process these bytes are marshal's, read back at a third of the cost
of JSON; they never leave it. The bound counts the bytes that are really held, keys and book-keeping included.
"""

from __future__ import annotations

import json
import marshal
import sys
from typing import Any, NamedTuple

from perfkit.values import ChatResponse

__all__ = ["ENTRY_OVERHEAD", "Cached", "Entry", "Kept", "Life", "is_answer", "keep", "strict_json"]

ENTRY_OVERHEAD = 680  # bytes of an entry, its places in the store and its ghost on 64-bit CPython, as RSS shows
GAPS = 50  # one part in so many of what is held is lost between blocks of memory, as RSS shows after 200,000 sets
TAG_OVERHEAD = 64  # bytes of a tag
NO_TAGS: frozenset[str] = frozenset()
FIELDS = 800  # bytes of a ChatResponse beside its text and what the provider sent: names, numbers, attempts
REFERENCES = 2  # marshal's last version that writes everything out: a circle is refused instead of kept


class Cached(NamedTuple):
    """A value that was computed for this caller alone; an Entry has the same two attributes."""

    value: Any
    stored_at: None = None


class Kept(NamedTuple):
    """A value at rest: what can be changed is bytes, so that nobody who got it changes what the next one gets."""

    data: bytes | None  # of the value; of a ChatResponse, of its changeable fields; None: nothing can be changed
    frozen: Any  # the rest of it
    size: int  # bytes of the whole, and of its entry


class Life(NamedTuple):
    """How long an entry is good for what, in seconds."""

    ttl: float  # fresh
    stale: float = 0.0  # and then served while somebody refreshes it
    error: float = 0.0  # or served where the upstream fails

    @property
    def whole(self) -> float:
        """Seconds until nobody may be given it any more."""
        return self.ttl + max(self.stale, self.error)


class Entry:
    """What is kept under a key.

    Args:
        key: under which it is kept.
        kept: the value.
        life: how long it is good.
        now: when it was stored, in monotonic seconds.
        stored_at: the same in epoch seconds.
        tags: names to invalidate it by.
        seconds: how long its computation took.
    """

    __slots__ = ("expires", "kept", "key", "life", "queue", "seconds", "size", "stored_at", "tags", "uses")

    def __init__(  # noqa: PLR0913 - a record; written for speed, as every set makes one
        self,
        key: str,
        kept: Kept,
        life: Life,
        now: float,
        stored_at: float,
        *,
        tags: frozenset[str] = NO_TAGS,
        seconds: float = 0.0,
    ) -> None:
        self.key = key
        self.kept = kept
        self.life = life
        self.stored_at = stored_at  # epoch seconds
        self.expires = now + life[0]  # monotonic seconds
        self.tags = tags
        self.seconds = seconds
        self.size = kept[2] + len(key) + (TAG_OVERHEAD * len(tags) if tags else 0)
        self.uses = 0  # this and the next are the store's
        self.queue = 0

    @property
    def stale_until(self) -> float:
        """Until when it may be served while it is refreshed; monotonic seconds."""
        return self.expires + self.life.stale

    @property
    def gone(self) -> float:
        """When nobody may be given it any more; monotonic seconds."""
        return self.expires + max(self.life.stale, self.life.error)

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
        ValueError: a JSON value holds NaN or an infinity, or a circle.
    """
    if isinstance(value, ChatResponse):
        text = _held(value.text) + FIELDS + ENTRY_OVERHEAD
        if value.raw is None and not value.tool_calls:
            return Kept(None, value, text)
        data = _marshalled((value.raw, value.tool_calls))
        return Kept(data, value.evolve(raw=None, tool_calls=()), _held(data) + text)
    text_form = strict_json(value)
    if type(value) in _UNCHANGEABLE:
        return Kept(None, value, _held(value) + ENTRY_OVERHEAD)
    if not _same(json.loads(text_form), value):
        raise TypeError("only JSON values can be cached: this one would come back changed (tuple, or keys not strings)")
    data = marshal.dumps(value, REFERENCES)
    return Kept(data, None, _held(data) + ENTRY_OVERHEAD)


_UNCHANGEABLE = frozenset({str, int, float, bool, type(None)})
strict_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _held(value: object) -> int:
    """Return the bytes of memory that a text, bytes or number takes."""
    size = sys.getsizeof(value)
    return size + size // GAPS


def _marshalled(changeable: tuple[Any, tuple[Any, ...]]) -> bytes:
    """Return the changeable parts of an answer as bytes; what is of a class of its own comes back as JSON says it."""
    try:
        return marshal.dumps(changeable, REFERENCES)
    except ValueError:
        raw, tool_calls = json.loads(json.dumps(changeable))
        return marshal.dumps((raw, tuple(tool_calls)), REFERENCES)


def _same(a: Any, b: Any) -> bool:
    """Tell whether two JSON values are equal with the same types throughout (1 is not 1.0, nor True)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
