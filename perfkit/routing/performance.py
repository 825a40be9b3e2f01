"""How one provider has done so far: latency, what an attempt is expected to cost, quality, the latest outcomes.

Expectations are moving averages in which a slow answer counts at once (Finagle's peak EWMA) and what is not used fades,
so that who was passed over is tried again.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from perfkit._taking import taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.clock import Clock
    from perfkit.routing.terms import Terms

__all__ = ["Performance", "quickest"]

MEMORY = 60.0  # seconds in which an estimate fades to 1/e
PEAK_MEMORY = 10.0  # seconds in which what a slow answer adds to it does (Finagle's decay of peak EWMA)
LEAST_WEIGHT = 0.1  # of a new sample, however fast samples come
SOON = -MEMORY * math.log(1 - LEAST_WEIGHT)  # seconds after which a sample weighs more than that
IDLE = MEMORY * math.log(2)  # half of an estimate is left: who is tried then is judged anew, not by what he was
FAILURE_COST = 1.0  # seconds a failed attempt counts at least: it has to be made again elsewhere
WINDOW = 100  # outcomes the success rate is made of
UNJUDGED = 0.75  # quality of a provider nobody has judged


class Performance:
    """What is known of a provider's attempts; what is said of the ways to note them is said under the lock.

    Args:
        terms: its registered quality is believed until its answers are judged.
        clock: of the router.

    Attributes:
        terms, clock: the same.
        latency: moving average of successful attempts in seconds, None before the first.
        cost: the same with failures at what they cost the caller.
        excess: seconds that the last slow answer took beyond that.
        sampled: monotonic second of the latest outcome.
        used: when an attempt last began.
        in_flight: attempts under way.
    """

    __slots__ = ("_explored", "_failures", "_first_tokens", "_judged", "_latencies", "_lock", "_recent", "_seconds",
                 "_successes", "clock", "cost", "excess", "in_flight", "latency", "sampled",
                 "terms", "used")  # fmt: skip

    def __init__(self, terms: Terms, clock: Clock) -> None:
        self.terms, self.clock = terms, clock
        self.latency: float | None = None
        self.cost: float | None = None
        self.excess = self.sampled = self.used = 0.0
        self._explored = 0.0  # what was believed of its cost when it was tried again after long
        self._judged: float | None = None  # moving average of the quality of its answers
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._first_tokens: deque[float] = deque(maxlen=WINDOW)
        self._successes = self._failures = 0  # since somebody looked for outliers
        self._seconds = 0.0  # that these successes took
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards all that changes here and in the Candidate, but for breaker and gates
        self.in_flight = 0

    @property
    def expected(self) -> float:
        """Seconds an attempt is expected to cost; what is not used fades to nothing, so that it is tried again.

        An untried provider costs nothing, so it is tried next; infinitely much while that first attempt is under way.
        """
        return self.expected_at(self.clock.now())

    def expected_at(self, now: float) -> float:
        """Return the same at monotonic second `now`."""
        cost, excess = self.cost, self.excess
        if cost is None:
            return math.inf if self.in_flight else 0.0
        if excess:
            cost += excess * math.exp((self.sampled - now) / PEAK_MEMORY)
        return cost * math.exp((self.used - now) / MEMORY)

    @property
    def known_quality(self) -> float | None:
        """The quality of its answers, 0..1: as judged, else as registered, None where neither is known."""
        return self._judged if self._judged is not None else self.terms.quality

    @property
    def quality(self) -> float:
        """The same, an average one where it is not known."""
        known = self.known_quality
        return UNJUDGED if known is None else known

    def usual_latency(self) -> float | None:
        """Return the seconds that 95 % of the last hundred answers stayed under, None below twenty answers."""
        return self._percentile_95(self._latencies)

    def usual_first_token(self) -> float | None:
        """Return the same of the time to the first text of streams."""
        return self._percentile_95(self._first_tokens)

    def _percentile_95(self, values: deque[float]) -> float | None:
        with self._lock:
            known = sorted(values)
        return known[int(len(known) * 0.95)] if len(known) >= 20 else None  # noqa: PLR2004

    def spoke(self, seconds: float) -> None:
        """Note after how long the first text of a stream came."""
        lock = taken(self._lock)
        self._first_tokens.append(seconds)
        lock.release()

    def judged(self, score: float) -> None:
        """Note the quality of an answer, 0..1."""
        with self._lock:
            self._judged = _moved(self._judged, score, LEAST_WEIGHT)

    def take_interval(self) -> tuple[int, int, float]:
        """Return attempts, failures, and the seconds of the others, since this was last asked."""
        with self._lock:
            successes, failures, seconds = self._successes, self._failures, self._seconds
            self._successes = self._failures = 0
            self._seconds = 0.0
        return successes + failures, failures, seconds

    def _began(self, now: float) -> None:
        """Note an attempt."""
        self.in_flight += 1
        if now - self.used > IDLE and self.cost is not None and not self._explored:
            self._explored = self.cost * math.exp((self.used - now) / MEMORY)
        self.used = now

    def _succeeded(self, seconds: float, now: float) -> None:
        """Note that an attempt succeeded."""
        since, self.sampled = now - self.sampled, now
        weight = LEAST_WEIGHT if since < SOON else 1 - math.exp(-since / MEMORY)
        latency, believed = self.latency, self._explored or self.cost
        self.latency = seconds if latency is None else latency + weight * (seconds - latency)
        self.cost = cost = seconds if believed is None else believed + weight * (seconds - believed)
        excess, beyond = self.excess, seconds - cost
        if excess:
            excess *= math.exp(-since / PEAK_MEMORY)
        self.excess = max(excess, beyond)
        self._explored = 0.0
        self._recent.append(True)
        self._latencies.append(seconds)
        self._successes += 1
        self._seconds += seconds

    def _failed(self, seconds: float, now: float, *, cost: bool) -> None:
        """Note that an attempt failed; with `cost`, that it was in vain."""
        self._recent.append(False)
        self._failures += 1
        if cost:
            weight = max(LEAST_WEIGHT, 1 - math.exp((self.sampled - now) / MEMORY))
            self.sampled = now
            self.cost = _moved(self.cost, max(seconds, FAILURE_COST), weight)


P = TypeVar("P", bound=Performance)


def _moved(average: float | None, sample: float, weight: float) -> float:
    return sample if average is None else average + weight * (sample - average)


def quickest(candidates: Sequence[P], now: float) -> P | None:
    """Return who is expected to cost the least seconds, None where two are equal or one is untried.

    `expected_at` is written out here: every routed call asks it of every candidate.
    """
    least, chosen = math.inf, None
    for one in candidates:
        cost, excess = one.cost, one.excess
        if cost is None:
            return None
        if excess:
            cost += excess * math.exp((one.sampled - now) / PEAK_MEMORY)
        cost *= math.exp((one.used - now) / MEMORY)
        if cost < least:
            least, chosen = cost, one
        elif cost == least:
            return None
    return chosen
