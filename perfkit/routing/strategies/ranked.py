"""Strategies that want the best candidate: in the order people gave, or by latency, load, price or quality."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from perfkit.routing.performance import quickest
from perfkit.routing.prices import cost_per_1k
from perfkit.routing.strategies import model_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit._settings import RouterSettings
    from perfkit.routing.health import Candidate

__all__ = ["BestQuality", "Cheapest", "LeastBusy", "LeastLatency", "Manual", "Priority"]


class Priority:
    """Priority 1 first; among equals the least busy."""

    _rank = attrgetter("priority", "in_flight")

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        return min(candidates, key=self._rank)

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"priority {candidate.priority}"


class LeastLatency:
    """The least expected seconds an attempt; untried and long unused candidates are explored, one attempt at a time."""

    _rank = attrgetter("expected", "in_flight", "priority")

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        return quickest(candidates, candidates[0].clock.now()) or min(candidates, key=self._rank)

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return "untried" if candidate.latency is None else f"fastest {candidate.latency:.2f} s"


class LeastBusy:
    """The fewest calls under way and waiting (RecoAgent's load balancer)."""

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        return min(candidates, key=lambda candidate: (self.load(candidate), candidate.expected, candidate.priority))

    @staticmethod
    def load(candidate: Candidate) -> int:
        """Return active and queued calls."""
        return candidate.in_flight + candidate.waiting

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"least busy with {self.load(candidate)} calls"


class Cheapest:
    """The lowest price of the model asked for; who has no known price comes last."""

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        model = model_of(request)
        return min(candidates, key=lambda candidate: (self.price(candidate, model), *self._otherwise(candidate)))

    _otherwise = staticmethod(attrgetter("priority", "in_flight"))

    @staticmethod
    def price(candidate: Candidate, model: str | None) -> float:
        """Return dollars for 1,000 tokens, infinitely many if unknown."""
        cost = cost_per_1k(candidate, model)
        return math.inf if cost is None else cost

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"cheapest, {candidate.name}"


class BestQuality:
    """The best answers, as judged or as registered; among equals the fastest."""

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        return min(candidates, key=lambda candidate: (-candidate.quality, candidate.expected, candidate.priority))

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return f"best quality {candidate.quality:.2f}"


class Manual:
    """The provider named as `[router] primary`; the others, by priority, only while it cannot be used."""

    heeds_room = True  # to the last of it: whoever names a provider means it

    def __init__(self) -> None:
        self._primary: str | None = None

    def configure(self, settings: RouterSettings) -> None:
        """Take the name from the settings, at every change of them."""
        self._primary = settings.primary

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        return min(candidates, key=lambda candidate: (candidate.name != self._primary, candidate.priority))

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        return "primary" if candidate.name == self._primary else f"primary {self._primary} cannot be used"
