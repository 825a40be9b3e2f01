"""A strategy that learns who serves best: Thompson sampling over a reward of quality, latency and cost.

Each provider's mean reward is estimated from its attempts, old ones counting less and less, so that a silent change is
noticed; one sample of each estimate decides, so that who is uncertain is tried now and then (discounted Thompson
sampling: Raj and Kalyani, 2017).
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

from perfkit._taking import taken
from perfkit.routing.prices import cost_per_1k

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perfkit._settings import RouterSettings
    from perfkit.routing.health import Candidate
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Adaptive", "reward"]

WEIGHTS = {"quality": 0.4, "latency": 0.4, "cost": 0.2}
USUAL_SECONDS, USUAL_COST = 1.0, 0.01  # at which latency and cost earn half of what they can
DISCOUNT = 0.97  # of what was learnt, at each attempt of anybody
UNTRIED = 0.0, 0.0
SPREAD = 0.15  # standard deviation of a reward, for the width of estimates


def reward(weights: dict[str, float], quality: float, seconds: float, cost: float | None) -> float:
    """Return 0..1 for an answer: each part's share of its weight; an unknown cost earns half of it."""
    latency, price = weights["latency"], weights["cost"]
    earned = weights["quality"] * quality + latency * USUAL_SECONDS / (USUAL_SECONDS + seconds)
    earned += price * (0.5 if cost is None else USUAL_COST / (USUAL_COST + cost))
    return earned / (weights["quality"] + latency + price or 1.0)


class Adaptive:
    """Learns; `[router] reward` gives the weights of "quality", "latency" and "cost"."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the replacement of _arms and _weights
        self._arms: Mapping[str, tuple[float, float]] = {}  # name to discounted number and sum of rewards; replaced
        self._weights = dict(WEIGHTS)

    def configure(self, settings: RouterSettings) -> None:
        """Take the weights from the settings."""
        with self._lock:
            self._weights = {**WEIGHTS, **settings.reward}

    def __call__(self, candidates: Sequence[Candidate], request: Any) -> Candidate:
        """Choose one of `candidates`."""
        arms = self._arms
        return max(candidates, key=lambda candidate: self._sample(candidate, *arms.get(candidate.name, UNTRIED)))

    @staticmethod
    def _sample(candidate: Candidate, number: float, total: float) -> float:
        if not number:
            return 2.0 - candidate.in_flight  # untried ones first, one attempt at a time
        return random.gauss(total / number, SPREAD / (number + 0.1) ** 0.5)

    def learn(
        self,
        candidate: Candidate,
        request: ChatRequest,
        seconds: float,
        response: ChatResponse | None,
        score: float | None,
    ) -> None:
        """Take in what came of an attempt."""
        earned = 0.0
        if response is not None:
            per_1k = cost_per_1k(candidate, request.model)
            cost = None if per_1k is None else per_1k * response.usage.total_tokens / 1000
            earned = reward(self._weights, candidate.quality if score is None else score, seconds, cost)
        lock = taken(self._lock)
        try:
            arms = {name: (number * DISCOUNT, total * DISCOUNT) for name, (number, total) in self._arms.items()}
            number, total = arms.get(candidate.name, UNTRIED)
            arms[candidate.name] = (number + 1.0, total + earned)
            self._arms = arms
        finally:
            lock.release()

    def reason(self, candidate: Candidate) -> str:
        """Say why `candidate` was chosen."""
        number, total = self._arms.get(candidate.name, UNTRIED)
        return f"reward {total / number:.2f} of {number:.0f} attempts" if number else "untried"
