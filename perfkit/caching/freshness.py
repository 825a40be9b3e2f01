"""May this answer be kept, for how long, and for whom: the rules of the cache as one table.

The smart policy keeps what is asked to be deterministic (temperature at most 0.1, AgentiCraft guide 5), keeps personal
questions apart by user or not at all, and keeps answers about "now" for minutes only (RAAF guide 3.6, made safe: the
guide strips the user from the key and so hands one user's answer to another).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from perfkit.caching.personal import is_personal
from perfkit.caching.vocabulary import TO_SPACE, words_of
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.values import ChatRequest

__all__ = ["CURRENT_TTL", "MAX_TEMPERATURE", "NOT_ASKED", "CachePolicy", "Decision", "Traits", "decide", "read_traits"]

MAX_TEMPERATURE = 0.1  # AgentiCraft guide 5: above it the caller wants variety
CURRENT_TTL = 300.0  # RAAF guide 3.6: current information, 5 minutes

# What is true for minutes only.
_CURRENT = words_of("today today's tonight currently latest yesterday yesterday's tomorrow tomorrow's nowadays weather")
# These words only in these phrases; each pattern begins with letters, which is what makes a search fast.
_PHRASES = {
    "now": re.compile(r"(?:right|is|are|it|open|happening|doing) now\b|now[?.!]*$"),
    "score": re.compile(r"the score\b.{0,20}\bgame\b"),
    "traffic": re.compile(r"traffic (?:on|in|to)\b"),
    "recent": re.compile(r"most recent|recent (?:news|events|changes|developments)"),
    "this": re.compile(r"this (?:week|month|year|morning|evening|season)\b"),
    "stock": re.compile(r"stock (?:price|market)"),
    "time": re.compile(r"time is it\b"),
    "what": re.compile(r"what is the time(?: in\b| now\b| *[?.!]*$)"),
    "what's": re.compile(r"what's the time(?: in\b| now\b| *[?.!]*$)"),
    "current": re.compile(
        r"current (?:\w+ )?(?:weather|temperature|price|rate|news|president|chancellor|minister|ceo|pope|king|"
        r"status|events?|time|date|year|month|version|champions?|population|record|situation|score|"
        r"head of|market|leader|holder)"
    ),
}
_CALL = re.compile(r"\w\(\)")  # now() is code


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How a call uses the cache; `cache="always"` is `CachePolicy()`, "never" is `CachePolicy(exact=False)`.

    Args:
        exact: keep the answer and serve it to the same question again.
        scope: whose the answer is: "user" or "public"; None means the user's if one is given, else public.
        ttl: seconds; None means the cache's own.
        smart: decide by the rules of this module whether to keep it at all.
        cacheable: under the smart rules, keep answers whatever the temperature.

    Raises:
        TypeError, ValueError: one of them is not what it has to be.
    """

    exact: bool = True
    scope: Literal["user", "public"] | None = None
    ttl: float | None = None
    smart: bool = False
    cacheable: bool | None = None

    def __post_init__(self) -> None:
        for name, value in (("exact", self.exact), ("smart", self.smart), ("cacheable", self.cacheable)):
            if not isinstance(value, bool) and not (name == "cacheable" and value is None):
                raise TypeError(f"{name} must be True or False, not {value!r}")
        if self.scope not in (None, "user", "public"):
            raise ValueError(f"scope must be 'user', 'public' or None, not {self.scope!r}")
        if self.ttl is not None:
            finite("ttl", self.ttl, above=0)

    @classmethod
    def of(cls, cache: CachePolicy | str) -> CachePolicy:
        """Return the policy called "smart", "always" or "never", or the policy itself.

        Raises:
            ValueError: there is no such policy.
        """
        if isinstance(cache, CachePolicy):
            return cache
        if not isinstance(cache, str) or cache not in _NAMED:
            raise ValueError(f"cache must be {', '.join(map(repr, _NAMED))} or a CachePolicy, not {cache!r}")
        return _NAMED[cache]


_NAMED = {"smart": CachePolicy(smart=True), "always": CachePolicy(), "never": CachePolicy(exact=False)}


@dataclass(frozen=True, slots=True)
class Traits:
    """What the text of a request tells about its answer."""

    personal: bool
    current: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict: keep or not, how long (seconds), whose, and why in words."""

    keep: bool
    reason: str
    ttl: float | None = None
    user: str | None = None


NOT_ASKED = Decision(keep=False, reason="policy never")


def read_traits(request: ChatRequest) -> Traits:
    """Read the users' messages of a request for personal data and references to the present."""
    texts = [text for message in request.messages if message["role"] == "user" for text in _texts(message["content"])]
    read = [_traits_of(text.lower()) for text in texts]
    return Traits(any(t.personal for t in read), any(t.current for t in read))


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list | tuple) else []
    return [str(part.get("text", "")) for part in parts if isinstance(part, Mapping)]


def _traits_of(text: str) -> Traits:
    words = text.translate(TO_SPACE).split()
    kinds = set(words)
    return Traits(is_personal(text, words, kinds), _is_current(text, kinds))


def _is_current(text: str, kinds: set[str]) -> bool:
    if not kinds.isdisjoint(_CURRENT):
        return _CALL.search(text) is None
    return any(_PHRASES[word].search(text) is not None for word in kinds & _PHRASES.keys())


# Why the smart policy keeps nothing: the first rule that applies is the reason.
_REFUSALS: tuple[tuple[str, Callable[[ChatRequest, Traits, CachePolicy], bool]], ...] = (
    ("temperature not given", lambda request, _, policy: not policy.cacheable and request.temperature is None),
    (
        f"temperature above {MAX_TEMPERATURE}",
        lambda request, _, policy: not policy.cacheable and (request.temperature or 0) > MAX_TEMPERATURE,
    ),
    ("tools may have effects", lambda request, _, __: bool(request.tools)),
    ("personal data and no user given", lambda request, traits, _: traits.personal and request.user is None),
)


def decide(request: ChatRequest, traits: Traits, policy: CachePolicy) -> Decision:
    """Return what to do with the answer of `request`."""
    if not policy.exact:
        return NOT_ASKED
    if policy.scope == "user" and request.user is None:
        return Decision(keep=False, reason="policy wants a user and none is given")
    user = None if policy.scope == "public" else request.user
    if not policy.smart:
        return Decision(keep=True, reason="policy always", ttl=policy.ttl, user=user)
    for reason, applies in _REFUSALS:
        if applies(request, traits, policy):
            return Decision(keep=False, reason=reason)
    return _kept(traits, policy.ttl, request.user if traits.personal else user)


def _kept(traits: Traits, ttl: float | None, user: str | None) -> Decision:
    if traits.current:
        return Decision(keep=True, reason="current information", ttl=min(ttl or CURRENT_TTL, CURRENT_TTL), user=user)
    return Decision(keep=True, reason="public" if user is None else "for this user", ttl=ttl, user=user)
