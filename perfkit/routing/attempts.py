"""One call of the router from its first attempt to its answer or its error.

A `Call` lives in one thread. It decides who is asked next and with how much of the time that is left, keeps the record
of every attempt, and is the one place where waiting happens: only when nobody else can serve, and never beyond the
deadline.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from perfkit.errors import BudgetExceededError
from perfkit.routing import endings
from perfkit.routing.continuation import continued
from perfkit.routing.course import UNTOLD, Course
from perfkit.routing.fitness import holds
from perfkit.routing.room import LITTLE
from perfkit.routing.strategies import named
from perfkit.routing.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.routing.health import Candidate
    from perfkit.routing.trial import Reserve
    from perfkit.values import ChatRequest

__all__ = ["Call"]

MOMENT = 0.001  # seconds: with less left the time is up


class Call(Course):
    """One call: attempts so far, time left, what to do next."""

    _last: Candidate | None = None  # who was asked last
    _passed: Candidate | None = None  # let in by its gates after waiting
    _clear = False  # nothing is to be said against anybody, nor is anybody's room little
    _why = ""  # nobody is asked any more, beyond the usual reasons

    @property
    def shown(self) -> str:
        """The text handed out, of a stream that may be resumed."""
        return "".join(self._texts)

    def heard(self, text: str) -> None:
        """Note text that is handed out, of a stream that is `resumable`."""
        self._texts.append(text)

    # --- who is next

    def begin(self) -> Trial:
        """Choose a provider, take its permit, hold the money, and return the attempt.

        Raises:
            NoAvailableProviderError, MaxRetriesExceededError, DeadlineExceeded: there is nobody left to ask.
            Exception: the error of the only attempt there was, or what `reserve` raised.
        """
        now = self._setup.clock.now()
        if self.attempts and not self._affordable(now):
            raise self._final_error(now)
        while not self.attempts or self._may_go_on(now):
            trial = self._go(now)
            if trial is not None:
                if self._options.reserve is None or self._reserved(trial, self._options.reserve):
                    return trial
            elif not self._wait(now):
                break
            now = self._setup.clock.now()
        raise self._final_error(now)

    def beside(self, why: str) -> Trial | None:
        """Return an attempt to run beside the one under way, None when nobody else can serve right now."""
        now = self._setup.clock.now()
        trial = self._go(now) if len(self.attempts) + 1 < self._most and now < self._deadline - MOMENT else None
        if trial is None:
            return None
        trial.reason = f"{trial.reason} {why}"
        reserve = self._options.reserve
        return trial if reserve is None or self._reserved(trial, reserve) else None

    def take_over(self, trial: Trial, error: BaseException) -> bool:
        """Note a first attempt that somebody else began and that failed; return as `fail` does."""
        self._last = trial.candidate
        self._tried.append(trial.candidate)
        asked = self._options.reserve is None or trial.hold is not None
        return self.fail(trial, error) if asked else self._refused(trial, error)

    def _may_go_on(self, now: float) -> bool:
        return len(self.attempts) < self._most and now < self._deadline - MOMENT

    def _affordable(self, now: float) -> bool:
        """Whether one attempt more is free, being the first at another provider, or within the retry budget."""
        if not self._may_go_on(now):
            return True  # that is reason enough
        if len(self.attempts) == 1 and any(self._fresh(now)):
            return True
        if self._setup.retries.spend():
            return True
        self._why = "; the retry budget is used up"
        return False

    def _fresh(self, now: float) -> list[Candidate]:
        """Return who was not tried yet and could be asked now, outliers only if there is nobody else."""
        model, tried, offers = self.request.model, self._tried, self._offers
        if not tried:  # mostly nothing is to be said against anybody
            clear = [c for c in offers if c.clouded <= now and c.breaker.permit is not None]
            self._clear = len(clear) == len(offers)
            if self._clear:
                return clear
        found = [c for c in offers if c not in tried and c.usable(model, now) and self._suits(c)]
        return [c for c in found if c.ejected_until <= now] or found

    def _others_left(self, now: float) -> bool:
        return bool(self._fresh(now))

    def _suits(self, candidate: Candidate) -> bool:
        if candidate.gates is not None and candidate.gates.refuses(self.request) is not None:
            return False
        return not self.attempts or holds(candidate, self.request)

    def _go(self, now: float) -> Trial | None:
        if self._passed is not None:
            chosen, self._passed = self._passed, None
            permit = chosen.admit(self.request, now, passed=True)
            if permit is not None:
                return self._enter(chosen, permit, "waited for its limits", now, others=False)
        fresh = self._fresh(now)
        while fresh:
            chosen, reason = self._choose(fresh)
            fresh.remove(chosen)
            permit = chosen.admit(self.request, now)
            if permit is not None:
                return self._enter(chosen, permit, reason, now, others=bool(fresh))
        return None

    def _choose(self, candidates: list[Candidate]) -> tuple[Candidate, str]:
        if len(candidates) > 1:
            request, setup = self.request, self._setup
            warm = request.metadata.get("warm_provider") if request.metadata else None
            chosen = next((c for c in candidates if c.name == warm), None) if warm is not None else None
            reason = "has the prefix of the conversation"
            if chosen is None:
                passed = () if self._clear or not setup.eases else _short_of_room(candidates)
                asked = [c for c in candidates if c not in passed] if passed else candidates
                wanted = setup.strategy(asked, request) if len(asked) > 1 else asked[0]
                chosen = wanted if wanted in asked else named(setup.strategy, asked, wanted)
                reason = setup.reason(chosen)
                if passed:
                    reason += f", little room at {', '.join(c.name for c in passed)}"
        else:
            chosen = candidates[0]
            reason = "pinned" if self._options.pinned else "only candidate"
        return chosen, "retry" if chosen in self._again else reason

    def _enter(self, chosen: Candidate, permit: int, reason: str, now: float, *, others: bool) -> Trial:
        last, self._last = self._last, chosen
        if self._error is not None:
            reason = f"{reason} after {type(self._error).__name__}"
        self._tried.append(chosen)
        if last is not None and last is not chosen:
            tags = {"provider": last.name, "model": self.request.model}
            self.tracker.increment("provider_fallback", tags=tags)
        return Trial(chosen, permit, self._limited(chosen, now, others=others), reason, self._setup.clock)

    def _reserved(self, trial: Trial, reserve: Reserve) -> bool:
        """Hold the money; False when there is too little and a cheaper model is to be asked instead."""
        try:
            trial.reserve(reserve)
        except BaseException as error:
            if not self._refused(trial, error):
                raise
            return False
        return True

    def _refused(self, trial: Trial, error: BaseException) -> bool:
        """Note that no money could be held; return whether a cheaper model is to be asked, else the error is final."""
        trial.candidate.failed(trial.permit, trial.request, error, UNTOLD, 0.0)
        if self._texts:  # what was shown cannot be asked for again
            raise endings.broken(error, self.shown, self.attempts) from error
        if isinstance(error, BudgetExceededError) and self._switch("cost"):
            self._error = error
            return True
        self._error = None
        self._sign(trial, error)
        return False

    def _limited(self, chosen: Candidate, now: float, *, others: bool) -> ChatRequest:
        """Return the attempt's request: a stream that has begun to speak may use all the time there is."""
        left, more = self._deadline - now, others and len(self.attempts) + 1 < self._most
        share = self._setup.share(left, others=more)
        if not self._options.streaming:
            return self.request.evolve(timeout=share)
        shown, request = self.shown, self.request
        if shown:
            request = continued(request, shown, prefill=chosen.terms.prefill)
        rate = self._setup.settings.min_tokens_per_second
        return request.evolve(timeout=left, first_token_timeout=share, min_tokens_per_second=rate)

    # --- waiting

    def _wait(self, now: float) -> bool:
        """Wait until somebody takes attempts again; False when nobody will.

        That is who is cooling down, who was asked in vain and may be asked again, and whose limits are used up.
        """
        maybe = [c for c in self._offers if (c not in self._tried or c in self._again) and self._suits(c)]
        times = {c: at for c in maybe if (at := self._ready_at(c, now)) is not None and at < self._deadline}
        soonest = min(times, key=times.__getitem__, default=None)
        until = times[soonest] if soonest is not None else self._deadline
        if self._queued([c for c in maybe if self._closed(c, now)], until - now):
            return True
        if soonest is None:
            return False
        if until > (now := self._setup.clock.now()):
            self._setup.clock.sleep(until - now)
        if soonest in self._tried:
            self._tried.remove(soonest)
        return True

    def _closed(self, candidate: Candidate, now: float) -> bool:
        gates, ready = candidate.gates, self._again.get(candidate, now) <= now
        return gates is not None and ready and gates.closed and candidate.healthy(self.request.model, now)

    def _ready_at(self, candidate: Candidate, now: float) -> float | None:
        if self._closed(candidate, now):
            return None
        return candidate.ready_at(self.request.model, self._again.get(candidate, now))

    def _queued(self, closed: list[Candidate], patience: float) -> bool:
        """Wait in the shortest of the queues; True when let in."""
        if not closed:
            return False
        chosen = min(closed, key=lambda candidate: (candidate.waiting, candidate.in_flight))
        assert chosen.gates is not None
        told = chosen.gates.queue(self.request, min(patience, self._setup.settings.queue_timeout))
        if told == "in":
            self._passed = chosen
            return True
        self._why = "the queue is full" if told == "full" else "no place became free in time"
        tags = {"provider": chosen.name, "model": self.request.model, "why": told}
        self.tracker.increment("provider_shed", tags=tags)
        return False

    def _final_error(self, now: float) -> BaseException:
        error, self._error = self._error, None  # its traceback leads here: keep no circle
        if not self.attempts:
            return endings.unavailable(self.request, self._offers, shed=self._why)
        if self._texts:
            return endings.broken(error, self.shown, self.attempts)
        if error is not None and len(self.attempts) == 1:
            return error
        late = now >= self._deadline - MOMENT
        return endings.exhausted(self._models[0], self.attempts, error, why=self._why, late=late)


def _short_of_room(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Return who is passed over this time: below LITTLE of its limits' room, the more often the less is left."""
    passed = [c for c in candidates if (room := c.headroom) < LITTLE and random.random() * LITTLE >= room]
    return passed if len(passed) < len(candidates) else ()
