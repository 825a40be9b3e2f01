"""May this answer be kept, for how long, and for whom: the rules of the cache as one table.

The smart policy keeps what is asked to be deterministic (temperature at most 0.1, AgentiCraft guide 5), keeps personal
questions apart by user or not at all, and keeps answers about "now" for minutes only (RAAF guide 3.6, made safe: the
guide strips the user from the key and so hands one user's answer to another).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.values import ChatRequest

__all__ = ["CURRENT_TTL", "MAX_TEMPERATURE", "NOT_ASKED", "CachePolicy", "Decision", "Traits", "decide", "read_traits"]

MAX_TEMPERATURE = 0.1  # AgentiCraft guide 5: above it the caller wants variety
CURRENT_TTL = 300.0  # RAAF guide 3.6: current information, 5 minutes

# A text is split into its set of words first; a pattern runs only where one of its words occurs.
_TO_SPACE = str.maketrans(dict.fromkeys('.,;:!?()[]{}<>"*/\\|\n\t\r', " "))
_MAIL = re.compile(r"[\w+-]@[\w-]+\.\w")
_DIGITS = re.compile("[0-9]")
_NUMBER = re.compile(
    r"(?<!\d)(?:\+\d{1,3}[ -]?)?(?:\(\d{2,4}\)[ -]?)?\d{2,4}[ -]\d{3,4}[ -]?\d{3,4}(?!\d)|"  # of a phone
    r"(?<!\d)(?:\d[ -]?){13,19}(?!\d)"  # of a card
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OWNERS = _words("my mine our")
_OWNED = _words("""account order password pin card balance address e-mail email phone name birthday salary statement
    transfer payment transaction refund subscription invoice appointment diagnosis prescription passport profile booking
    reservation ticket delivery package""")
_REACH = 4  # words from "my" to what is mine: "my last two orders"
_TELLERS = _words("i we")
_TOLD = _words("am are was were have had ordered paid bought live work lost forgot booked")
_SHORT_TOLD = _words("i'm i've we're we've")
_CURRENT = _words("today tonight now current currently latest recent recently yesterday tomorrow weather")
_PHRASED = _words("this stock time")
_CURRENT_PHRASE = re.compile(r"\bthis (?:week|month|year)\b|\bstock price\b|\bwhat.{0,20}time\b")


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How a call uses the cache; `cache="always"` is `CachePolicy()`, "never" is `CachePolicy(exact=False)`.

    Args:
        exact: keep the answer and serve it to the same question again.
        scope: whose the answer is: "user" or "public"; None means the user's if one is given, else public.
        ttl: seconds; None means the cache's own.
        smart: decide by the rules of this module whether to keep it at all.
        cacheable: under the smart rules, keep answers whatever the temperature.
    """

    exact: bool = True
    scope: Literal["user", "public"] | None = None
    ttl: float | None = None
    smart: bool = False
    cacheable: bool | None = None

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
    words = text.translate(_TO_SPACE).split()
    kinds = set(words)
    personal = (
        _owns(words, kinds)
        or _tells(words, kinds)
        or ("@" in text and _MAIL.search(text) is not None)
        or (_DIGITS.search(text) is not None and _NUMBER.search(text) is not None)
    )
    current = not kinds.isdisjoint(_CURRENT) or (
        not kinds.isdisjoint(_PHRASED) and _CURRENT_PHRASE.search(text) is not None
    )
    return Traits(personal, current)


def _owns(words: list[str], kinds: set[str]) -> bool:
    """Tell whether somebody speaks of a thing of his own: "my account", "our last two orders"."""
    if kinds.isdisjoint(_OWNERS):
        return False
    owners = (at for at, word in enumerate(words) if word in _OWNERS)
    return any(w in _OWNED or w.removesuffix("s") in _OWNED for at in owners for w in words[at + 1 : at + _REACH])


def _tells(words: list[str], kinds: set[str]) -> bool:
    """Tell whether somebody speaks of himself: "I have", "we ordered"."""
    if not kinds.isdisjoint(_SHORT_TOLD):
        return True
    if kinds.isdisjoint(_TELLERS) or kinds.isdisjoint(_TOLD):
        return False
    return any(word in _TELLERS and after in _TOLD for word, after in pairwise(words))


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
