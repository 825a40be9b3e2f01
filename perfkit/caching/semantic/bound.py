"""The promised error bound: which matches may be served so that at most a given share of what is served is wrong.

After vCache (arXiv 2502.03771): no fixed threshold is safe, so what is safe is learned from verified matches. A risk is
estimated for each match from its similarity, from how far the next other answer is, from how many of the nearest
questions have this answer, and from how often this answer was verified right and wrong (so an entry has a threshold of
its own). A match is served when its risk is below the largest one under which, among the matches verified of late, the
upper confidence bound of the wrong ones is still below the wanted rate (Chernoff's bound with the relative entropy).
When more turn out wrong than the estimates can explain (Page's CUSUM test), the questions have changed: nothing is
served until enough of the new ones are verified.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from perfkit.values import finite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["ErrorBound", "Evidence", "upper_bound"]

CONFIDENCE = 0.95  # that the rate among what is served is below the bound, at each time it is looked at
FIRST = 100  # verified matches before anything is served
EVERY = 50  # verified matches between two looks
STEPS = 8  # of Newton's method, started from the last result
# What is known before the first verified match: fitted on halves of banking77 and CLINC150 that no figure is told of.
PRIOR = (-2.669, -1.55, 1.151, -0.774, -0.494, 1.238)
PULL = (0.8, 10.0, 10.0, 10.0, 10.0, 10.0)  # how strongly the prior holds each of them: less, and it follows noise
WORSE = (2.0, 4.0)  # what CUSUM looks for: wrong matches that many times as likely as estimated
ALARM = 6.0  # logarithm of the odds at which it is believed
KEPT = 150  # verified matches that are kept then


class Evidence(NamedTuple):
    """What is known of a match before it is served."""

    similarity: float
    margin: float  # to the next answer that is another one
    vote: float  # share of the nearest questions that have this answer
    right: int  # times this answer was verified
    wrong: int

    def features(self) -> tuple[float, ...]:
        """Return the numbers the risk is computed from."""
        near = 10 * max(-0.1, min(self.margin, 0.3))
        return (1.0, self.vote, 10 * (1 - self.similarity), near, math.log1p(self.right), math.log1p(self.wrong))


def upper_bound(wrong: float, of: int, *, confidence: float = CONFIDENCE) -> float:
    """Return the rate that the true one exceeds with a probability of at most 1 - `confidence`."""
    if of <= 0:
        return 1.0
    seen, allowed = wrong / of, -math.log(1 - confidence) / of
    low, high = seen, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _divergence(seen, middle) > allowed else (middle, high)
    return high


def _is_below(rate: float, wrong: int, of: int) -> bool:
    """Tell whether `upper_bound(wrong, of)` is at most `rate`, without looking for it."""
    return wrong < rate * of and _divergence(wrong / of, rate) * of >= -math.log(1 - CONFIDENCE)


def _divergence(p: float, q: float) -> float:
    if q >= 1:
        return math.inf
    return (p * math.log(p / q) if p else 0.0) + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


class _Verified(NamedTuple):
    """A match whose truth is known."""

    features: tuple[float, ...]
    wrong: bool
    risk: float  # as estimated before
    proven: bool  # its answer had been verified right before


class ErrorBound:
    """What one route has learned; its methods may be called from any thread.

    Args:
        max_error_rate: share of what is served that may be wrong, above 0.
        window: verified matches that are remembered: older ones say little when questions drift.
    """

    def __init__(self, max_error_rate: float, *, window: int = 4000) -> None:
        self.max_error_rate = finite("max_error_rate", max_error_rate, above=0)
        self._seen: deque[_Verified] = deque(maxlen=window)
        self._learned = self._changes = 0
        self._weights: tuple[float, ...] = PRIOR
        self._most = -1.0  # risk up to which is served
        self._worse = [0.0] * len(WORSE)  # CUSUM sums
        self.renew()

    def renew(self) -> None:
        """Make the lock new, after a fork."""
        self._lock = threading.Lock()  # guards all of the above

    def risk(self, evidence: Evidence) -> float:
        """Return the estimated probability that a match is wrong."""
        return _risk(self._weights, evidence.features())

    def trusts(self, evidence: Evidence) -> bool:
        """Tell whether a match may be served: an answer that was never verified may not."""
        return evidence.right > 0 and self.risk(evidence) <= self._most

    def learn(self, evidence: Evidence, *, right: bool, risk: float | None = None) -> None:
        """Take in a verified match, and now and then what follows from all of them.

        Args:
            evidence: what was known of it before.
            right: whether its answer was.
            risk: as it was estimated before the truth was known, where another process did; None: as it is now.
        """
        if risk is None:
            risk = self.risk(evidence)
        with self._lock:
            self._seen.append(_Verified(evidence.features(), not right, risk, evidence.right > 0))
            self._learned += 1
            if self._has_changed(risk, wrong=not right):
                self._start_anew()
            due = self._learned % EVERY == 0 and len(self._seen) >= FIRST
            seen = list(self._seen) if due else []
        if due:
            weights = _fit(seen, self._weights)
            most = _largest_safe(seen, self.max_error_rate)
            with self._lock:
                self._weights, self._most = weights, most

    def _has_changed(self, risk: float, *, wrong: bool) -> bool:
        p = min(0.5, max(0.002, risk))
        for at, times in enumerate(WORSE):
            q = times * p / (1 + (times - 1) * p)
            self._worse[at] = max(0.0, self._worse[at] + math.log(q / p if wrong else (1 - q) / (1 - p)))
        return max(self._worse) > ALARM

    def _start_anew(self) -> None:
        self._most = -1.0
        self._worse = [0.0] * len(WORSE)
        self._changes += 1
        while len(self._seen) > KEPT:
            self._seen.popleft()

    def stats(self) -> dict[str, float]:
        """Return how many were verified, in all and of late, the wrong of these, what is served, and the alarms."""
        with self._lock:
            wrong = sum(one.wrong for one in self._seen)
            return {
                "verified": self._learned,
                "of_late": len(self._seen),
                "wrong_of_late": wrong,
                "served_up_to_risk": self._most,
                "changes": self._changes,
            }


def _largest_safe(seen: list[_Verified], rate: float) -> float:
    """Return the largest risk up to which what was verified is safe, -1 if there is none.

    The risks are those estimated before the truth was known: no fit has made them look better than they are.
    """
    ordered = sorted((one.risk, one.wrong) for one in seen if one.proven)
    safe, wrong = len(ordered), sum(wrong for _, wrong in ordered)
    while safe and not _is_below(rate, wrong, safe):
        safe -= 1
        wrong -= ordered[safe][1]
    return ordered[safe - 1][0] if safe else -1.0


def _risk(weights: tuple[float, ...], features: tuple[float, ...]) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, sum(map(float.__mul__, weights, features))))))


def _fit(seen: list[_Verified], start: tuple[float, ...]) -> tuple[float, ...]:
    """Return the weights of a logistic regression, held near the prior (Newton's method)."""
    import numpy as np

    x: Floats = np.array([one.features for one in seen])
    y: Floats = np.array([one.wrong for one in seen], dtype=float)
    weights, prior, pull = np.array(start), np.array(PRIOR), np.array(PULL)
    for _ in range(STEPS):
        p: Floats = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (p - y) + pull * (weights - prior)
        curve = (x * (p * (1 - p))[:, None]).T @ x + np.diag(pull)
        weights = weights - np.linalg.solve(curve, slope)
    return tuple(map(float, weights))
