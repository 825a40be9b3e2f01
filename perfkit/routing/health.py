"""One registered provider and what is known of its health: latency, recent outcomes, breaker, cooldown, missing models.

Four things keep a provider from being chosen. Its breaker is open: after too many failures, and at once after a refused
key. It asked to be left alone for a while (429, or any error with Retry-After). It said that it does not have the
model; then one caller may ask for that model again after `open_seconds`. Or our own limits for it (its `Gates`) are
used up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from perfkit._taking import NO_WAIT, taken
from perfkit.errors import ModelNotFoundError, ProviderError, RateLimitError
from perfkit.resilience.breaker import CircuitBreaker, Rules
from perfkit.routing.performance import Performance
from perfkit.routing.room import LITTLE, ToldRoom
from perfkit.routing.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from perfkit.clock import Clock
    from perfkit.metrics import Handle
    from perfkit.routing.gates import Gates
    from perfkit.routing.policy import Verdict
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Candidate"]

COOLDOWN = 5.0  # seconds after a 429 that does not say how long


class Candidate(Performance):
    """A provider that a strategy may choose; strategies read its public attributes.

    Attributes:
        name: as registered.
        provider: the object that is called.
        weight: share of the traffic, for strategies that split it.
        priority: 1 is first.
        models: names it is registered for, None leaves it to the provider.
        handles: series of `provider_latency` by model.
        prices: of its models, as looked up: the settings they are of, and the price.
        fits_all: nothing is known that a request could ask too much of.
        gates: our own limits for it, None for none.
        ejected_until: monotonic second until which others are preferred: it is an outlier, or says it has no room.
        cooldown_until: monotonic second until which it asked to be left alone.
        scarce: it told of little room in its own limits.
        missing: models it does not have, to when they may be asked for again; never changed, replaced.
        clouded: monotonic second until which any of these or its gates may be in the way; its breaker is not meant.
    """

    __slots__ = ("_last_error", "_last_model", "_provider_offers", "_room", "_tell", "breaker", "clouded",
                 "cooldown_until", "ejected_until", "ejections", "fits_all", "gates", "handles", "missing",
                 "models", "name", "prices", "priority", "provider", "scarce", "slow_seconds", "weight")  # fmt: skip

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
        terms = terms if terms is not None else Terms()
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
        self._last_error: tuple[str, float, str] | None = None  # class name, epoch seconds, with the provider's code
        self._last_model: str | None = None
        self.cooldown_until = 0.0
        self.scarce = False
        self.missing: Mapping[str, float] = {}
        self._cloud()
        super().__init__(terms, clock)

    def _cloud(self) -> None:
        """See anew what may be in the way, under the lock."""
        always = self.gates is not None or self.scarce or self.missing
        self.clouded = math.inf if always else max(self.cooldown_until, self.ejected_until)

    def eject(self, until: float) -> None:
        """Let others be preferred until monotonic second `until`."""
        with self._lock:
            self.ejections += 1
            self.ejected_until = until
            self._cloud()

    def _after_fork(self) -> None:
        super()._after_fork()
        self.breaker._after_fork()  # bound itself, but later than the router, which sets its rules
        if self.gates is not None:
            self.gates._after_fork()

    def offers(self, model: str | None) -> bool:
        """Whether the provider is registered for `model`; None asks for no model in particular."""
        if self.models is not None and model is not None:
            return model in self.models
        return model is None or self._provider_offers is None or bool(self._provider_offers(model))

    @property
    def waiting(self) -> int:
        """Calls that wait for it."""
        return 0 if self.gates is None else self.gates.waiting

    @property
    def headroom(self) -> float:
        """Part of our limits for it, and of those its replies tell of, that is free, 0..1."""
        told = self._room.free(self.clock.now()) if self._room.told else 1.0
        return told if self.gates is None else min(told, self.gates.headroom)

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
        now = self.clock.now()
        if not self.breaker.ready(now) or self.missing.get(model, now) > now:
            return None
        return max(earliest, self.cooldown_until)

    def why_not(self, model: str | None) -> str:
        """Return why no attempt may begin now, in words."""
        now, error = self.clock.now(), self._last_error[2] if self._last_error else "no error"
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
        permit = None
        if not self.missing or self._claim(request.model):
            permit = self.breaker.acquire()
        if permit is None:
            self._leave()
        else:
            lock = taken(self._lock)
            try:
                self._began(now)
            finally:
                lock.release()
        return permit

    def enter(self, now: float) -> int | None:
        """Take an attempt up when nothing clouds it: return its permit, or None when its breaker has just opened."""
        permit = self.breaker.permit
        if permit is None:
            return None
        lock = self._lock
        if not lock.acquire(NO_WAIT):
            taken(lock)
        try:
            self._began(now)
        finally:
            lock.release()
        return permit

    def _leave(self, seconds: float | None = None, *, refused: bool = False) -> None:
        if self.gates is not None:
            self.gates.leave(seconds, refused=refused)

    def _claim(self, model: str) -> bool:
        """Let one caller in `open_seconds` ask for a model that was missing."""
        now = self.clock.now()
        with self._lock:
            if self.missing.get(model, now) > now:
                return False
            if model in self.missing:
                self.missing = {**self.missing, model: now + self.breaker.rules.open_seconds}
                self._cloud()
        return True

    def served(self, permit: int, request: ChatRequest, response: ChatResponse, seconds: float, now: float) -> None:
        """Note an attempt that succeeded."""
        breaker, gates, room = self.breaker, self.gates, getattr(self.provider, "room", ())
        lock = self._lock
        if not lock.acquire(NO_WAIT):
            taken(lock)
        try:
            self.in_flight -= 1
            self._last_model = request.model
            self._succeeded(seconds, now)
            if room or self.missing:
                self._hear(room, request.model, response.usage.total_tokens, now)
        finally:
            lock.release()
        was = breaker.permit
        if self.slow_seconds is not None and seconds > self.slow_seconds:
            breaker.record(permit, "slow")
        else:
            breaker.succeeded(permit, now)
        if was is None and breaker.permit is not None:
            self._share("closed", 0.0)
        if gates is not None:
            gates.leave(seconds)
            gates.settle(request, response)

    def _hear(self, room: Sequence[Any], model: str, tokens: int, now: float) -> None:
        """Take in what an answer told of the provider's own limits, and that it has `model`, under the lock."""
        if room:
            alone = self._room.hear(room, tokens, self.in_flight, now)
            self.scarce = self._room.free(now) < LITTLE
            if alone:
                self.ejected_until = max(self.ejected_until, now + alone)
        if model in self.missing:
            self.missing = {name: until for name, until in self.missing.items() if name != model}
        self._cloud()

    def failed(
        self, permit: int, request: ChatRequest, error: BaseException | None, verdict: Verdict, seconds: float
    ) -> None:
        """Note an attempt that did not succeed; an error that is not the provider's leaves its record as it was."""
        now, wall = self.clock.now(), self.clock.wall()
        cooled = missing = 0.0
        with self._lock:
            self.in_flight -= 1
            if verdict.elsewhere:
                kind, code = type(error).__name__, getattr(error, "code", None)
                self._last_error = kind, wall, f"{kind} ({code})" if code else kind
                self._failed(seconds, now, cost=verdict.event != "success")
                cooled, missing = self._cool(error, request.model, now)
                self._cloud()
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
        now = self.clock.now()
        if kind == "open":
            self.breaker.hold_open(seconds)
        elif kind == "closed":
            self.breaker.allow_probe()
        with self._lock:
            if kind == "cooldown":
                self.cooldown_until = max(self.cooldown_until, now + seconds)
            elif kind == "missing" and model is not None:
                self.missing = {**self.missing, model: now + seconds}
            self._cloud()

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

    def health(self) -> dict[str, Any]:
        """Return the state in JSON types, consistent in itself; see ProviderRouter.health."""
        now = self.clock.now()
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
