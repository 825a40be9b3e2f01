"""What comes of the attempts of one call: health, metrics, money, the record of each, and whether another may follow.

The other half, who is asked next and when, is the `Call` that is built on this.
"""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from perfkit.errors import DeadlineExceeded, ProviderError
from perfkit.routing import audit
from perfkit.routing.policy import Verdict, backoff, judge, trouble
from perfkit.routing.remedies import models_for
from perfkit.values import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perfkit._settings import RouterSettings
    from perfkit.clock import Clock
    from perfkit.metrics import Handle, PerformanceTracker
    from perfkit.resilience.allowance import Allowance
    from perfkit.routing.health import Candidate
    from perfkit.routing.quality import Quality
    from perfkit.routing.strategies import Strategy
    from perfkit.routing.trial import Reserve, Trial
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["LEFT", "UNTOLD", "Course", "Options", "Setup", "latencies"]

SHARE = 2 / 3  # of the time left that an attempt gets while somebody else could still be asked
UNTOLD = Verdict("abandoned", elsewhere=False)  # the provider was not asked, or not heard out
LEFT = Verdict("success", elsewhere=False)  # output came: the provider works


def latencies(candidate: Candidate, model: str, tracker: PerformanceTracker) -> Handle:
    """Return the series of the seconds a provider took for a model's answers, found once."""
    handle = tracker.handle("provider_latency", {"provider": candidate.name, "model": model})
    candidate.handles[model] = handle
    return handle


@dataclass(frozen=True, slots=True)
class Setup:
    """What all calls of one router have in common."""

    settings: RouterSettings
    strategy: Strategy
    pick: Strategy  # the same, as a function where it is an object
    clock: Clock
    retries: Allowance
    offers: Callable[[str], list[Candidate]]  # who may be asked for a model, whatever his health
    models: Callable[[], frozenset[str]]  # offered by name
    reason: Callable[[Candidate], str]  # the strategy's, and what it wants to hear of attempts
    learn: Callable[..., None] | None
    eases: bool  # who has little room left is passed over now and then

    def share(self, left: float, *, others: bool) -> float:
        """Return the seconds an attempt gets of those left; `others`: somebody else could be asked after it."""
        limit = self.settings.attempt_timeout
        if limit is not None:
            return min(left, limit)
        return left * SHARE if others else left


class Options(NamedTuple):
    """What one call wants beyond its request."""

    max_attempts: int | None = None
    pinned: bool = False  # the caller named the only one who may be asked
    streaming: bool = False
    resume: bool = False
    reserve: Reserve | None = None  # holds money for an attempt; its errors end the call
    quality: Quality | None = None


class Course:
    """The attempts of one call until now.

    Args:
        setup: of the router.
        request: what is asked.
        offers: the providers that offer the model.
        tracker: gets latencies, failures and fallbacks.
        options: of the call.
        now: monotonic second it began; None means now.
    """

    attempts: tuple[Attempt, ...] = ()
    _error: BaseException | None = None  # of the last attempt
    _poor: tuple[float, Trial, ChatResponse] | None = None  # the best of the answers that were not good enough

    def __init__(
        self,
        setup: Setup,
        request: ChatRequest,
        offers: Sequence[Candidate],
        tracker: PerformanceTracker,
        options: Options,
        now: float | None = None,
    ) -> None:
        self._setup, self.request, self._offers, self.tracker = setup, request, offers, tracker
        self._options = options
        settings, timeout = setup.settings, request.timeout
        self._most = options.max_attempts if options.max_attempts is not None else settings.max_attempts
        now = setup.clock.now() if now is None else now
        self._deadline = now + (timeout if timeout is not None else settings.timeout)
        self._first = offers  # with a pinned provider, nobody else is ever asked
        self._tried: list[Candidate] = []
        self._again: dict[Candidate, float] = {}  # tried, yet may be asked again from that monotonic second on
        self._models = [request.model]  # asked for until now
        self._texts: list[str] = []  # of a stream that may be resumed
        self.resumable = options.resume
        setup.retries.earn()

    def succeed(self, trial: Trial, response: ChatResponse) -> ChatResponse | None:
        """Note success, pay, and return the response with its attempts; None if a better one is to be looked for."""
        candidate, request, now = trial.candidate, trial.request, self._setup.clock.now()
        seconds = now - trial.began - trial.pauses
        candidate.served(trial.permit, self.request, response, seconds, now)
        model = request.model
        (candidate.handles.get(model) or latencies(candidate, model, self.tracker)).record(seconds)
        self._error = None
        score = None if self._options.quality is None else self._options.quality.judge(candidate, request, response)
        if self._setup.learn is not None:
            self._setup.learn(candidate, request, seconds, response, score)
        if score is not None and self._too_poor(score, trial, response):
            return None
        self._log(trial, "ok", None, seconds)
        if self._poor is not None:
            self._write_off(*self._poor[1:])
            self._poor = None
        return self._paid(trial, response)

    def _others_left(self, now: float) -> bool:  # noqa: ARG002 - the Call knows
        return False

    def _too_poor(self, score: float, trial: Trial, response: ChatResponse) -> bool:
        """Keep an answer that is not good enough while somebody better can be asked."""
        rule = self._options.quality
        assert rule is not None
        if score >= rule.threshold or trial.shown:
            return False
        now = self._setup.clock.now()
        if not self._switch("quality") and not (self._others_left(now) and len(self.attempts) + 1 < self._most):
            if self._poor is None or self._poor[0] <= score:
                return False
            self._log(trial, "poor", None)
            self._write_off(trial, response)
            return True
        self._log(trial, "poor", None)
        worse = (score, trial, response)
        if self._poor is None or self._poor[0] <= score:
            worse, self._poor = self._poor, worse  # type: ignore[assignment]
        if worse is not None:
            self._write_off(*worse[1:])
        return True

    def _write_off(self, trial: Trial, response: ChatResponse) -> None:
        if trial.hold is not None:
            trial.hold.write_off(response)

    def settle_for_less(self) -> ChatResponse | None:
        """Return the best of the answers that were not good enough, paid; None if there was none."""
        if self._poor is None:
            return None
        _, trial, response = self._poor
        self._poor = None
        return self._paid(trial, response)

    def fail(self, trial: Trial, error: BaseException) -> bool:
        """Note a failure; return whether another attempt may follow, otherwise the error is the call's."""
        verdict = self._judged(trial, error)
        self._error = None
        self._end(trial, "error" if isinstance(error, Exception) else "abandoned", error, verdict)
        if trial.shown and not (self._options.resume and verdict.elsewhere):
            return False
        if not verdict.elsewhere:
            kind = trouble(error)
            if kind is None or not self._switch(kind):
                return False
            self._error = error
            return True
        candidate = trial.candidate
        self._again.pop(candidate, None)
        if verdict.again:
            told = isinstance(error, ProviderError) and error.retry_after is not None
            wait = 0.0 if told else backoff(len(self.attempts), random.random())  # what was told is its cooldown
            self._again[candidate] = self._setup.clock.now() + wait
        self._error = error
        return True

    def _switch(self, kind: str) -> bool:
        """Ask for another model from now on, if there is one for this kind of trouble."""
        for model in models_for(kind, self.request, self._models[0], self._setup):
            offers = [c for c in self._setup.offers(model) if not self._options.pinned or c in self._first]
            if model in self._models or not offers:
                continue
            self._models.append(model)
            self.request, self._offers = self.request.evolve(model=model), offers
            self._tried, self._again = [], {}
            return True
        return False

    def _judged(self, trial: Trial, error: BaseException) -> Verdict:
        verdict, usual = judge(error), trial.candidate.latency
        given = trial.request.timeout
        if isinstance(error, DeadlineExceeded) and usual is not None and given is not None and given < usual / 2:
            return verdict._replace(event="abandoned")  # so little time says nothing about the provider
        return verdict

    def abandon(self, trial: Trial, response: ChatResponse | None) -> None:
        """Note that the caller left a stream after output; `response` is what the provider made of it, if anything."""
        trial.left = True
        self._end(trial, "abandoned", None, LEFT, pay=response)

    def outrun(self, trial: Trial, response: ChatResponse | None = None) -> None:
        """Note that another attempt of a hedged pair was quicker; this one is cancelled, or its answer not used."""
        error = DeadlineExceeded("cancelled: another provider was quicker") if response is None else None
        trial.candidate.failed(trial.permit, trial.request, None, UNTOLD, trial.seconds)
        self._log(trial, "cancelled" if response is None else "outrun", None)
        if response is not None:
            self._write_off(trial, response)
        elif trial.hold is not None:
            trial.hold.release(error)

    def _end(
        self,
        trial: Trial,
        told: str,
        error: BaseException | None,
        verdict: Verdict,
        *,
        pay: ChatResponse | None = None,
    ) -> None:
        trial.candidate.failed(trial.permit, trial.request, error, verdict, trial.seconds)
        kind = None if error is None else type(error).__name__
        self._log(trial, told, kind)
        if kind is not None and verdict.elsewhere:
            tags = {"provider": trial.candidate.name, "model": trial.request.model, "error": kind}
            self.tracker.increment("provider_failure", tags=tags)
            if self._setup.learn is not None:
                self._setup.learn(trial.candidate, trial.request, trial.seconds, None, 0.0)
        if error is not None:
            self._sign(trial, error)
        if pay is not None:
            self._paid(trial, pay)
        elif trial.hold is not None:
            trial.hold.release(error)

    def _sign(self, trial: Trial, error: BaseException) -> None:
        if isinstance(error, ProviderError):
            error.provider = trial.candidate.name
        with suppress(AttributeError, TypeError):  # an exception may have slots
            error.attempts = self.attempts  # type: ignore[attr-defined]

    def _paid(self, trial: Trial, response: ChatResponse) -> ChatResponse:
        told = trial.hold.settle(response) if trial.hold is not None else None
        name = trial.candidate.name
        if told is None:
            return response.evolve(attempts=self.attempts, provider=name)
        return response.evolve(**told, attempts=self.attempts, provider=name)

    def _log(self, trial: Trial, told: str, error: str | None, seconds: float | None = None) -> None:
        took = trial.seconds if seconds is None else seconds
        name, model = trial.candidate.name, trial.request.model
        attempt = Attempt(name, model, trial.began_wall, took, told, error, trial.reason)
        self.attempts = (*self.attempts, attempt)
        if audit.TRACE in sys.modules:  # else nobody traces, as mostly
            audit.note(attempt)
