"""Counting, pricing and reporting: what a call costs, before it and after it (RAAF guide, section 5.1).

`Accounting` is the part of TokenOptimizer that does this; the optimizer makes what it works with.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from perfkit._shared import Shared
from perfkit.tokens.pricing import Price, PriceTable, as_usage, from_nano, to_nano
from perfkit.tokens.usage import Totals
from perfkit.values import Usage, finite

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping, Sequence

    from perfkit.clock import Moment
    from perfkit.metrics import Handle, PerformanceTracker
    from perfkit.tokens.counting import TokenCounter
    from perfkit.tokens.usage import UsageLog

__all__ = ["Accounting", "rule_of_thumb"]

log = logging.getLogger("perfkit.tokens")

SERIES: Final = 128  # agents, models and providers whose series are not looked for again
WARNED_MODELS: Final = 1000  # unknown models remembered, so that each is warned of once

# RAAF guide 5.1: how long answers are for their question, by model, and by words in the question.
_DETAILED = ("gpt-4o", "claude-3-5-sonnet-20241022")
_CONCISE = ("gpt-4o-mini", "claude-3-5-haiku-20241022")


class Accounting(Shared):
    """Token counts, costs and usage reports."""

    _given_tracker: PerformanceTracker | None
    _counter: TokenCounter
    _prices: PriceTable
    _usage: UsageLog
    _lock: threading.Lock  # guards _warned
    _warned: set[str]
    _series: dict[tuple[str, str, str | None], tuple[Handle, Handle]]  # each step is atomic, so no lock

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
        completion = rule_of_thumb(message, model)
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

    # ---- usage

    def track_usage(  # noqa: PLR0913 - a call, and all that reports group it by
        self,
        agent: str,
        model: str,
        usage: Usage | Mapping[str, Any],
        cost: float | None = None,
        *,
        provider: str | None = None,
        user: str | None = None,
        tag: str | None = None,
        instead_of: str | None = None,
    ) -> None:
        """Count one call for the reports, and record metrics token_usage and cost, tagged agent, model and provider.

        Args:
            agent: who in the application asked.
            model: model that answered.
            usage: as for `calculate_cost`; a mapping may have "total_tokens" only if `cost` is given.
            cost: US dollars; None: calculated from `usage`, and counted as unpriced when that is not possible.
            provider: registered name of the provider.
            user: for whom; reports group by it, metrics do not.
            tag: a label of the application's own; reports group by it, metrics do not.
            instead_of: dearer model that was asked for; what the call would have cost there counts as saved.
        """
        if cost is None:
            cost = self.calculate_cost(usage, model)
        tokens = usage.total_tokens if isinstance(usage, Usage) else usage.get("total_tokens")
        tokens = tokens if tokens is not None else as_usage(usage).total_tokens
        nano = to_nano(finite("cost", cost, least=0)) if cost is not None else None
        names = (agent, model, provider or "", user or "", tag or "")
        self._usage.count(names, self._totals(usage, model, nano, tokens, instead_of))
        token_usage, costs = self._series.get((agent, model, provider)) or self._find_series(agent, model, provider)
        token_usage.record(tokens)
        if cost is not None:
            costs.record(cost)

    def _find_series(self, agent: str, model: str, provider: str | None) -> tuple[Handle, Handle]:
        tags = {"agent": agent, "model": model} | ({"provider": provider} if provider else {})
        if len(self._series) >= SERIES:
            self._series.clear()
        found = self._tracker.handle("token_usage", tags), self._tracker.handle("cost", tags)
        self._series[agent, model, provider] = found
        return found

    def _totals(
        self, usage: Usage | Mapping[str, Any], model: str, nano: int | None, tokens: int, instead_of: str | None
    ) -> Totals:
        """Return what one call adds to the reports, with what prefix caching and a cheaper model saved."""
        totals = Totals(1, tokens, nano if nano is not None else 0, 1 if nano is None else 0)
        if not isinstance(usage, Usage) or nano is None:
            return totals
        totals.cached = usage.cached_tokens
        if (usage.cached_tokens or usage.cache_write_tokens) and (price := self._prices.find(model)) is not None:
            totals.prefix = price.cost(_uncached(usage)) - price.cost(usage)
        if instead_of is not None and (dearer := self._prices.find(instead_of)) is not None:
            totals.choice = dearer.cost(_uncached(usage)) - nano
        return totals

    def track_saving(
        self, cost: float | None, agent: str, model: str, *, user: str | None = None, tag: str | None = None
    ) -> None:
        """Count a call that our own cache answered: `cost` is what it would have cost, in US dollars."""
        if cost:
            self._usage.count((agent, model, "", user or "", tag or ""), Totals(cache=to_nano(cost)))

    def get_usage_report(
        self, since: Moment = None, until: Moment = None, group_by: Sequence[str] = ("agent", "model")
    ) -> dict[str, Any]:
        """Return {agent: {model: totals}} of a time range (RAAF guide 5.1): of all workers, where `[state]` is set.

        Totals are total_tokens, total_cost and avg_cost_per_request (US dollars; None when no call had a price, else of
        the calls that had one), request_count, avg_tokens_per_request and unpriced_requests.

        Args:
            since: epoch seconds, datetime, or timedelta back from now; None: a day ago. Rounded down to the minute, and
                to the hour beyond 25 hours; memory keeps a month, Redis 400 days, a SQLite file everything.
            until: the same; None: now.
            group_by: any of "agent", "model", "provider", "user" and "tag", outermost first.

        Raises:
            UnknownNameError: `group_by` names something else.
        """
        return self._usage.report(since, until, group_by)


def _uncached(usage: Usage) -> Usage:
    return Usage(usage.prompt_tokens, usage.completion_tokens)


def rule_of_thumb(message: str, model: str | None) -> int:
    """Return how long the answer may be: the question's length, four characters a token, times the guide's factors."""
    factor = 1.5 if model in _DETAILED else 1.0 if model in _CONCISE else 1.2
    if "explain" in message or "describe" in message:
        factor *= 1.5
    elif "list" in message or "summary" in message:
        factor *= 0.8
    return int(len(message) // 4 * factor + 0.5)
