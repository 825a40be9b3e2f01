"""May this answer be kept, for how long, and for whom: the rules of the cache as one table.

The smart policy keeps what is asked to be deterministic (temperature at most 0.1, AgentiCraft guide 5), keeps personal
questions apart by user or not at all, and keeps answers about "now" for minutes only (RAAF guide 3.6, made safe: the
guide strips the user from the key and so hands one user's answer to another).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from perfkit.caching.personal import is_personal
from perfkit.caching.policy import CachePolicy
from perfkit.caching.remembering import remembered
from perfkit.caching.vocabulary import TO_SPACE, words_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.values import ChatRequest

__all__ = [
    "CURRENT_TTL",
    "MAX_TEMPERATURE",
    "NOT_ASKED",
    "RULES",
    "TTLS",
    "CachePolicy",
    "Decision",
    "Rule",
    "Traits",
    "decide",
    "read_traits",
]

MAX_TEMPERATURE = 0.1  # AgentiCraft guide 5: above it the caller wants variety
CURRENT_TTL = 300.0  # RAAF guide 3.6: current information, 5 minutes
# Seconds by kind (RAAF guide 3.6); what is somebody's own state changes as fast as what is current.
TTLS: Mapping[str, float] = MappingProxyType(
    {"current": CURRENT_TTL, "personal": 300.0, "support": 3600.0, "factual": 86_400.0, "default": 14_400.0}
)

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
# Questions whose answer stays (RAAF guide 3.6, at the beginning of a sentence), and the words they begin with.
_ASKING = words_of("what what's define explain how who when")
_OPENING = (
    r"(?:please |can you |could you )?(?:what (?:is|are|was|were|does)\b|what's\b|define\b|explain\b|"
    r"how to\b|who (?:is|are|was|were)\b|when (?:was|were|did)\b)"
)
_OPENS = re.compile(_OPENING).match
_OPENS_LATER = re.compile(r"[.!?]\s+" + _OPENING).search


@dataclass(frozen=True, slots=True)
class Traits:
    """What a request tells about its answer."""

    personal: bool
    current: bool
    factual: bool = False
    support: bool = False
    personalized: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict: keep or not, how long (seconds), whose, and why in words."""

    keep: bool
    reason: str
    ttl: float | None = None
    user: str | None = None
    stale_ttl: float | None = None
    tenant: str | None = None


NOT_ASKED = Decision(keep=False, reason="policy never")


def read_traits(request: ChatRequest) -> Traits:
    """Read the users' messages of a request for personal data and references to the present, and its context."""
    texts = [text for message in request.messages if message["role"] == "user" for text in _texts(message["content"])]
    read = [_traits_of(text) for text in texts]
    return Traits(
        any(one.personal for one in read),
        any(one.current for one in read),
        factual=bool(read) and read[-1].factual,
        support=request.metadata.get("conversation_type") == "support",
        personalized=bool(request.metadata.get("personalized")),
    )


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list | tuple) else []
    return [str(part.get("text", "")) for part in parts if isinstance(part, Mapping)]


@remembered
def _traits_of(text: str) -> Traits:
    """Return what one text tells; the earlier questions of a conversation come again with each turn."""
    written, text = text, text.lower()
    words = text.translate(TO_SPACE).split()
    kinds = set(words)
    return Traits(is_personal(written, text, words, kinds), _is_current(text, kinds), factual=_is_factual(text, kinds))


def _is_factual(text: str, kinds: set[str]) -> bool:
    return not kinds.isdisjoint(_ASKING) and (_OPENS(text) or _OPENS_LATER(text)) is not None


def _is_current(text: str, kinds: set[str]) -> bool:
    if not kinds.isdisjoint(_CURRENT):
        return _CALL.search(text) is None
    return any(_PHRASES[word].search(text) is not None for word in kinds & _PHRASES.keys())


class Rule(NamedTuple):
    """One rule of the smart policy: where it applies, the answer is not kept, its user's own, or kept for a time."""

    reason: str
    applies: Callable[[ChatRequest, Traits, CachePolicy], bool]
    outcome: Literal["uncached", "user", "ttl"]
    kind: str = ""  # the time to live, of TTLS


def _warm(request: ChatRequest, _: Traits, policy: CachePolicy) -> bool:
    return not policy.cacheable and (request.temperature or 0) > MAX_TEMPERATURE


# Of each outcome the first rule that applies counts. A "user" rule without a user means uncached.
RULES = (
    Rule("temperature not given", lambda r, _, p: not p.cacheable and r.temperature is None, "uncached"),
    Rule(f"temperature above {MAX_TEMPERATURE}", _warm, "uncached"),
    Rule("tools may have effects", lambda r, _, __: bool(r.tools), "uncached"),
    Rule("current information", lambda _, t, __: t.current, "ttl", "current"),
    Rule("personal data", lambda _, t, __: t.personal, "user", "personal"),
    Rule("personalised context", lambda _, t, __: t.personalized, "user"),
    Rule("support conversation", lambda _, t, __: t.support, "ttl", "support"),
    Rule("factual question", lambda _, t, __: t.factual, "ttl", "factual"),
)


def decide(
    request: ChatRequest, traits: Traits, policy: CachePolicy, *, ttls: Mapping[str, float] | None = None
) -> Decision:
    """Return what to do with the answer of `request`.

    Args:
        request: what was asked.
        traits: what `read_traits` says of it.
        policy: the caller's.
        ttls: seconds by kind, in place of those of TTLS; kinds that are missing keep theirs.
    """
    if not policy.exact:
        return NOT_ASKED
    tenant = str(request.metadata.get("tenant", "")) or None if policy.scope == "tenant" else None
    if (policy.scope == "user" and request.user is None) or (policy.scope == "tenant" and tenant is None):
        return Decision(keep=False, reason=f"policy wants a {policy.scope} and none is given")
    user = None if policy.scope in ("public", "tenant") else request.user
    if not policy.smart:
        return Decision(True, "policy always", policy.ttl, user, policy.stale_ttl, tenant)
    applying = [rule for rule in RULES if rule.applies(request, traits, policy)]
    for rule in applying:
        if rule.outcome == "uncached":
            return Decision(keep=False, reason=rule.reason)
        if rule.outcome == "user" and request.user is None:
            return Decision(keep=False, reason=f"{rule.reason} and no user given")
        user = request.user if rule.outcome == "user" else user
    kind = next((rule for rule in applying if rule.kind), _OTHERWISE)
    ttl = _seconds(kind.kind, policy.ttl, TTLS if ttls is None else ttls)
    reason = kind.reason or (applying[0].reason if applying else "public" if user is None else "for this user")
    return Decision(True, reason, ttl, user, policy.stale_ttl, tenant)


_OTHERWISE = Rule("", lambda *_: True, "ttl", "default")


def _seconds(kind: str, given: float | None, ttls: Mapping[str, float]) -> float:
    """Return how long an answer of a kind is kept; what is current is never kept longer, whatever the policy says."""
    usual = ttls.get(kind, TTLS[kind])
    if given is None:
        return usual
    return min(given, usual) if kind == "current" else given
