"""Letting a call in under budgets: how much is held for it, how long its answer may be, and what if that is too much.

A budget is only hard if no call can cost more than was held for it. So an answer without a bound of its own gets one:
the usual one while there is money, less when less is left, and never so little that such answers are usually longer.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perfkit.errors import BudgetExceededError
from perfkit.tokens.pricing import from_nano, to_nano
from perfkit.tokens.wallet import Till
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perfkit.clock import Clock
    from perfkit.tokens.budget import Budgets, Hold
    from perfkit.tokens.pricing import Price
    from perfkit.tokens.wallet import Taken, Wallet
    from perfkit.values import ChatRequest

__all__ = ["Admission", "Gate", "Quote"]

SHRINKS: Final = 4  # times an answer's bound is lowered before the call is refused: others take money meanwhile
SHORTEST_WAIT, LONGEST_WAIT = 0.01, 0.25  # seconds between two looks of a waiting call
HOLD_SECONDS: Final = 600.0
NANO: Final = 1e-9  # a dollar's smallest part: what float sums of money may be off


@dataclass(frozen=True, slots=True)
class Quote:
    """What a request may cost.

    Attributes:
        prompt: tokens, with the margin for the error of estimates.
        wanted: tokens of the answer that money is held for.
        least: tokens below which an answer is not worth asking for; `wanted` where the caller has set a bound.
        answers: how many are asked for.
    """

    price: Price
    prompt: int
    wanted: int
    least: int
    answers: int = 1

    def cost(self, tokens: int) -> int:
        """Return nano-dollars for answers of `tokens` each."""
        return self.price.cost(Usage(self.prompt, tokens * self.answers))

    def affordable(self, nano: int) -> int:
        """Return how long each answer may be, at most `wanted`, for `nano` nano-dollars in all; 0 if none may be."""
        base, whole = self.cost(0), self.cost(self.wanted)
        if nano >= whole:
            return self.wanted
        if nano <= base:
            return 0
        return int(self.wanted * (nano - base) / (whole - base) * (1 - NANO))


@dataclass(frozen=True, slots=True)
class Admission:
    """A call let in.

    Attributes:
        hold: the money set aside, None where nothing limits the call.
        max_tokens: bound to send with the request; None: the request's own.
    """

    hold: Hold | Taken | None = None
    max_tokens: int | None = None


FREE: Final = Admission()


class Gate:
    """Lets calls in, safely from many threads.

    Args:
        budgets: what may be spent.
        clock: what waiting calls wait by.
        quote: returns what a request may cost by the price of a model, None when that is unknown.
    """

    def __init__(self, budgets: Budgets, clock: Clock, quote: Callable[[ChatRequest, str], Quote | None]) -> None:
        self._budgets, self._clock, self._quote = budgets, clock, quote
        self._till = Till()
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new: the parent's waiting calls are not here."""
        self._till.after_fork()
        self._lock = threading.Lock()  # guards _waiting
        self._waiting = 0

    def admit(
        self,
        request: ChatRequest,
        provider: str,
        *,
        budget: float | None = None,
        spent: float = 0.0,
        wallets: Sequence[Wallet] = (),
        own_name: Callable[[], str] | None = None,
    ) -> Admission:
        """Do what `TokenOptimizer.admit` promises."""
        if budget is None and not wallets and not self._budgets:
            return FREE
        quote = self._quote(request, own_name()) if own_name is not None else None
        quote = quote if quote is not None else self._quote(request, request.model)
        wanted, tries = quote.wanted if quote is not None else 0, 0
        while True:
            nano = quote.cost(wanted) if quote is not None else None
            try:
                _keep_to(budget, spent, nano)
                hold = self._held(request, provider, nano, wallets)
            except BudgetExceededError as refusal:
                tries += 1
                if quote is None or wanted <= quote.least or tries > SHRINKS:
                    raise
                wanted = max(quote.least, quote.affordable(to_nano(refusal.limit - refusal.spent)))
            else:
                bound = wanted if quote is not None and quote.least < quote.wanted else None
                return Admission(hold, bound)

    def _held(
        self, request: ChatRequest, provider: str, nano: int | None, wallets: Sequence[Wallet]
    ) -> Hold | Taken | None:
        taken = self._till.take(wallets, nano) if wallets else None
        try:
            hold = self._budgets.reserve(_scopes(request, provider), nano, HOLD_SECONDS) if self._budgets else None
        except BaseException:
            if taken is not None:
                taken.release()
            raise
        if taken is None:
            return hold
        taken.hold = hold
        return taken

    def otherwise(
        self, refusal: BudgetExceededError, request: ChatRequest, *, longest: float, most: int
    ) -> ChatRequest:
        """Return what to ask after a budget refused `request`: a cheaper model, or the same once money may be back.

        Args:
            refusal: of a budget.
            request: what was refused; waiting is taken from its `timeout`.
            longest: seconds to wait for a request without `timeout`.
            most: calls that may wait at the same time.

        Raises:
            BudgetExceededError: `refusal`, where there is nothing else to do.
        """
        answer = self._budgets.answer(refusal)
        wait = answer.wait or refusal.scope[0] == "request"  # calls of one request take turns
        following = _after(request.model, answer.models)
        if following is not None:
            return request.evolve(model=following)
        left = request.timeout if request.timeout is not None else longest
        if not wait or left < SHORTEST_WAIT or not self._may_help(refusal, left):
            raise refusal
        return request.evolve(timeout=left - self._wait(refusal, left, most))

    def _may_help(self, refusal: BudgetExceededError, seconds: float) -> bool:
        """Tell whether the money can be there within `seconds`, by holds that end or by the next period."""
        if not refusal.needed <= refusal.limit:
            return False
        given_back = refusal.needed + refusal.spent - refusal.held <= refusal.limit + NANO
        return given_back or (refusal.until is not None and refusal.until - self._clock.wall() <= seconds)

    def _wait(self, refusal: BudgetExceededError, left: float, most: int) -> float:
        """Wait a moment, longer the longer the queue; return the seconds it took."""
        with self._lock:
            if self._waiting >= most:
                raise refusal
            self._waiting += 1
            length = self._waiting
        began = self._clock.now()
        try:
            self._clock.sleep(min(left, max(SHORTEST_WAIT, min(LONGEST_WAIT, length / 100))))
        finally:
            with self._lock:
                self._waiting -= 1
        return self._clock.now() - began


def _after(model: str, models: tuple[str, ...]) -> str | None:
    """Return the model to try after `model` in a list of ever cheaper ones."""
    if model not in models:
        return models[0] if models else None
    return next(iter(models[models.index(model) + 1 :]), None)


def _scopes(request: ChatRequest, provider: str) -> dict[str, Any]:
    scopes = {"agent": request.agent, "provider": provider, "model": request.model, "global": ""}
    if request.user is not None:
        scopes["user"] = request.user
    if "tenant" in request.metadata:
        scopes["tenant"] = str(request.metadata["tenant"])
    return scopes


def _keep_to(budget: float | None, spent: float, nano: int | None) -> None:
    """Refuse an attempt that may cost `nano` (None: unknown), if that could exceed the call's own budget."""
    if budget is None or (nano is not None and nano + to_nano(spent) <= to_nano(budget)):
        return
    told = "has no known price", "set tokens.prices or tokens.fallback_price"
    if nano is not None:
        told = f"may cost ${from_nano(nano):.6f}", "lower max_tokens, or take a cheaper model"
    raise BudgetExceededError(
        f"the call {told[0]} and has ${budget - spent:.6f} left: {told[1]}",
        scope=("request", ""),
        limit=budget,
        spent=spent,
        needed=from_nano(nano) if nano is not None else math.inf,
    )
