"""Budgets as users set them, and how calls are let in under them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from perfkit.tokens.accounting import Accounting
from perfkit.tokens.admission import Quote
from perfkit.tokens.pricing import from_nano, to_nano
from perfkit.tokens.rules import parse_answer, parse_rule
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from perfkit.errors import BudgetExceededError
    from perfkit.tokens.admission import Admission, Gate
    from perfkit.tokens.budget import Hold, Note
    from perfkit.tokens.estimator import Mix
    from perfkit.tokens.learning import Experience
    from perfkit.tokens.ledger import SharedBudgets
    from perfkit.tokens.wallet import Wallet
    from perfkit.values import ChatRequest

__all__ = ["Budgeting", "route_of"]

log = logging.getLogger("perfkit.tokens")

SHORTEST: Final = 16  # tokens of an answer that money is still spent on
MARGIN: Final = 115  # percent of the counted prompt, for the error of estimates


class Budgeting(Accounting):
    """Limits on spending."""

    _budgets: SharedBudgets
    _gate: Gate
    _experience: Experience

    def worst_cost(self, request: ChatRequest, model: str | None = None) -> float | None:
        """Return US dollars that `request` may cost at most, to reserve; None when the price is unknown.

        Input tokens count 1.15 times, for the error of estimates. The answer counts max_tokens; without that, the
        setting `answer_tokens` (4096) or what the model can write if that is less. `extra` may hold
        max_completion_tokens, and n answers count n times.
        """
        quote = self._quote(request, model)
        return from_nano(quote.cost(quote.wanted)) if quote is not None else None

    def _quote(self, request: ChatRequest, model: str | None = None) -> Quote | None:
        model = model if model is not None else request.model
        price = self._price(model)
        if price is None:
            return None
        prompt = self._prompt_tokens(request, model)
        bound, answers = _bound(request), request.extra.get("n", 1)
        answers = answers if isinstance(answers, int) else 1
        margined = -(-prompt * MARGIN // 100)
        if bound is not None:
            return Quote(price, margined, bound, bound, answers)
        most = self.settings.answer_tokens
        wanted = most if price.max_output is None else min(most, price.max_output)
        usual = self._experience.length(route_of(request), model, None)
        least = max(SHORTEST, usual.p95 if usual is not None else 0)
        return Quote(price, margined, wanted, min(least, wanted - 1), answers)

    def _prompt_tokens(self, request: ChatRequest, model: str) -> int:
        counted = self._raw_prompt(request, model)
        return round(counted.tokens * self._experience.factor(route_of(request), model, counted))

    def _raw_prompt(self, request: ChatRequest, model: str | None = None) -> Mix:
        """Return the counted prompt tokens, without what was learned of the error of counts."""
        model = model if model is not None else request.model
        choice = request.extra.get("tool_choice")
        return self._counter.prompt(request.messages, model, request.tools, request.response_format, choice)

    # ---- budgets

    def set_budget(
        self,
        scope: str | tuple[str, str],
        limit: float | None,
        period: str,
        *,
        exhausted: str | Sequence[str] = "refuse",
    ) -> None:
        """Limit what `scope` may spend in each `period`, in US dollars; None removes the limit.

        The limit is that of all processes where `[state] url` names a Redis, else of each process.

        Args:
            scope: kind and name such as ("user", "42"); ("user", "*") gives each user without an own budget for the
                period one of that size; "global" is all calls together.
            limit: US dollars; a change keeps what was spent.
            period: "request", "minute", "day", "month" (both by the setting `timezone`) or "total".
            exhausted: what becomes of calls it has too little left for: "refuse"; "queue": they wait, within their own
                time; or the names of cheaper models to ask instead, in order.

        Raises:
            ConfigError: the scope, limit, period or answer cannot be used.
        """
        key, nano = parse_rule(scope, limit if limit is not None else 0, period)
        self._budgets.set(key, nano if limit is not None else None, parse_answer(exhausted))

    @property
    def has_budgets(self) -> bool:
        """Whether any budget is set."""
        return bool(self._budgets)

    def budgets(self) -> list[dict[str, Any]]:
        """Return one dict a budget: scope, period, limit, spent, held, remaining (US dollars), until (epoch seconds).

        A budget for each name has a row for every name seen in the present period.
        """
        return self._budgets.rows()

    def reserve(self, scopes: Mapping[str, str | None], amount: float | None, ttl: float = 600) -> Hold:
        """Hold `amount` in every budget that matches, before the call; settle the hold with its cost afterwards.

        Args:
            scopes: kind to name, such as {"user": "42", "model": "gpt-4o"}; "global" is always meant.
            amount: US dollars the call may cost, as from `worst_cost`; None, unknown, is refused by any budget.
            ttl: seconds until a hold that is neither settled nor released is given back.

        Raises:
            BudgetExceededError: a budget has too little left; nothing is held then.
        """
        finite("ttl", ttl, above=0)
        nano = to_nano(finite("amount", amount, least=0)) if amount is not None else None
        return self._budgets.reserve(scopes, nano, ttl)

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
        """Hold money for one attempt, and bound its answer by what is left if the request does not.

        Args:
            request: what will be sent.
            provider: who will be asked.
            budget: US dollars all attempts of the call together may cost.
            spent: US dollars earlier attempts have cost.
            wallets: what the calls of the same request of the application share.
            own_name: returns what the provider calls the model, whose price it has; None: as the request does.

        Raises:
            BudgetExceededError: too little is left, even for a short answer.
        """
        return self._gate.admit(request, provider, budget=budget, spent=spent, wallets=wallets, own_name=own_name)

    def otherwise(self, refusal: BudgetExceededError, request: ChatRequest) -> ChatRequest:
        """Return what to ask after a budget refused `request`: a cheaper model, or the same after a wait.

        Raises:
            BudgetExceededError: `refusal`, where the budget wants it, the queue is full or time is up.
        """
        settings = self.settings
        return self._gate.otherwise(refusal, request, longest=settings.queue_timeout, most=settings.queue_size)

    def _on_spent(self, note: Note) -> None:
        kind, name, period = note.key
        tags = {"scope": kind, "name": name if note.own else "*", "period": period}
        self._tracker.increment("budget_warning", tags=tags)
        what = f"budget of {kind} {name!r}" if name else f"{kind} budget"
        log.warning("%s (%s): %.0f %% of $%.6g are spent", what, period, note.share * 100, from_nano(note.limit))


def route_of(request: ChatRequest) -> str:
    """Return the part of the application that asks: the route it went through, else the agent's name."""
    return str(request.metadata.get("route", request.agent))


def _bound(request: ChatRequest) -> int | None:
    bounds = (request.max_tokens, request.extra.get("max_completion_tokens"))
    return next((bound for bound in bounds if isinstance(bound, int)), None)
