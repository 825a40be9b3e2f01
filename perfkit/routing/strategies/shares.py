"""Strategies that share calls out: in turn, by weight, or by chance."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.routing.health import Candidate

__all__ = ["Random", "RoundRobin", "TwoChoices", "Weighted"]


LEAST_SHARE = 0.01  # of a provider's weight, however little room its limits have


class RoundRobin:
    """Whoever's last turn is longest ago, so that turns stay even while candidates come and go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _turns and _turn
        self._turns: dict[str, int] = {}
        self._turn = 0

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:  # noqa: ARG002 - a strategy's form
        """Choose one of `candidates`."""
        with self._lock:
            chosen = min(candidates, key=lambda candidate: self._turns.get(candidate.name, 0))
            self._turn += 1
            self._turns[chosen.name] = self._turn
        return chosen

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"turn of {candidate.name}"


class Weighted:
    """Shares by weight, spread smoothly: 5:1:1 gives a a b a c a a (nginx's smooth weighted round robin).

    A weight counts as far as the provider's own limits have room, so traffic moves away before anybody answers 429.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _credit
        self._credit: dict[str, float] = {}

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:  # noqa: ARG002
        """Choose one of `candidates`."""
        with self._lock:
            weights = {c.name: c.weight * max(c.headroom, LEAST_SHARE) for c in candidates}
            credit = {name: self._credit.get(name, 0.0) + weight for name, weight in weights.items()}
            chosen = max(candidates, key=lambda candidate: credit[candidate.name])
            credit[chosen.name] -= sum(weights.values())
            self._credit.update(credit)
        return chosen

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"weight {candidate.weight:g}"


class Random:
    """Any of them, with equal chance."""

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:  # noqa: ARG002
        """Choose one of `candidates`."""
        return random.choice(candidates)

    def reason(self, candidate: Candidate) -> str:  # noqa: ARG002
        """Say why `candidate` was chosen."""
        return "random"


class TwoChoices:
    """The better of two taken by chance: expected seconds times calls under way, this one included.

    The power of two choices on peak EWMA, as in Finagle: no herd runs to whoever was fastest a moment ago, and who was
    left out is found again, because expectations fade. Who has little room left in his limits seems to have more work.
    """

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:  # noqa: ARG002
        """Choose one of `candidates`."""
        return min(random.sample(candidates, 2), key=self.load) if len(candidates) > 1 else candidates[0]

    @staticmethod
    def load(candidate: Candidate) -> float:
        """Return the expected seconds of all that would be under way."""
        work = candidate.expected * (candidate.in_flight + candidate.waiting + 1)
        return work / max(candidate.headroom, LEAST_SHARE)

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"better of two, {self.load(candidate):.2f} s of work"
