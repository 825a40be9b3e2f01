"""What this side allows a provider: calls at a time, requests and tokens a minute, dollars a request and a day.

A call takes all it needs or nothing. One that has to wait joins a queue of bounded length, and only if nobody else can
serve it: waiting, and who is asked instead, is the business of the `Call`.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Literal

from perfkit.resilience.bulkhead import Bulkhead, GradientLimit
from perfkit.resilience.rate import RateLimit, SharedRateLimit
from perfkit.routing.spending import Spending

if TYPE_CHECKING:
    from perfkit._settings import RouterSettings
    from perfkit.clock import Clock
    from perfkit.routing.sharing import Sharing
    from perfkit.routing.terms import Terms
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Gates"]

ANSWER = 256  # tokens counted for an answer without a bound, until it is there


class Gates:
    """The limits of one provider.

    Args:
        name: of the provider.
        terms: its limits.
        clock: of the router.
        sharing: with other processes, for the limits per minute.
        settings: of the router: how many may wait.
    """

    def __init__(self, name: str, terms: Terms, clock: Clock, sharing: Sharing, settings: RouterSettings) -> None:
        self._terms, self._clock, self._sharing = terms, clock, sharing
        self.max_waiting = settings.max_waiting
        self.bulkhead = self._bulkhead()
        self._rates = [
            (kind, SharedRateLimit(f"{name}:{kind}", sharing.link, limit, clock=clock))
            for kind, limit in (("requests", terms.rpm), ("tokens", terms.tpm))
            if limit is not None
        ]
        most = terms.cost_limit_per_day
        self._spending = None if most is None else Spending(name, most, clock, sharing.link)
        self._after_fork()

    def _bulkhead(self) -> Bulkhead | None:
        most = self._terms.max_concurrency
        if most is None:
            return None
        return Bulkhead(GradientLimit() if isinstance(most, str) else most, max_waiting=self.max_waiting)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _waiting
        self._waiting = 0
        if self.bulkhead is not None:
            self.bulkhead._after_fork()
        for _, rate in self._rates:
            rate._after_fork()
        if self._spending is not None:
            self._spending._after_fork()

    def let_wait(self, most: int) -> None:
        """Let `most` calls wait from now on; those that wait already stay."""
        self.max_waiting = most
        if self.bulkhead is not None:
            self.bulkhead.max_waiting = most

    @property
    def waiting(self) -> int:
        """Calls that wait for this provider."""
        return self._waiting

    @property
    def wait(self) -> float:
        """Seconds until the limits a minute let the next call go."""
        return max((rate.wait() for _, rate in self._rates), default=0.0)

    @property
    def closed(self) -> bool:
        """Whether a call that comes now would have to wait."""
        return self._waiting > 0 or (self.bulkhead is not None and self.bulkhead.busy) or self.wait > 0.0

    @property
    def headroom(self) -> float:
        """Part of the limits that is free, 0..1: shares of the traffic shrink with it before anybody answers 429."""
        free = min((rate.remaining for _, rate in self._rates), default=1.0)
        if self.bulkhead is not None:
            free = min(free, max(0.0, 1.0 - self.bulkhead.inside / self.bulkhead.limit))
        return free

    def refuses(self, request: ChatRequest) -> str | None:
        """Return why the provider's cost limits do not allow `request`, None when they do."""
        terms = self._terms
        if self._spending is not None and self._spending.today() >= self._spending.limit:
            return f"cost limit of ${self._spending.limit:g} a day is reached"
        if terms.cost_limit_per_request is None:
            return None
        from perfkit.tokens import TokenOptimizer

        worst = TokenOptimizer.instance().worst_cost(request)
        if worst is None or worst <= terms.cost_limit_per_request:
            return None
        return f"may cost ${worst:.6f}, above its limit of ${terms.cost_limit_per_request:g} a request"

    def try_pass(self, request: ChatRequest) -> bool:
        """Take what a call needs, if that is to be had now."""
        if self._waiting > 0 or (self.bulkhead is not None and not self.bulkhead.try_enter()):
            return False
        if self._take_rates(request, 0.0) == 0.0:
            return True
        self.leave()
        return False

    def _take_rates(self, request: ChatRequest, patience: float) -> float:
        """Take from all limits a minute or from none; return the seconds to wait first, inf when that is too long."""
        taken: list[tuple[RateLimit, float]] = []
        longest = 0.0
        for kind, rate in self._rates:
            amount = 1.0 if kind == "requests" else self.tokens(request)
            wait = rate.take(amount, patience=patience)
            if wait > patience:
                for other, used in taken:
                    other.give_back(used)
                return math.inf
            taken.append((rate, amount))
            longest = max(longest, wait)
        return longest

    def queue(self, request: ChatRequest, patience: float) -> Literal["in", "full", "late"]:
        """Wait at most `patience` seconds for all that a call needs, in the order of arrival."""
        with self._lock:
            if self._waiting >= self.max_waiting:
                return "full"
            self._waiting += 1
        try:
            return self._queued(request, patience)
        finally:
            with self._lock:
                self._waiting -= 1

    def _queued(self, request: ChatRequest, patience: float) -> Literal["in", "full", "late"]:
        until = self._clock.now() + patience
        if self.bulkhead is not None and not self.bulkhead.enter(patience):
            return "late"
        try:
            wait = self._take_rates(request, max(0.0, until - self._clock.now()))
            if wait == math.inf:
                self.leave()
                return "late"
            if wait > 0.0:
                self._clock.sleep(wait)
        except BaseException:
            self.leave()
            raise
        return "in"

    def tokens(self, request: ChatRequest) -> float:
        """Return the tokens a request is expected to take."""
        from perfkit.tokens import TokenOptimizer

        prompt = TokenOptimizer.instance().count_tokens(request.messages, request.model)
        return float(prompt + (request.max_tokens if request.max_tokens is not None else ANSWER))

    def leave(self, seconds: float | None = None, *, refused: bool = False) -> None:
        """Give the place of a call back; `seconds` it took, if it succeeded."""
        if self.bulkhead is not None:
            self.bulkhead.leave(seconds, refused=refused)

    def settle(self, request: ChatRequest, response: ChatResponse) -> None:
        """Correct what was taken for an answer by what it used."""
        for kind, rate in self._rates:
            if kind == "tokens":
                rate.give_back(self.tokens(request) - response.usage.total_tokens)
        if self._spending is not None:
            from perfkit.tokens import TokenOptimizer

            calculated = TokenOptimizer.instance().calculate_cost
            cost = calculated(response.usage, response.model)  # who was asked for by an alias says what it is
            self._spending.add(calculated(response.usage, request.model) or 0.0 if cost is None else cost)

    def why_closed(self) -> str | None:
        """Return why a call would have to wait, in words."""
        told = []
        if self.bulkhead is not None and self.bulkhead.busy:
            told.append(f"{self.bulkhead.inside} of {self.bulkhead.limit} calls under way")
        if self.wait > 0.0:
            told.append(f"its limit a minute lets the next call go in {self.wait:.1f} s")
        if self._waiting:
            full = " (the queue is full)" if self._waiting >= self.max_waiting else ""
            told.append(f"{self._waiting} of {self.max_waiting} waiting{full}")
        return ", ".join(told) or None
