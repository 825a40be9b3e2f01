"""Strategies that share calls out: in turn, by weight, or by chance."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

from perfkit._taking import taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.routing.health import Candidate

__all__ = ["Random", "RoundRobin", "TwoChoices", "Weighted"]


LEAST_SHARE = 0.01  # of a provider's weight, however little room its limits have


class RoundRobin:
    """In turn: each turn moves a provider on by one step, shorter the more it weighs, and who is behind is next.

    Stride scheduling (Waldspurger and Weihl, 1995): who was away goes on where the others are, so turns stay even while
    candidates come and go. A weight counts as far as the provider's own limits have room.
    """

    heeds_room = True

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _at and _now
        self._at: dict[str, float] = {}  # name to how far it has come
        self._now = 0.0  # where the latest turn began

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        rooms = [c.headroom for c in candidates]
        lock, now, at = taken(self._lock), self._now, self._at
        try:
            places = [max(now, at.get(c.name, 0.0)) for c in candidates]
            self._now = least = min(places)
            chosen = places.index(least)
            candidate = candidates[chosen]
            at[candidate.name] = least + 1.0 / (candidate.weight * max(rooms[chosen], LEAST_SHARE))
        finally:
            lock.release()
        return candidate

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"turn of {candidate.name}"


class Weighted:
    """Shares by weight, spread smoothly: 5:1:1 gives a a b a c a a (nginx's smooth weighted round robin).

    A weight counts as far as the provider's own limits have room, so traffic moves away before anybody answers 429.
    """

    heeds_room = True

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _credit
        self._credit: dict[str, float] = {}

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        weights = {c.name: c.weight * max(c.headroom, LEAST_SHARE) for c in candidates}
        lock, known = taken(self._lock), self._credit
        try:
            credit = {name: known.get(name, 0.0) + weight for name, weight in weights.items()}
            chosen = max(candidates, key=lambda candidate: credit[candidate.name])
            credit[chosen.name] -= sum(weights.values())
            known.update(credit)
        finally:
            lock.release()
        return chosen

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"weight {candidate.weight:g}"


class Random:
    """Any of them, with equal chance as far as their limits have room."""

    heeds_room = True

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        rooms = [max(c.headroom, LEAST_SHARE) for c in candidates]
        left = random.random() * sum(rooms)
        for candidate, room in zip(candidates, rooms, strict=True):
            left -= room
            if left < 0:
                return candidate
        return candidates[-1]

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return "random"


class TwoChoices:
    """The better of two taken by chance: expected seconds times calls under way, this one included.

    The power of two choices on peak EWMA, as in Finagle: no herd runs to whoever was fastest a moment ago, and who was
    left out is found again, because expectations fade. Who has little room left in his limits seems to have more work.
    """

    heeds_room = True

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        if len(candidates) == 1:
            return candidates[0]
        first = int(random.random() * len(candidates))
        other = (first + 1 + int(random.random() * (len(candidates) - 1))) % len(candidates)
        one, two = candidates[first], candidates[other]
        return one if self.load(one) <= self.load(two) else two

    @staticmethod
    def load(candidate: Candidate) -> float:
        """Return the expected seconds of all that would be under way."""
        work = candidate.expected * (candidate.in_flight + candidate.waiting + 1)
        return work / max(candidate.headroom, LEAST_SHARE)

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"better of two, {self.load(candidate):.2f} s of work"
