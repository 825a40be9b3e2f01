"""Strategies that share calls out: in turn, by weight, or by chance."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.routing.health import Candidate

__all__ = ["Random", "RoundRobin", "Weighted"]


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
    """Shares by weight, spread smoothly: 5:1:1 gives a a b a c a a (nginx's smooth weighted round robin)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _credit
        self._credit: dict[str, float] = {}

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:  # noqa: ARG002
        """Choose one of `candidates`."""
        with self._lock:
            credit = {c.name: self._credit.get(c.name, 0.0) + c.weight for c in candidates}
            chosen = max(candidates, key=lambda candidate: credit[candidate.name])
            credit[chosen.name] -= sum(candidate.weight for candidate in candidates)
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
