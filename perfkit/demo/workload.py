"""What is asked: a mixed workload that is the same for the same seed, number of calls and threads.

Four in ten calls repeat one of a few questions at temperature 0, as the same page does for every visitor. The others
ask something new and leave the temperature to the provider; every fourth call is a stream.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Call", "workload"]

MAX_TOKENS = 16
_SHARES = {"repeated": 40, "fresh": 35, "stream": 25}  # percent

_REPEATED = (
    "What is a cache?",
    "Why is the first request slow?",
    "How does a pool of connections help?",
    "What does a health check do?",
    "When should a worker be restarted?",
    "What is a circuit breaker?",
    "How long should an answer be kept?",
    "Why do two servers disagree?",
    "What makes a queue grow?",
    "How is a slow query found?",
    "What does a timeout protect?",
    "Why count tokens before sending?",
    "How are logs kept small?",
    "What is a percentile?",
    "When is a retry harmful?",
    "How does a stream end?",
)
_PARTS = ("a cache", "a queue", "a worker", "a pool", "a log", "a key", "a breaker", "a budget", "a page", "a token")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the workload.

    Attributes:
        kind: "repeated", "fresh" or "stream".
        question: the user's message.
        temperature: None leaves it to the provider.
        max_tokens: bound of the answer.
    """

    kind: str
    question: str
    temperature: float | None = None
    max_tokens: int = MAX_TOKENS


def workload(seed: int, calls: int, *, dying_threads: int = 0) -> list[Call]:
    """Return the calls in the order in which they begin.

    Args:
        seed: of the choice.
        calls: how many.
        dying_threads: threads that make the calls, if a provider dies as the middle one begins: those under way then
            are streams, so that some are cut behind their first words.
    """
    chance = random.Random(seed)
    cut = range(calls // 2 - dying_threads, calls // 2)
    return [_call(chance, number, {"stream": 100} if number in cut else _SHARES) for number in range(calls)]


def _call(chance: random.Random, number: int, shares: Mapping[str, int]) -> Call:
    (kind,) = chance.choices(list(shares), list(shares.values()))
    if kind == "repeated":
        popularity = [1 / rank for rank in range(1, len(_REPEATED) + 1)]
        (question,) = chance.choices(_REPEATED, popularity)
        return Call(kind, question, temperature=0.0)
    one, other = chance.sample(_PARTS, 2)
    return Call(kind, f"How do {one} and {other} of size {number} go together?")
