"""The promised error bound: which matches may be served so that at most a given share of what is served is wrong.

After vCache (arXiv 2502.03771): no fixed threshold is safe, so what is safe is learned from verified matches. A risk is
estimated for each match from its similarity, from how far the next other answer is, from how many of the nearest
questions have this answer, from how often this answer was verified right and wrong (so an entry has a threshold of its
own), and from the words the two questions share. Where vCache bounds the wrong ones among all answers, this bounds them
among those served, and tests it: for each of some risks, from the wanted rate on, a bet is kept that fewer than the
wanted share of the matches up to it are wrong, and what is served is up to the last of those won in a row. They may be
looked at after each match without being believed too often (Ville's inequality; "Learn then Test", arXiv 2110.01052).
The nearer a bet is to being lost, the more is verified. When more of what is or could soon be served turns out wrong
than the estimates can explain (Page's CUSUM test), the questions have changed: nothing is served until enough of the
new ones are verified.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from perfkit.values import finite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["ErrorBound", "Evidence", "upper_bound"]

CONFIDENCE = 0.95  # of upper_bound
FIRST = 100  # verified matches before the bets begin: the risks are rough until then
EVERY = 50  # verified matches between two fits
LEVELS = tuple(1.5**step for step in range(8))  # risks up to which may be served, as multiples of the wanted rate
CHANCE = 0.1  # that more is ever taken for safe than is, while questions stay as they are
BET = 0.25  # the true rate that is bet on, as a share of the wanted one
NEEDED = -math.log(CHANCE)
MOST = NEEDED + 2.0  # no more is kept, so that what was right long ago does not outweigh what is wrong today
STEPS = 8  # of Newton's method, started from the last result
# What is known before the first verified match: fitted on every second intent of banking77 and CLINC150.
PRIOR = (-2.78, -0.47, 0.9, -0.17, -0.92, 1.76, -1.91, 0.76)
PULL = (0.8, *(3.0,) * 7)  # how strongly the prior holds each of them: less, and it follows noise
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
    shared: int  # words that both questions have
    different: int  # words of either that the other has not

    def features(self) -> tuple[float, ...]:
        """Return the numbers the risk is computed from."""
        near = 10 * max(-0.1, min(self.margin, 0.3))
        counts = (self.right, self.wrong, self.shared, self.different)
        return (1.0, self.vote, 10 * (1 - self.similarity), near, *map(math.log1p, counts))


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


def _divergence(p: float, q: float) -> float:
    if q >= 1:
        return math.inf
    return (p * math.log(p / q) if p else 0.0) + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


class _Verified(NamedTuple):
    """A match whose truth is known."""

    features: tuple[float, ...]
    wrong: bool


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
        self._most, self._doubt = -1.0, 1.0  # risk up to which is served
        self._wealth = _Wealth(self.max_error_rate)
        self._worse = [0.0] * len(WORSE)  # CUSUM sums
        self.renew()

    def renew(self) -> None:
        """Make the lock new, after a fork."""
        self._lock = threading.Lock()  # guards all of the above

    def aim(self, rate: float) -> None:
        """Promise another rate from now on; what was verified before proves nothing about it."""
        with self._lock:
            if rate != self.max_error_rate:
                self.max_error_rate, self._wealth = rate, _Wealth(rate)
                self._most, self._doubt = -1.0, 1.0

    def risk(self, evidence: Evidence) -> float:
        """Return the estimated probability that a match is wrong."""
        return _risk(self._weights, evidence.features())

    def trusts(self, evidence: Evidence) -> bool:
        """Tell whether a match may be served."""
        return self.risk(evidence) <= self._most

    @property
    def doubt(self) -> float:
        """How near the evidence for what is served is to being too little: 1 just enough, 0 as much as is kept."""
        return self._doubt

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
            self._seen.append(_Verified(evidence.features(), not right))
            self._learned += 1
            if risk <= max(self._most, self.max_error_rate) and self._has_changed(risk, wrong=not right):
                self._start_anew()
            if self._learned > FIRST:
                self._wealth.bet(risk, wrong=not right)
                self._most, self._doubt = self._wealth.safe()
            due = self._learned % EVERY == 0
            seen = list(self._seen) if due else []
        if due:
            weights = _fit(seen, self._weights)
            with self._lock:
                self._weights = weights

    def _has_changed(self, risk: float, *, wrong: bool) -> bool:
        p = min(0.5, max(0.002, risk))
        for at, times in enumerate(WORSE):
            q = times * p / (1 + (times - 1) * p)
            self._worse[at] = max(0.0, self._worse[at] + math.log(q / p if wrong else (1 - q) / (1 - p)))
        return max(self._worse) > ALARM

    def _start_anew(self) -> None:
        self._most, self._doubt = -1.0, 1.0
        self._wealth = _Wealth(self.max_error_rate)
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


class _Wealth:
    """What bets against "more than `rate` of the matches up to this risk are wrong" have won, for each of LEVELS.

    Where that is true a bet cannot be expected to win, so the odds are CHANCE that any passes 1 / CHANCE, at however
    many times it is looked at (Ville's inequality): the stakes may be looked at after each match, and are.

    Args:
        rate: the wanted one.
    """

    def __init__(self, rate: float) -> None:
        self._rate = min(rate, 0.5)
        self._won = [0.0] * len(LEVELS)  # logarithms

    def bet(self, risk: float, *, wrong: bool) -> None:
        """Take in a match, with its risk as estimated before its truth was known."""
        rate = self._rate
        gain = math.log(BET) if wrong else math.log((1 - BET * rate) / (1 - rate))
        for at in range(bisect.bisect_left(LEVELS, risk / rate), len(LEVELS)):
            self._won[at] = min(MOST, self._won[at] + gain)

    def safe(self) -> tuple[float, float]:
        """Return the largest risk up to which all bets are won, -1 for none, and the doubt that is left there."""
        reached = list(takewhile(lambda won: won >= NEEDED, self._won))
        if not reached:
            return -1.0, 1.0
        return LEVELS[len(reached) - 1] * self._rate, (MOST - min(reached)) / (MOST - NEEDED)


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
