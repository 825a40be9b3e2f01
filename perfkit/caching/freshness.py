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

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.values import ChatRequest

__all__ = ["CURRENT_TTL", "MAX_TEMPERATURE", "CachePolicy", "Decision", "Traits", "decide", "read_traits"]

MAX_TEMPERATURE = 0.1  # AgentiCraft guide 5: above it the caller wants variety
CURRENT_TTL = 300.0  # RAAF guide 3.6: current information, 5 minutes

_PERSONAL = re.compile(
    r"[\w.+-]+@[\w-]+\.\w|"  # e-mail address
    r"(?<!\d)(?:\+\d{1,3}[ -]?)?(?:\(\d{2,4}\)[ -]?)?\d{2,4}[ -]\d{3,4}[ -]?\d{3,4}(?!\d)|"  # phone number
    r"(?<!\d)(?:\d[ -]?){13,19}(?!\d)|"  # card number
    r"\b(?:my|mine|our)\s+(?:\w+\s+){0,2}?(?:account|accounts|order|orders|password|pin|card|cards|balance|address|e-?mail|"
    r"phone|name|birthday|salary|statement|transfer|payment|payments|transaction|transactions|refund|subscription|"
    r"invoice|appointment|diagnosis|prescription|passport|profile|booking|reservation|ticket|delivery|package)\b|"
    r"\b(?:i|i'm|i've|we)\s+(?:am|was|have|had|ordered|paid|bought|live|work|lost|forgot|booked)\b",
    re.IGNORECASE,
)
_CURRENT = re.compile(
    r"\b(?:today|tonight|now|current|currently|latest|recent|recently|yesterday|tomorrow|this (?:week|month|year)|"
    r"weather|stock price|what.{0,20}time)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How a call uses the cache.

    Args:
        mode: "smart" follows the rules, "always" keeps every answer, "never" none.
        ttl: seconds; None means the cache's own.
        shared: True lets users share answers even when a user is given; only for answers that are nobody's own.
        cacheable: True keeps answers whatever the temperature.
    """

    mode: Literal["smart", "always", "never"] = "smart"
    ttl: float | None = None
    shared: bool = False
    cacheable: bool | None = None


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


def read_traits(request: ChatRequest) -> Traits:
    """Read the users' messages of a request for personal data and references to the present."""
    texts = [text for message in request.messages if message["role"] == "user" for text in _texts(message["content"])]
    return Traits(any(_PERSONAL.search(t) for t in texts), any(_CURRENT.search(t) for t in texts))


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list | tuple) else []
    return [str(part.get("text", "")) for part in parts if isinstance(part, Mapping)]


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
    if policy.mode == "never":
        return Decision(keep=False, reason="policy never")
    if policy.mode == "always":
        user = None if policy.shared else request.user
        return Decision(keep=True, reason="policy always", ttl=policy.ttl, user=user)
    for reason, applies in _REFUSALS:
        if applies(request, traits, policy):
            return Decision(keep=False, reason=reason)
    return _kept(request, traits, policy)


def _kept(request: ChatRequest, traits: Traits, policy: CachePolicy) -> Decision:
    user = None if policy.shared and not traits.personal else request.user
    if traits.current:
        ttl = CURRENT_TTL if policy.ttl is None else min(policy.ttl, CURRENT_TTL)
        return Decision(keep=True, reason="current information", ttl=ttl, user=user)
    return Decision(keep=True, reason="public" if user is None else "for this user", ttl=policy.ttl, user=user)
