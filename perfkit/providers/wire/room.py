"""How much room a provider says its limits have left, from the headers of its good replies.

OpenAI, Groq, Mistral and others send `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, Anthropic
`anthropic-ratelimit-{requests,tokens,...}-{limit,remaining,reset}`. `reset` is when the limit is whole again, so room
comes back little by little until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfkit.providers.wire.waits import number_told, seconds_told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Room", "room_told"]

_WORDS = ("remaining", "limit", "reset")
_MARK = "ratelimit-"  # in all the names
_KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
_OPENAI = tuple((kind, *(f"x-ratelimit-{word}-{kind}" for word in _WORDS)) for kind in _KINDS[:2])
_ANTHROPIC = tuple(
    (kind.rpartition("-")[2], *(f"anthropic-ratelimit-{kind}-{word}" for word in _WORDS)) for kind in _KINDS
)


@dataclass(frozen=True, slots=True)
class Room:
    """One limit of a provider, as it was when it answered.

    Attributes:
        kind: "requests" or "tokens".
        remaining: what may still be used.
        limit: what may be used at once when it is whole.
        reset: seconds until it is whole.
    """

    kind: str
    remaining: float
    limit: float
    reset: float

    def left(self, seconds: float) -> float:
        """Return what remains after `seconds` in which nobody used any."""
        if seconds >= self.reset:
            return self.limit
        return self.remaining + (self.limit - self.remaining) * seconds / self.reset

    def wait(self, amount: float, seconds: float) -> float:
        """Return how long it takes, from `seconds` after the answer on, until `amount` may be used."""
        lacking = min(amount, self.limit) - self.left(seconds)
        return lacking * self.reset / (self.limit - self.remaining) if lacking > 0 else 0.0


def room_told(headers: Mapping[str, str], *, now: float) -> tuple[Room, ...]:
    """Return what a reply says of its sender's limits; nothing for what it does not say, or not in full.

    Args:
        headers: of the reply, in a case-insensitive mapping.
        now: epoch seconds, for resets given as a point in time.
    """
    if _MARK not in " ".join(headers).lower():  # most servers say nothing, and every reply is asked
        return ()
    for names in (_OPENAI, _ANTHROPIC):
        found = tuple(_rooms(headers, names, now))
        if found:
            return found
    return ()


def _rooms(headers: Mapping[str, str], names: tuple[tuple[str, ...], ...], now: float) -> Iterator[Room]:
    for kind, remaining, limit, reset in names:
        told = headers.get(remaining)
        if told is None:
            continue
        left, most, wait = number_told(told), number_told(headers.get(limit)), seconds_told(headers.get(reset), now)
        if left is not None and most and wait is not None and left <= most:
            yield Room(kind, left, most, wait)
