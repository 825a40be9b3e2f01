"""Finding what makes the beginning of a route's prompts differ from one request to the next, and what that costs.

Tools and system prompt of a route are compared with those of its request before; when they differ time and again, the
first place where they do is looked at: what stands there names the cause. The turns of a conversation are compared by
hashes: history that was sent before has to come again as it was. Only heads are kept as text, never what users say.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from perfkit.tokens.estimator import estimate
from perfkit.tokens.prefix.layout import SYSTEM, ordered
from perfkit.tokens.prefix.traffic import conversation
from perfkit.tokens.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perfkit.values import ChatRequest

__all__ = ["Detector", "Finding", "volatile_spans"]

ROUTES: Final = 256
CONVERSATIONS: Final = 2000
HEAD_MOST: Final = 256 * 1024  # characters of a head that are kept
REPEATS: Final = 3  # differences in a row before something is said: two templates may share a route's name
WINDOW: Final = 100  # characters looked at on both sides of a difference

# What a span that changes looks like, the most particular first.
CAUSES: Final = (
    ("uuid", re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")),
    ("timestamp", re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?")),
    ("timestamp", re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?(?: ?[AP]M)?\b")),
    ("timestamp", re.compile(r"\b1[6-9]\d{8}(?:\.\d+|\d{3})?\b")),
    ("date", re.compile(r"\d{4}-\d{2}-\d{2}|\b\d{1,2}[./]\d{1,2}[./]\d{2,4}\b")),
    (
        "date",
        re.compile(r"\b(?:\d{1,2} )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* \d{1,2}(?:, \d{4})?"),
    ),
    ("random id", re.compile(r"\b(?=\w*\d)(?=\w*[a-zA-Z])\w{12,}\b")),
    ("counter", re.compile(r"\b\d+\b")),
)
JSON_MOST: Final = 16 * 1024  # characters looked at for words in another order
WORDS: Final = re.compile(r"[\w.+-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """What breaks the prefix of a route.

    Attributes:
        cause: "timestamp", "date", "uuid", "random id", "counter", "shuffled tools", "unsorted JSON",
            "changed history", or "text" for anything else.
        where: "tools", "system" or "messages[n]".
        before: the differing span in the request before; empty for history.
        now: the same in the newest one.
        offset: characters before it in that part.
        lost: share of the head that comes after it, 0 to 1.
        times: requests in a row it was seen in.
        tokens: of tools and system prompt, about.
        model: last asked.
    """

    route: str
    cause: str
    where: str
    before: str
    now: str
    offset: int
    lost: float
    times: int
    tokens: int = 0
    model: str = ""


@dataclass(slots=True)
class _Head:
    """Tools and system prompt as text."""

    tools: str
    system: str
    model: str
    times: int = 0
    finding: Finding | None = None


class Detector:
    """Compares each request with the one before; safe to use from many threads."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new and forget."""
        self._lock = threading.Lock()  # guards _heads and _talks
        self.clear()

    def clear(self) -> None:
        """Forget all requests and findings."""
        with self._lock:
            self._heads: Recent[str, _Head] = Recent(ROUTES)
            self._talks: Recent[tuple[str, int], list[int]] = Recent(CONVERSATIONS)  # hashes of messages
            self._histories: Recent[str, Finding] = Recent(ROUTES)

    def look(self, route: str, request: ChatRequest) -> Finding | None:
        """Compare a request with its route's last one; return what breaks the prefix, once it is sure."""
        tools = _dumped(request.tools) if request.tools else ""
        system = "\n".join([_text(m.get("content")) for m in request.messages if m["role"] in SYSTEM])
        if len(tools) + len(system) > HEAD_MOST:
            tools, system = tools[:HEAD_MOST], system[: max(0, HEAD_MOST - len(tools))]
        head = _Head(tools, system, request.model)
        with self._lock:
            last = self._heads.find(route)
            if head != last:
                self._heads.put(route, head)
        if last is not None:
            self._compare(route, last, head)
        self._follow(route, request)
        if head.finding is not None or not self._histories:
            return head.finding
        with self._lock:
            return self._histories.find(route)

    def _compare(self, route: str, last: _Head, head: _Head) -> None:
        if last.tools == head.tools and last.system == head.system:
            return
        head.times = last.times + 1
        if head.times >= REPEATS - 1:
            head.finding = _difference(route, last, head)

    def _follow(self, route: str, request: ChatRequest) -> None:
        """Compare the history with the one sent before in this conversation; its last message may change."""
        talk = conversation(request.messages, request.user)
        hashes = [hash(_text(m.get("content"))) for m in request.messages if m["role"] not in SYSTEM]
        with self._lock:
            last = self._talks.find((route, talk))
            self._talks.put((route, talk), hashes)
        if last is None:
            return
        kept = last[:-1]
        place = next((n for n, (a, b) in enumerate(zip(kept, hashes, strict=False)) if a != b), None)
        if place is None and len(hashes) >= len(kept):
            return
        place = place if place is not None else len(hashes)
        lost = 1 - place / max(1, len(last))
        with self._lock:
            known = self._histories.find(route)
            times = known.times + 1 if known is not None else 1
            where = f"messages[{place + len(request.messages) - len(hashes)}]"
            tokens = sum(estimate(_text(message.get("content"))) for message in request.messages)
            found = Finding(route, "changed history", where, "", "", 0, lost, times, tokens, request.model)
            self._histories.put(route, found)

    def finding(self, route: str) -> Finding | None:
        """Return what breaks the prefix of a route, the head first; None if nothing does."""
        with self._lock:
            head, history = self._heads.find(route), self._histories.find(route)
        if head is not None and head.finding is not None:
            return head.finding
        return history

    def findings(self) -> list[Finding]:
        """Return what breaks prefixes, of every route where something does."""
        with self._lock:
            routes = list(dict.fromkeys([*self._heads, *self._histories]))
        return [finding for route in routes if (finding := self.finding(route)) is not None]


def _dumped(tools: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(tools, ensure_ascii=False, default=str)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return repr(content) if content else ""


def _common(one: str, other: str) -> int:
    """Return the length of the common prefix, by halving: comparing slices is done in C."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _difference(route: str, last: _Head, head: _Head) -> Finding:
    where = "tools" if last.tools != head.tools else "system"
    before, now = (last.tools, head.tools) if where == "tools" else (last.system, head.system)
    place, known = _common(before, now), last.finding
    if known is not None and (known.where, known.offset) == (where, place):
        return replace(known, times=head.times + 1)
    cause, old, new = _named(where, before, now, place)
    whole = len(head.tools) + len(head.system)
    lost = 1 - (place if where == "tools" else len(head.tools) + place) / max(1, whole)
    tokens = estimate(head.tools) + estimate(head.system)
    return Finding(route, cause, where, old, new, place, lost, head.times + 1, tokens, head.model)


def _named(where: str, before: str, now: str, place: int) -> tuple[str, str, str]:
    """Return the cause of a difference, and the span in both texts."""
    if where == "tools" and (cause := _tools_cause(before, now)) is not None:
        return cause, *_spans(before, now, place)
    old, new = _spans(before, now, place)
    if "{" in now and len(before) == len(now) and _words(before, place) == _words(now, place):
        return "unsorted JSON", old, new
    found = _pattern_at(before, now, place)
    return found if found is not None else ("text", old, new)


def _words(text: str, place: int) -> list[str]:
    """Return the words of a text from a difference on, in one order; of a long one those nearest."""
    return sorted(WORDS.findall(text[place : place + JSON_MOST] if len(text) > JSON_MOST else text))


def _tools_cause(before: str, now: str) -> str | None:
    try:
        old, new = json.loads(before), json.loads(now)
    except ValueError:  # cut off
        return None
    if sorted(map(json.dumps, old)) == sorted(map(json.dumps, new)):
        return "shuffled tools"
    if sorted(json.dumps(ordered(t)) for t in old) == sorted(json.dumps(ordered(t)) for t in new):
        return "unsorted JSON"
    return None


def _pattern_at(before: str, now: str, place: int) -> tuple[str, str, str] | None:
    """Return the first cause whose pattern covers the difference in both texts."""
    begin = max(0, place - WINDOW)
    for cause, pattern in CAUSES:
        spans = [_covering(pattern, text[begin : place + WINDOW], place - begin) for text in (before, now)]
        if spans[0] is not None and spans[1] is not None:
            return cause, spans[0], spans[1]
    return None


def _covering(pattern: re.Pattern[str], text: str, place: int) -> str | None:
    return next((match[0] for match in pattern.finditer(text) if match.start() <= place < match.end() + 1), None)


def _spans(before: str, now: str, place: int) -> tuple[str, str]:
    return before[place : place + WINDOW // 2], now[place : place + WINDOW // 2]


def volatile_spans(text: str) -> list[tuple[str, str]]:
    """Return cause and text of what looks as if it changed with every request: times, dates, UUIDs."""
    found: dict[str, str] = {}
    for cause, pattern in CAUSES:
        if cause in ("uuid", "timestamp", "date") and (match := pattern.search(text[:HEAD_MOST])) is not None:
            found.setdefault(match[0], cause)
    return [
        (cause, span) for span, cause in found.items() if not any(span != other and span in other for other in found)
    ]
