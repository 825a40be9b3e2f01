"""One registered provider and what is known of its health: latency, recent outcomes, breaker, cooldown, missing models.

Three things keep a provider from being chosen. Its breaker is open: after failures in a row, and at once after a
refused key. It asked to be left alone for a while (429, or any error with Retry-After). Or it said that it does not
have the model; then one caller may ask for that model again after `open_seconds`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from perfkit.errors import ModelNotFoundError, ProviderError, RateLimitError
from perfkit.resilience.breaker import CircuitBreaker, Rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.clock import Clock
    from perfkit.metrics import Handle
    from perfkit.routing.policy import Verdict

__all__ = ["Candidate"]

MEMORY = 60.0  # seconds in which an estimate fades to 1/e
LEAST_WEIGHT = 0.1  # of a new sample, however fast samples come
FAILURE_COST = 1.0  # seconds a failed attempt counts at least: it has to be made again elsewhere
COOLDOWN = 5.0  # seconds after a 429 that does not say how long
WINDOW = 100  # outcomes the success rate is made of


class Candidate:
    """A provider that a strategy may choose; strategies read its public attributes.

    Attributes:
        name: as registered.
        provider: the object that is called.
        weight: share of the traffic, for strategies that split it.
        priority: 1 is first.
        models: names it is registered for, None leaves it to the provider.
        latency: moving average of successful attempts in seconds, None before the first.
        in_flight: attempts under way.
        handles: series of `provider_latency` by model.
    """

    def __init__(  # noqa: PLR0913 - all but the clock is what register_provider takes
        self,
        name: str,
        provider: Any,
        *,
        weight: float,
        priority: int,
        models: frozenset[str] | None,
        rules: Rules,
        clock: Clock,
    ) -> None:
        self.name, self.provider = name, provider
        self.weight, self.priority, self.models = weight, priority, models
        self._provider_offers = getattr(provider, "offers", None)
        self.breaker = CircuitBreaker(name, rules=rules, clock=clock)
        self.handles: dict[str, Handle] = {}
        self._clock = clock
        self.latency: float | None = None
        self._cost: float | None = None  # like latency, with failures at what they cost the caller
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._last_error: tuple[str, float] | None = None  # class name, epoch seconds
        self._used = 0.0  # when an attempt last began
        self._sampled = 0.0
        self._cooldown_until = 0.0
        self._missing: Mapping[str, float] = {}  # model to when it may be asked for again; never changed, replaced
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards everything above that changes, but for breaker and handles
        self.in_flight = 0

    def offers(self, model: str | None) -> bool:
        """Whether the provider is registered for `model`; None asks for no model in particular."""
        if self.models is not None and model is not None:
            return model in self.models
        return model is None or self._provider_offers is None or bool(self._provider_offers(model))

    @property
    def expected(self) -> float:
        """Seconds an attempt is expected to cost; what is not used fades to nothing, so that it is tried again.

        An untried provider costs nothing, so it is tried next; infinitely much while that first attempt is under way.
        """
        if self._cost is None:
            return math.inf if self.in_flight else 0.0
        return self._cost * math.exp((self._used - self._clock.now()) / MEMORY)

    def usable(self, model: str | None, now: float) -> bool:
        """Whether an attempt for `model` may begin at monotonic second `now`."""
        return (
            self._cooldown_until <= now
            and self.breaker.ready(now)
            and not (self._missing and self._missing.get(model or "", now) > now)
        )

    def ready_at(self, model: str, earliest: float) -> float | None:
        """Return when, from `earliest` on, a cooldown no longer stands in the way; None when something else does."""
        now = self._clock.now()
        if not self.breaker.ready(now) or self._missing.get(model, now) > now:
            return None
        return max(earliest, self._cooldown_until)

    def why_not(self, model: str | None) -> str:
        """Return why no attempt may begin now, in words."""
        now, error = self._clock.now(), self._last_error[0] if self._last_error else "no error"
        if self._cooldown_until > now:
            return f"cooling down for {self._cooldown_until - now:.1f} s after {error}"
        if self._missing.get(model or "", now) > now:
            return f"does not have the model; asked again in {self._missing[model or ''] - now:.1f} s"
        if not self.breaker.ready(now):
            return f"circuit {self.breaker.describe()}, after {error}"
        return "was just taken by another call's probe"

    def admit(self, model: str) -> int | None:
        """Take an attempt up: return its permit, or None when another caller's probe was quicker."""
        if self._missing and not self._claim(model):
            return None
        permit = self.breaker.acquire()
        if permit is None:
            return None
        now = self._clock.now()
        with self._lock:
            self.in_flight += 1
            self._used = now
        return permit

    def _claim(self, model: str) -> bool:
        """Let one caller in `open_seconds` ask for a model that was missing."""
        now = self._clock.now()
        with self._lock:
            if self._missing.get(model, now) > now:
                return False
            if model in self._missing:
                self._missing = {**self._missing, model: now + self.breaker.rules.open_seconds}
        return True

    def served(self, permit: int, model: str, seconds: float, now: float) -> None:
        """Note an attempt that succeeded."""
        with self._lock:
            self.in_flight -= 1
            weight = self._weight(now)
            self.latency = _moved(self.latency, seconds, weight)
            self._cost = _moved(self._cost, seconds, weight)
            self._recent.append(True)
            if model in self._missing:
                self._missing = {name: until for name, until in self._missing.items() if name != model}
        self.breaker.record(permit, "success")

    def failed(self, permit: int, model: str, error: BaseException | None, verdict: Verdict, seconds: float) -> None:
        """Note an attempt that did not succeed; an error that is not the provider's leaves its record as it was."""
        now, wall = self._clock.now(), self._clock.wall()
        with self._lock:
            self.in_flight -= 1
            if verdict.elsewhere:
                self._recent.append(False)
                self._last_error = type(error).__name__, wall
                self._cool(error, model, now)
            if verdict.elsewhere and verdict.event != "success":
                self._cost = _moved(self._cost, max(seconds, FAILURE_COST), self._weight(now))
        self.breaker.record(permit, verdict.event)

    def _cool(self, error: BaseException | None, model: str, now: float) -> None:
        """Stay away as long as the provider asks; of several answers the latest end counts."""
        wait = error.retry_after if isinstance(error, ProviderError) else None
        if wait is None and isinstance(error, RateLimitError):
            wait = COOLDOWN
        if wait is not None:
            self._cooldown_until = max(self._cooldown_until, now + wait)
        if isinstance(error, ModelNotFoundError):
            left = {name: until for name, until in self._missing.items() if until > now}
            self._missing = {**left, model: now + self.breaker.rules.open_seconds}

    def _weight(self, now: float) -> float:
        """Return how much a sample counts: the more, the older the estimate (after Finagle's decaying EWMA)."""
        weight = max(LEAST_WEIGHT, 1 - math.exp((self._sampled - now) / MEMORY))
        self._sampled = now
        return weight

    def health(self) -> dict[str, Any]:
        """Return the state in JSON types, consistent in itself; see ProviderRouter.health."""
        now = self._clock.now()
        with self._lock:
            recent, error, latency, in_flight = list(self._recent), self._last_error, self.latency, self.in_flight
            missing, cooldown = self._missing, self._cooldown_until
        state = self.breaker.state
        usable = self.usable(None, now)
        return {
            "status": "unavailable" if not usable else "healthy" if not recent or all(recent[-5:]) else "degraded",
            "state": state.mode,
            "reason": None if usable else self.why_not(None),
            "avg_latency": latency,
            "success_rate": 100 * sum(recent) / len(recent) if recent else None,
            "in_flight": in_flight,
            "last_error": None if error is None else {"error": error[0], "at": error[1]},
            "cooldown": max(0.0, cooldown - now, state.until - now if state.mode != "closed" else 0.0),
            "missing_models": sorted(model for model, until in missing.items() if until > now),
        }

    def __repr__(self) -> str:
        latency = "untried" if self.latency is None else f"{self.latency:.3f} s"
        return f"<Candidate {self.name!r} {self.breaker.describe()}, {latency}, {self.in_flight} in flight>"


def _moved(average: float | None, sample: float, weight: float) -> float:
    return sample if average is None else average + weight * (sample - average)
