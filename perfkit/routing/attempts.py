"""One call of the router from its first attempt to its answer or its error.

A `Call` lives in one thread. It decides who is asked next and with how much of the time that is left, keeps the record
of every attempt, and is the one place where waiting happens: only when nobody else can serve, and never beyond the
deadline.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from perfkit.errors import (
    DeadlineExceeded,
    MaxRetriesExceededError,
    NoAvailableProviderError,
    PerfkitError,
    ProviderError,
)
from perfkit.routing.policy import Verdict, backoff, judge
from perfkit.routing.strategies import choose, explain
from perfkit.values import Attempt, ChatRequest, ChatResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit._settings import RouterSettings
    from perfkit.clock import Clock
    from perfkit.metrics import PerformanceTracker
    from perfkit.routing.health import Candidate
    from perfkit.routing.strategies import Strategy

__all__ = ["Call", "Reservation", "Reserve", "Setup", "none_available"]

SHARE = 2 / 3  # of the time left that an attempt gets while somebody else could still be asked
UNTOLD = Verdict("abandoned", elsewhere=False)  # the provider was not asked
LEFT = Verdict("success", elsewhere=False)  # output came: the provider works
MOMENT = 0.001  # seconds: with less left the time is up


class Reservation(Protocol):
    """Money held for one attempt; `max_tokens`, if it has that, is the bound of the answer that it covers."""

    def settle(self, response: ChatResponse) -> None:
        """Pay what `response` cost."""

    def release(self, error: BaseException | None) -> None:
        """Give back what is not due for an attempt that ended with `error`; None: the caller left the stream."""


Reserve = Callable[[ChatRequest, str], Reservation]  # request of the attempt, name of the provider


@dataclass(frozen=True, slots=True)
class Setup:
    """What all calls of one router have in common."""

    settings: RouterSettings
    strategy: Strategy
    clock: Clock


class Call:
    """One call: attempts so far, time left, what to do next.

    Args:
        setup: of the router.
        request: what is asked.
        offers: the providers that offer the model.
        tracker: gets latencies, failures and fallbacks.
        pinned: the caller named the only one in `offers`.
        streaming: the answer is wanted as it comes.
        reserve: holds money for an attempt; its errors end the call.
        max_attempts: None means the setting.
    """

    def __init__(  # noqa: PLR0913 - internal: what a router and the parameters of its methods have to say
        self,
        setup: Setup,
        request: ChatRequest,
        offers: Sequence[Candidate],
        tracker: PerformanceTracker,
        *,
        pinned: bool,
        streaming: bool,
        reserve: Reserve | None,
        max_attempts: int | None,
    ) -> None:
        timeout = request.timeout if request.timeout is not None else setup.settings.timeout
        self._setup, self._offers, self._tracker = setup, offers, tracker
        self._pinned, self._streaming, self._reserve = pinned, streaming, reserve
        self._max_attempts = max_attempts if max_attempts is not None else setup.settings.max_attempts
        self._deadline = setup.clock.now() + timeout
        self._attempts: tuple[Attempt, ...] = ()
        self._tried: list[Candidate] = []
        self._again: dict[Candidate, float] = {}  # tried, yet may be asked again from that monotonic second on
        self._error: BaseException | None = None  # of the last attempt
        # The attempt under way:
        self._asked = request
        self.request = request  # `timeout` is the attempt's share, `max_tokens` what is paid for
        self.pauses = 0.0  # seconds the caller of a stream spent between two deltas
        self.shown = False  # output: the user would notice another provider
        self.left = False  # by the caller of a stream
        self._chosen: Candidate | None = None
        self._permit = 0
        self._reason = ""
        self._began = self._began_wall = 0.0
        self._hold: Reservation | None = None

    def begin(self) -> Candidate:
        """Choose a provider, take its permit, hold the money, and return it.

        Raises:
            NoAvailableProviderError, MaxRetriesExceededError, DeadlineExceeded: there is nobody left to ask.
            Exception: the error of the only attempt there was, or what `reserve` raised.
        """
        now = self._setup.clock.now()
        while not self._attempts or self._may_go_on(now):
            model = self.request.model
            untried = [c for c in self._offers if c not in self._tried and c.usable(model, now)]
            while untried:
                chosen = self._choose(untried)
                untried.remove(chosen)
                permit = chosen.admit(model)
                if permit is not None:
                    self._enter(chosen, permit, now, others=bool(untried))
                    return chosen
            if not self._wait(now):
                break
            now = self._setup.clock.now()
        raise self._final_error(now)

    def _may_go_on(self, now: float) -> bool:
        return len(self._attempts) < self._max_attempts and now < self._deadline - MOMENT

    def _choose(self, candidates: list[Candidate]) -> Candidate:
        if len(candidates) > 1:
            chosen = choose(self._setup.strategy, candidates, self.request)
            self._reason = explain(self._setup.strategy, chosen)
        else:
            chosen = candidates[0]
            self._reason = "pinned" if self._pinned else "only candidate"
        if self._error is not None:
            reason = "retry" if chosen in self._again else self._reason
            self._reason = f"{reason} after {type(self._error).__name__}"
        return chosen

    def _enter(self, chosen: Candidate, permit: int, now: float, *, others: bool) -> None:
        last, self._chosen, self._permit = self._chosen, chosen, permit
        self._began, self._began_wall, self.pauses = now, self._setup.clock.wall(), 0.0
        self._tried.append(chosen)
        self.request = self._limited(now, others=others)
        if last is not None and last is not chosen:
            tags = {"provider": last.name, "model": self.request.model}
            self._tracker.increment("provider_fallback", tags=tags)
        if self._reserve is not None:
            self._hold = self._reserved(self._reserve, chosen)
            bound = getattr(self._hold, "max_tokens", None)
            if bound is not None:
                self.request = self.request.evolve(max_tokens=bound)

    def _reserved(self, reserve: Reserve, chosen: Candidate) -> Reservation:
        try:
            return reserve(self.request, chosen.name)
        except BaseException as error:
            self._error = None
            chosen.failed(self._permit, self.request.model, error, UNTOLD, 0.0)
            self._sign(error)
            raise

    def _limited(self, now: float, *, others: bool) -> ChatRequest:
        """Return the attempt's request: a stream that has begun to speak may use all the time there is."""
        share = self._share(now, others=others)
        if self._streaming:
            return self._asked.evolve(timeout=self._deadline - now, first_token_timeout=share)
        return self._asked.evolve(timeout=share)

    def _share(self, now: float, *, others: bool) -> float:
        left, limit = self._deadline - now, self._setup.settings.attempt_timeout
        if limit is not None:
            return min(left, limit)
        return left * SHARE if others and len(self._attempts) + 1 < self._max_attempts else left

    def _wait(self, now: float) -> bool:
        """Wait until somebody takes attempts again who is cooling down or was asked in vain; False when nobody will."""
        times = {
            candidate: at
            for candidate in self._offers
            if (candidate not in self._tried or candidate in self._again)
            and (at := candidate.ready_at(self.request.model, self._again.get(candidate, now))) is not None
        }
        soonest = min(times, key=times.__getitem__, default=None)
        if soonest is None or times[soonest] >= self._deadline:
            return False
        if times[soonest] > now:
            self._setup.clock.sleep(times[soonest] - now)
        if soonest in self._tried:
            self._tried.remove(soonest)
        return True

    def _final_error(self, now: float) -> BaseException:
        error, self._error = self._error, None  # its traceback leads here: keep no circle
        if error is None:
            return none_available(self.request.model, self._offers)
        if len(self._attempts) == 1:
            return error
        told = "; ".join(f"{a.provider}: {a.error} after {a.seconds:.2f} s" for a in self._attempts)
        final: PerfkitError
        if now >= self._deadline - MOMENT:
            message = f"the call's time ran out after {len(self._attempts)} attempts: {told}"
            final = DeadlineExceeded(message, attempts=self._attempts)
        else:
            message = f"{len(self._attempts)} attempts for {self.request.model!r} failed: {told}"
            final = MaxRetriesExceededError(message, attempts=self._attempts)
        final.__cause__ = error
        return final

    def succeed(self, response: ChatResponse) -> ChatResponse:
        """Note success, pay, and return the response with its attempts."""
        candidate, now = self._current(), self._setup.clock.now()
        model, seconds = self.request.model, now - self._began - self.pauses
        candidate.served(self._permit, model, seconds, now)
        handle = candidate.handles.get(model)
        if handle is None:
            tags = {"provider": candidate.name, "model": model}
            handle = candidate.handles[model] = self._tracker.handle("provider_latency", tags)
        handle.record(seconds)
        self._error = None
        self._log("ok", None, seconds)
        return self._paid(response)

    def fail(self, error: BaseException) -> bool:
        """Note a failure; return whether another attempt may follow, otherwise the error is the call's."""
        candidate, verdict = self._current(), self._judged(error)
        self._error = None
        self._end("error" if isinstance(error, Exception) else "abandoned", error, verdict)
        if self.shown or not verdict.elsewhere:
            return False
        self._again.pop(candidate, None)
        if verdict.again:
            told = isinstance(error, ProviderError) and error.retry_after is not None
            wait = 0.0 if told else backoff(len(self._attempts), random.random())  # what was told is its cooldown
            self._again[candidate] = self._setup.clock.now() + wait
        self._error = error
        return True

    def _judged(self, error: BaseException) -> Verdict:
        verdict, usual = judge(error), self._current().latency
        given = self.request.timeout
        if isinstance(error, DeadlineExceeded) and usual is not None and given is not None and given < usual / 2:
            return verdict._replace(event="abandoned")  # so little time says nothing about the provider
        return verdict

    def abandon(self, response: ChatResponse | None) -> None:
        """Note that the caller left a stream after output; `response` is what the provider made of it, if anything."""
        self.left = True
        self._end("abandoned", None, LEFT, pay=response)

    def _end(
        self, outcome: str, error: BaseException | None, verdict: Verdict, *, pay: ChatResponse | None = None
    ) -> None:
        candidate, model = self._current(), self.request.model
        seconds = self._setup.clock.now() - self._began - self.pauses
        candidate.failed(self._permit, model, error, verdict, seconds)
        kind = None if error is None else type(error).__name__
        self._log(outcome, kind, seconds)
        if kind is not None and verdict.elsewhere:
            tags = {"provider": candidate.name, "model": model, "error": kind}
            self._tracker.increment("provider_failure", tags=tags)
        if error is not None:
            self._sign(error)
        if pay is not None:
            self._paid(pay)
        elif self._hold is not None:
            self._hold.release(error)

    def _sign(self, error: BaseException) -> None:
        if isinstance(error, ProviderError):
            error.provider = self._current().name
        with suppress(AttributeError, TypeError):  # an exception may have slots
            error.attempts = self._attempts  # type: ignore[attr-defined]

    def _paid(self, response: ChatResponse) -> ChatResponse:
        response = response.evolve(attempts=self._attempts, provider=self._current().name)
        if self._hold is not None:
            self._hold.settle(response)
        return response

    def _log(self, outcome: str, error: str | None, seconds: float) -> None:
        name, model = self._current().name, self.request.model
        attempt = Attempt(name, model, self._began_wall, seconds, outcome, error, self._reason)
        self._attempts = (*self._attempts, attempt)

    def _current(self) -> Candidate:
        assert self._chosen is not None
        return self._chosen


def none_available(model: str | None, offers: Sequence[Candidate]) -> NoAvailableProviderError:
    """Return the error that says why none of `offers` may be asked now."""
    reasons = {candidate.name: candidate.why_not(model) for candidate in offers}
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return NoAvailableProviderError(f"no provider can take {model!r} now: {told}", reasons=reasons, attempts=())
