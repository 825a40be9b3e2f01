"""One registered provider and what is known of its health: latency, recent outcomes, breaker, cooldown, missing models.

Four things keep a provider from being chosen. Its breaker is open: after too many failures, and at once after a refused
key. It asked to be left alone for a while (429, or any error with Retry-After). It said that it does not have the
model; then one caller may ask for that model again after `open_seconds`. Or our own limits for it (its `Gates`) are
used up.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from perfkit._taking import taken
from perfkit.errors import ModelNotFoundError, ProviderError, RateLimitError
from perfkit.resilience.breaker import CircuitBreaker, Rules
from perfkit.routing.room import LITTLE, ToldRoom
from perfkit.routing.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perfkit.clock import Clock
    from perfkit.metrics import Handle
    from perfkit.routing.gates import Gates
    from perfkit.routing.policy import Verdict
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Candidate"]

MEMORY = 60.0  # seconds in which an estimate fades to 1/e
PEAK_MEMORY = 10.0  # seconds in which what a slow answer adds to it does (Finagle's decay of peak EWMA)
LEAST_WEIGHT = 0.1  # of a new sample, however fast samples come
IDLE = MEMORY * math.log(2)  # half of an estimate is left: who is tried then is judged anew, not by what he was
FAILURE_COST = 1.0  # seconds a failed attempt counts at least: it has to be made again elsewhere
COOLDOWN = 5.0  # seconds after a 429 that does not say how long
WINDOW = 100  # outcomes the success rate is made of
UNJUDGED = 0.75  # quality of a provider nobody has judged


class Candidate:
    """A provider that a strategy may choose; strategies read its public attributes.

    Attributes:
        name: as registered.
        provider: the object that is called.
        terms: what was agreed at registration.
        weight: share of the traffic, for strategies that split it.
        priority: 1 is first.
        models: names it is registered for, None leaves it to the provider.
        latency: moving average of successful attempts in seconds, None before the first.
        in_flight: attempts under way.
        handles: series of `provider_latency` by model.
        prices: of its models, as looked up: the settings they are of, and the price.
        fits_all: nothing is known that a request could ask too much of.
        gates: our own limits for it, None for none.
        ejected_until: monotonic second until which others are preferred: it is an outlier, or says it has no room.
        cooldown_until: monotonic second until which it asked to be left alone.
        scarce: it told of little room in its own limits.
        missing: models it does not have, to when they may be asked for again; never changed, replaced.
    """

    def __init__(  # noqa: PLR0913 - wired by the router
        self,
        name: str,
        provider: Any,
        *,
        terms: Terms | None = None,
        rules: Rules,
        clock: Clock,
        gates: Gates | None = None,
        tell: Callable[[str, str, float, str | None], None] | None = None,
    ) -> None:
        self.name, self.provider = name, provider
        self.terms = terms = terms if terms is not None else Terms()
        self.weight, self.priority, self.models = terms.weight, terms.priority, terms.models
        self.fits_all = terms.fits_all
        self.gates = gates
        self._tell = tell
        self._room = ToldRoom()
        self._provider_offers = getattr(provider, "offers", None)
        self.breaker = CircuitBreaker(name, rules=rules, clock=clock)
        self.slow_seconds: float | None = None
        self.handles: dict[str, Handle] = {}
        self.prices: dict[str | None, tuple[Any, Any]] = {}
        self.ejected_until = 0.0
        self.ejections = 0
        self._clock = clock
        self.latency: float | None = None
        self._cost: float | None = None  # like latency, with failures at what they cost the caller
        self._explored = 0.0  # what was believed of its cost when it was tried again after long
        self._excess = 0.0  # what the last slow answer took beyond _cost
        self._judged: float | None = None  # moving average of the quality of its answers
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._first_tokens: deque[float] = deque(maxlen=WINDOW)
        self._interval = (0, 0, 0.0)  # attempts, failures, seconds of the others, of late
        self._last_error: tuple[str, float] | None = None  # class name, epoch seconds
        self._last_model: str | None = None
        self._used = 0.0  # when an attempt last began
        self._sampled = 0.0
        self.cooldown_until = 0.0
        self.scarce = False
        self.missing: Mapping[str, float] = {}
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards everything above that changes, but for breaker, gates and handles
        self.in_flight = 0
        if self.gates is not None:
            self.gates._after_fork()  # noqa: SLF001 - its owner

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
        cost, excess = self._cost, self._excess
        if cost is None:
            return math.inf if self.in_flight else 0.0
        now = self._clock.now()
        if excess:
            cost += excess * math.exp((self._sampled - now) / PEAK_MEMORY)
        return cost * math.exp((self._used - now) / MEMORY)

    @property
    def waiting(self) -> int:
        """Calls that wait for it."""
        return 0 if self.gates is None else self.gates.waiting

    @property
    def headroom(self) -> float:
        """Part of our limits for it, and of those its replies tell of, that is free, 0..1."""
        told = self._room.free(self._clock.now()) if self._room.told else 1.0
        return told if self.gates is None else min(told, self.gates.headroom)

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

    def usable(self, model: str | None, now: float) -> bool:
        """Whether an attempt for `model` may begin at monotonic second `now`."""
        return self.healthy(model, now) and (self.gates is None or not self.gates.closed)

    def healthy(self, model: str | None, now: float) -> bool:
        """Whether nothing but our own limits keeps an attempt from beginning."""
        return (
            self.cooldown_until <= now
            and self.breaker.ready(now)
            and not (self.missing and self.missing.get(model or "", now) > now)
        )

    def ready_at(self, model: str, earliest: float) -> float | None:
        """Return when, from `earliest` on, a cooldown no longer stands in the way; None when something else does."""
        now = self._clock.now()
        if not self.breaker.ready(now) or self.missing.get(model, now) > now:
            return None
        return max(earliest, self.cooldown_until)

    def why_not(self, model: str | None) -> str:
        """Return why no attempt may begin now, in words."""
        now, error = self._clock.now(), self._last_error[0] if self._last_error else "no error"
        if self.cooldown_until > now:
            return f"cooling down for {self.cooldown_until - now:.1f} s after {error}"
        if self.missing.get(model or "", now) > now:
            return f"does not have the model; asked again in {self.missing[model or ''] - now:.1f} s"
        if not self.breaker.ready(now):
            return f"circuit {self.breaker.describe()}, after {error}"
        if self.gates is not None and (told := self.gates.why_closed()) is not None:
            return told
        return "was just taken by another call's probe"

    def admit(self, request: ChatRequest, now: float, *, passed: bool = False) -> int | None:
        """Take an attempt up: return its permit, or None when others were quicker.

        Args:
            request: of the attempt.
            now: monotonic second.
            passed: the gates have let it in already; on None they have been left.
        """
        if self.gates is not None and not passed and not self.gates.try_pass(request):
            return None
        state, permit = self.breaker.state, None
        if not self.missing or self._claim(request.model):
            permit = state.epoch if state.mode == "closed" else self.breaker.acquire()
        if permit is None:
            self._leave()
            return None
        lock = self._lock
        if not lock.acquire(blocking=False):
            taken(lock)
        try:
            self.in_flight += 1
            if self._cost is not None and now - self._used > IDLE and not self._explored:
                self._explored = self._cost * math.exp((self._used - now) / MEMORY)
            self._used = now
        finally:
            lock.release()
        return permit

    def _leave(self, seconds: float | None = None, *, refused: bool = False) -> None:
        if self.gates is not None:
            self.gates.leave(seconds, refused=refused)

    def _claim(self, model: str) -> bool:
        """Let one caller in `open_seconds` ask for a model that was missing."""
        now = self._clock.now()
        with self._lock:
            if self.missing.get(model, now) > now:
                return False
            if model in self.missing:
                self.missing = {**self.missing, model: now + self.breaker.rules.open_seconds}
        return True

    def served(self, permit: int, request: ChatRequest, response: ChatResponse, seconds: float, now: float) -> None:
        """Note an attempt that succeeded."""
        model, breaker, room = request.model, self.breaker, getattr(self.provider, "room", ())
        alone = self._room.hear(room, response.usage.total_tokens, self.in_flight - 1, now) if room else 0.0
        lock = self._lock
        if not lock.acquire(blocking=False):
            taken(lock)
        try:  # written out: every answer comes through here
            self.in_flight -= 1
            self._last_model = model
            if room:
                self.scarce = self._room.free(now) < LITTLE
                if alone:
                    self.ejected_until = max(self.ejected_until, now + alone)
            excess, since = self._excess, self._sampled - now
            peak = excess * math.exp(since / PEAK_MEMORY) if excess else 0.0
            weight = max(LEAST_WEIGHT, 1 - math.exp(since / MEMORY))
            self._sampled = now
            known, believed = self.latency, self._explored or self._cost
            self.latency = seconds if known is None else known + weight * (seconds - known)
            self._cost = cost = seconds if believed is None else believed + weight * (seconds - believed)
            excess = seconds - cost
            self._explored, self._excess = 0.0, max(peak, excess)
            self._recent.append(True)
            self._latencies.append(seconds)
            attempts, failures, total = self._interval
            self._interval = (attempts + 1, failures, total + seconds)
            if self.missing and model in self.missing:
                self.missing = {name: until for name, until in self.missing.items() if name != model}
        finally:
            lock.release()
        slow = self.slow_seconds is not None and seconds > self.slow_seconds
        was = breaker.state.mode
        breaker.record(permit, "slow" if slow else "success")
        if self.gates is not None:
            self.gates.leave(seconds)
            self.gates.settle(request, response)
        if was != "closed" and breaker.state.mode == "closed":
            self._share("closed", 0.0)

    def failed(
        self, permit: int, request: ChatRequest, error: BaseException | None, verdict: Verdict, seconds: float
    ) -> None:
        """Note an attempt that did not succeed; an error that is not the provider's leaves its record as it was."""
        now, wall = self._clock.now(), self._clock.wall()
        cooled = missing = 0.0
        with self._lock:
            self.in_flight -= 1
            if verdict.elsewhere:
                self._recent.append(False)
                self._last_error = type(error).__name__, wall
                self._note(failed=True, seconds=seconds)
                cooled, missing = self._cool(error, request.model, now)
            if verdict.elsewhere and verdict.event != "success":
                self._cost = _moved(self._cost, max(seconds, FAILURE_COST), self._weight(now))
        was = self.breaker.state.openings
        self.breaker.record(permit, verdict.event)
        self._leave(refused=isinstance(error, RateLimitError))
        if cooled:
            self._share("cooldown", cooled)
        if missing:
            self._share("missing", missing, request.model)
        state = self.breaker.state
        if state.mode == "open" and state.openings > was:
            self._share("open", state.until - now)

    def _share(self, kind: str, seconds: float, model: str | None = None) -> None:
        if self._tell is not None:
            self._tell(self.name, kind, seconds, model)

    def learn(self, kind: str, seconds: float, model: str | None = None) -> None:
        """Take in what a sibling process found out."""
        now = self._clock.now()
        if kind == "open":
            self.breaker.hold_open(seconds)
        elif kind == "closed":
            self.breaker.allow_probe()
        with self._lock:
            if kind == "cooldown":
                self.cooldown_until = max(self.cooldown_until, now + seconds)
            elif kind == "missing" and model is not None:
                self.missing = {**self.missing, model: now + seconds}

    def judged(self, score: float) -> None:
        """Note the quality of an answer, 0..1."""
        with self._lock:
            self._judged = _moved(self._judged, score, LEAST_WEIGHT)

    def take_interval(self) -> tuple[int, int, float]:
        """Return attempts, failures, and the seconds of the others, since this was last asked."""
        with self._lock:
            taken, self._interval = self._interval, (0, 0, 0.0)
        return taken

    def _note(self, *, failed: bool, seconds: float) -> None:
        attempts, failures, total = self._interval
        self._interval = (attempts + 1, failures + failed, total + (0.0 if failed else seconds))

    def _cool(self, error: BaseException | None, model: str, now: float) -> tuple[float, float]:
        """Stay away as long as the provider asks, of several answers till the latest end; return both waits or 0."""
        wait = error.retry_after if isinstance(error, ProviderError) else None
        if wait is None and isinstance(error, RateLimitError):
            wait = COOLDOWN
        if wait is not None:
            self.cooldown_until = max(self.cooldown_until, now + wait)
        if not isinstance(error, ModelNotFoundError):
            return wait or 0.0, 0.0
        left = {name: until for name, until in self.missing.items() if until > now}
        self.missing = {**left, model: now + self.breaker.rules.open_seconds}
        return wait or 0.0, self.breaker.rules.open_seconds

    def _weight(self, now: float) -> float:
        """Return how much a sample counts: the more, the older the estimate (after Finagle's decaying EWMA)."""
        weight = 1 - math.exp((self._sampled - now) / MEMORY)
        self._sampled = now
        return max(LEAST_WEIGHT, weight)

    def health(self) -> dict[str, Any]:
        """Return the state in JSON types, consistent in itself; see ProviderRouter.health."""
        now = self._clock.now()
        with self._lock:
            recent, error, latency, in_flight = list(self._recent), self._last_error, self.latency, self.in_flight
            missing, cooldown, model = self.missing, self.cooldown_until, self._last_model
        state = self.breaker.state
        usable = self.usable(None, now)
        reason = None if usable else self.why_not(None)
        return {
            "status": "unavailable" if not usable else "healthy" if not recent or all(recent[-5:]) else "degraded",
            "state": state.mode,
            "reason": reason,
            "error": reason if reason is not None else None if error is None else error[0],
            "model": model if model is not None else min(self.models, default=None) if self.models else None,
            "avg_latency": latency,
            "success_rate": 100 * sum(recent) / len(recent) if recent else None,
            "in_flight": in_flight,
            "waiting": self.waiting,
            "last_error": None if error is None else {"error": error[0], "at": error[1]},
            "cooldown": max(0.0, cooldown - now, state.until - now if state.mode != "closed" else 0.0),
            "ejected": max(0.0, self.ejected_until - now),
            "missing_models": sorted(model for model, until in missing.items() if until > now),
        }

    def __repr__(self) -> str:
        latency = "untried" if self.latency is None else f"{self.latency:.3f} s"
        return f"<Candidate {self.name!r} {self.breaker.describe()}, {latency}, {self.in_flight} in flight>"


def _moved(average: float | None, sample: float, weight: float) -> float:
    return sample if average is None else average + weight * (sample - average)
