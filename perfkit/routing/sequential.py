"""Statistics that may be looked at as often as one likes, as pure arithmetic.

A t-test that is repeated until it says yes says yes sooner or later, whatever is true. Here the evidence is a mixture
likelihood ratio (mSPRT: Robbins 1970; Johari, Koomen, Pekelis and Walsh, "Peeking at A/B Tests", KDD 2017): under no
difference it exceeds 1/alpha with probability alpha at most, over all looks together. Variances are estimated, so that
holds from `LEAST` observations on an arm, and for events from `LEAST_EVENTS` of either outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Comparison", "Moments", "compare"]

LEAST = 50  # observations on an arm before anything is said
LEAST_EVENTS = 5  # errors, and successes, of both arms together before anything is said of their rate
SCALE = 0.2  # of a standard deviation: the difference that is found soonest


@dataclass(slots=True)
class Moments:
    """Count, mean and variance of what was observed (Welford); merged, it is as if observed at one place."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean

    def add(self, value: float) -> None:
        """Take one observation."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self.squares += distance * (value - self.mean)

    def merge(self, other: Moments) -> None:
        """Take what was observed elsewhere (Chan, Golub and LeVeque 1979)."""
        total = self.count + other.count
        if not other.count:
            return
        distance = other.mean - self.mean
        self.squares += other.squares + distance * distance * self.count * other.count / total
        self.mean += distance * other.count / total
        self.count = total

    @property
    def variance(self) -> float:
        """Of one observation."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Return bounds of the true mean that hold at all looks together with 1 - alpha; None: too little is known."""
        if self.count < LEAST:
            return None
        reach = _radius(self.variance / self.count, SCALE**2 * self.variance, alpha)
        return self.mean - reach, self.mean + reach


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm against another in one respect.

    Attributes:
        difference: of the means, the second less the first.
        interval: bounds of the true difference that hold at all looks together; None while too little is known.
        p_value: of no difference, valid at any look; 1.0 while too little is known.
        is_real: it is below alpha.
    """

    difference: float
    interval: tuple[float, float] | None
    p_value: float
    is_real: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, in JSON types."""
        bounds = None if self.interval is None else list(self.interval)
        return {
            "difference": self.difference,
            "interval": bounds,
            "p_value": self.p_value,
            "is_real": self.is_real,
        }


def compare(first: Moments, second: Moments, *, alpha: float, events: bool = False) -> Comparison:
    """Compare two arms.

    Args:
        first: of the arm that is the measure.
        second: of the other one.
        alpha: how often a difference may be seen where there is none, over all looks.
        events: what is observed happens or not (1 or 0), so that few of either say nothing.
    """
    difference = second.mean - first.mean
    variance = _of_events(first, second) if events else _pooled(first, second)
    if min(first.count, second.count) < LEAST or variance <= 0 or (events and _is_rare(first, second)):
        return Comparison(difference, None, 1.0, is_real=False)
    error, spread = variance / first.count + variance / second.count, SCALE**2 * variance
    ratio = _log_ratio(difference, error, spread)
    reach = _radius(error, spread, alpha)
    p_value = math.exp(-max(0.0, ratio))
    return Comparison(difference, (difference - reach, difference + reach), p_value, is_real=p_value < alpha)


def _pooled(first: Moments, second: Moments) -> float:
    degrees = first.count + second.count - 2
    return (first.squares + second.squares) / degrees if degrees > 0 else 0.0


def _of_events(first: Moments, second: Moments) -> float:
    """Return the variance if there were no difference: one arm may always fail and the other never."""
    rate = (first.mean * first.count + second.mean * second.count) / max(1, first.count + second.count)
    return rate * (1 - rate)


def _is_rare(first: Moments, second: Moments) -> bool:
    happened = first.mean * first.count + second.mean * second.count
    return min(happened, first.count + second.count - happened) < LEAST_EVENTS


def _log_ratio(difference: float, error: float, spread: float) -> float:
    """Return the logarithm of the mixture likelihood ratio of "normal around 0 with variance `spread`" to "0"."""
    total = error + spread
    return 0.5 * math.log(error / total) + spread * difference * difference / (2 * error * total)


def _radius(error: float, spread: float, alpha: float) -> float:
    """Return the distance from the estimate at which the ratio is 1/alpha."""
    if error <= 0 or spread <= 0:
        return 0.0
    total = error + spread
    return math.sqrt(error * total / spread * (2 * math.log(1 / alpha) + math.log(total / error)))
