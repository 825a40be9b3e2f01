"""TokenOptimizer: counts tokens, prices calls, keeps budgets and reports use (RAAF guide, section 5.1).

It ties together parts that know nothing of each other: the counter, the price table, the budgets and the usage log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import ConfigError
from perfkit.tokens.budget import Budgets, Hold
from perfkit.tokens.counting import TokenCounter
from perfkit.tokens.periods import time_zone
from perfkit.tokens.pricing import Price, PriceTable, as_usage, from_nano, to_nano
from perfkit.tokens.rules import parse_rule, parse_rules
from perfkit.tokens.usage import UsageLog
from perfkit.values import ChatRequest, Usage, finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perfkit.metrics import PerformanceTracker
    from perfkit.tokens.usage import Moment

__all__ = ["TokenOptimizer"]

log = logging.getLogger("perfkit.tokens")

DEFAULT_COMPLETION: Final = 4096  # tokens worst_cost expects of an answer without a bound
WARNED_MODELS: Final = 1000  # unknown models remembered, so that each is warned of once

# RAAF guide 5.1: how long answers are for their question, by model, and by words in the question.
_DETAILED = ("gpt-4o", "claude-3-5-sonnet-20241022")
_CONCISE = ("gpt-4o-mini", "claude-3-5-haiku-20241022")


class TokenOptimizer(Shared):
    """Token counts, costs, budgets and usage reports; `perfkit.optimizer` is the shared one.

    Args:
        clock: time source.
        tracker: where token_usage, cost and price_unknown are recorded; None means the shared PerformanceTracker.
        **settings: keys of the `[tokens]` table.

    Raises:
        ConfigError: a setting is unknown or cannot be used.
    """

    _table = "tokens"

    def __init__(
        self, *, clock: Clock | None = None, tracker: PerformanceTracker | None = None, **settings: Any
    ) -> None:
        clock = clock if clock is not None else SYSTEM_CLOCK
        self._given_tracker = tracker
        self._counter = TokenCounter()
        self._usage = UsageLog(clock)
        self._budgets = Budgets(clock, time_zone("UTC"))
        self._lock = threading.Lock()  # guards _warned
        self._warned: set[str] = set()
        super().__init__(settings)
        self._applied = self.settings
        self._apply()

    def _apply(self) -> None:
        settings = self.settings
        try:
            prices = PriceTable(settings.prices, settings.fallback_price)
            rules, zone = parse_rules(settings.budgets), time_zone(settings.timezone)
        except ConfigError:
            self.settings = self._applied
            raise
        self._prices, self._applied = prices, settings
        self._budgets.configure(rules, zone)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._counter.after_fork()
        self._usage.after_fork()
        self._budgets.after_fork()

    def close(self) -> None:
        """Nothing to let go: no thread, no socket, no file is held."""

    def reset(self) -> None:
        """Forget usage, spending, holds and budgets set by hand."""
        self._counter.clear()
        self._usage.clear()
        self._budgets.clear()
        with self._lock:
            self._warned.clear()
        self._apply()

    @property
    def _tracker(self) -> PerformanceTracker:
        if self._given_tracker is None:
            from perfkit.metrics import PerformanceTracker

            self._given_tracker = PerformanceTracker.instance()
        return self._given_tracker

    # ---- tokens

    def count_tokens(self, text_or_messages: str | Iterable[Mapping[str, Any]], model: str | None = None) -> int:
        """Return the prompt tokens of a text, or of chat messages with what the chat format adds to them.

        Exact for OpenAI models where tiktoken and its vocabulary are on the machine; nothing is ever downloaded.
        Otherwise estimated, at a mean error of 7 % a text and 3 % a prompt of several kinds; pictures count 765.
        """
        if isinstance(text_or_messages, str):
            return self._counter.count(text_or_messages, model)
        return self._counter.messages(text_or_messages, model)

    def estimate_tokens(self, agent: Any, message: str, context: Mapping[str, Any] | None = None) -> dict[str, int]:
        """Return prompt_tokens, completion_tokens and total_tokens a run of `agent` will take (RAAF guide 5.1).

        Args:
            agent: any object with `.instructions` and `.model`.
            message: what the user says.
            context: sent along as JSON.
        """
        model, instructions = getattr(agent, "model", None), getattr(agent, "instructions", None)
        chat = [{"role": "system", "content": instructions}] if instructions else []
        prompt = self._counter.messages([*chat, {"role": "user", "content": message}], model)
        if context:
            prompt += self._counter.as_json(context, model)
        completion = _completion_tokens(message, model)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    # ---- prices

    def price(self, model: str) -> Price | None:
        """Return the prices of `model`, the fallback's if it is unknown and one is set, else None.

        An unknown model is warned of once, and counted as `price_unknown` at every look-up.
        """
        price = self._price(model)
        if price is self._prices.fallback:  # None, when none is set
            self._tracker.increment("price_unknown", tags={"model": model})
        return price

    def _price(self, model: str) -> Price | None:
        prices = self._prices
        found = prices.find(model)
        if found is not None:
            return found
        self._warn(model, prices.fallback)
        return prices.fallback

    def _warn(self, model: str, fallback: Price | None) -> None:
        with self._lock:
            if model in self._warned or len(self._warned) >= WARNED_MODELS:
                return
            self._warned.add(model)
        then = "tokens.fallback_price is used" if fallback is not None else "its calls have no cost"
        log.warning("no price for model %.100r: %s; set tokens.prices to price it", model, then)

    def calculate_cost(self, usage: Usage | Mapping[str, Any], model: str) -> float | None:
        """Return US dollars for `usage`, with the prices of cached, cache-written and long prompts; None if unknown.

        Args:
            usage: Usage, or a mapping with "prompt_tokens" (cached ones included) and "completion_tokens".
            model: also dated ("gpt-4o-2024-08-06"), "vendor/model" and fine-tuned ("ft:...") names.

        Raises:
            ValueError: a mapping has no tokens.
        """
        price = self._prices.find(model)
        if price is None:
            price = self.price(model)
        return from_nano(price.cost(as_usage(usage))) if price is not None else None

    def worst_cost(self, request: ChatRequest, model: str | None = None) -> float | None:
        """Return US dollars that `request` may cost at most, to reserve; None when the price is unknown.

        Input tokens count 1.15 times, for the error of estimates. The answer counts max_tokens; without that, 4096 or
        what the model can write if that is less. `extra` may hold max_completion_tokens, and n answers count n times.
        """
        model = model if model is not None else request.model
        price = self._price(model)
        if price is None:
            return None
        count = self._counter
        prompt = count.messages(request.messages, model) + count.tools(request.tools, model)
        if request.response_format is not None:
            prompt += count.as_json(request.response_format, model)
        return from_nano(price.cost(Usage(-(-prompt * 115 // 100), _most_completion(request, price))))

    # ---- usage

    def track_usage(
        self,
        agent: str,
        model: str,
        usage: Usage | Mapping[str, Any],
        cost: float | None = None,
        *,
        provider: str | None = None,
        user: str | None = None,
    ) -> None:
        """Count one call for the reports, and record metrics token_usage and cost, tagged agent, model and provider.

        Args:
            agent: who in the application asked.
            model: model that answered.
            usage: as for `calculate_cost`; a mapping may have "total_tokens" only if `cost` is given.
            cost: US dollars; None: calculated from `usage`, and counted as unpriced when that is not possible.
            provider: registered name of the provider.
            user: for whom; reports group by it, metrics do not.
        """
        if cost is None:
            cost = self.calculate_cost(usage, model)
        tokens = usage.get("total_tokens") if isinstance(usage, Mapping) else usage.total_tokens
        tokens = tokens if tokens is not None else as_usage(usage).total_tokens
        nano = to_nano(finite("cost", cost, least=0)) if cost is not None else None
        self._usage.add((agent, model, provider or "", user or ""), tokens, nano)
        tags = {"agent": agent, "model": model} | ({"provider": provider} if provider else {})
        self._tracker.record_metric("token_usage", tokens, tags=tags)
        if cost is not None:
            self._tracker.record_metric("cost", cost, tags=tags)

    def get_usage_report(
        self, since: Moment = None, until: Moment = None, group_by: Sequence[str] = ("agent", "model")
    ) -> dict[str, Any]:
        """Return {agent: {model: totals}} of a time range (RAAF guide 5.1).

        Totals are total_tokens, total_cost and avg_cost_per_request (US dollars; None when no call had a price, else of
        the calls that had one), request_count, avg_tokens_per_request and unpriced_requests.

        Args:
            since: epoch seconds, datetime, or timedelta back from now; None: a day ago. Rounded down to the minute, and
                to the hour beyond 25 hours; a month is kept.
            until: the same; None: now.
            group_by: any of "agent", "model", "provider" and "user", outermost first.

        Raises:
            UnknownNameError: `group_by` names something else.
        """
        return self._usage.report(since, until, group_by)

    # ---- budgets

    def set_budget(self, scope: str | tuple[str, str], limit: float | None, period: str) -> None:
        """Limit what `scope` may spend in each `period` of this process, in US dollars; None removes the limit.

        Args:
            scope: kind and name such as ("user", "42"); ("user", "*") gives each user without an own budget for the
                period one of that size; "global" is all calls together.
            limit: US dollars; a change keeps what was spent.
            period: "request", "minute", "day", "month" (both by the setting `timezone`) or "total".

        Raises:
            ConfigError: the scope, limit or period cannot be used.
        """
        key, nano = parse_rule(scope, limit if limit is not None else 0, period)
        self._budgets.set(key, nano if limit is not None else None)

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

    def __repr__(self) -> str:
        return f"TokenOptimizer({len(self.budgets())} budgets)"


def _completion_tokens(message: str, model: str | None) -> int:
    """Return how long the answer may be: the question's length, four characters a token, times the guide's factors."""
    factor = 1.5 if model in _DETAILED else 1.0 if model in _CONCISE else 1.2
    if "explain" in message or "describe" in message:
        factor *= 1.5
    elif "list" in message or "summary" in message:
        factor *= 0.8
    return int(len(message) // 4 * factor + 0.5)


def _most_completion(request: ChatRequest, price: Price) -> int:
    default = min(DEFAULT_COMPLETION, price.max_output if price.max_output is not None else DEFAULT_COMPLETION)
    bounds = (request.max_tokens, request.extra.get("max_completion_tokens"), default)
    answers = request.extra.get("n", 1)
    return next(bound for bound in bounds if isinstance(bound, int)) * (answers if isinstance(answers, int) else 1)
