"""TokenOptimizer: counts tokens, prices calls, keeps budgets, reports use, and makes prompts cheaper.

It ties together parts that know nothing of each other: the counter, the price table, the budgets, the usage log, and
what past answers taught.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Final

from perfkit._process import background
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import ConfigError
from perfkit.tokens.admission import Gate
from perfkit.tokens.counting import TokenCounter
from perfkit.tokens.learning import Experience
from perfkit.tokens.ledger import SharedBudgets
from perfkit.tokens.periods import time_zone
from perfkit.tokens.prefix import Detector, Traffic
from perfkit.tokens.pricing import PriceTable
from perfkit.tokens.profiles import Profiles
from perfkit.tokens.rewriting import Rewriting
from perfkit.tokens.rules import parse_answers, parse_rules
from perfkit.tokens.selection import Scores
from perfkit.tokens.usage import UsageLog
from perfkit.tokens.usage_store import RedisUsage, SqliteUsage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfkit.metrics import PerformanceTracker
    from perfkit.state import RedisLink, SqliteFile, StateHub
    from perfkit.tokens.usage import Store

__all__ = ["TokenOptimizer"]

FLUSH_SECONDS: Final = 2.0  # between two times that usage is sent to the store


class TokenOptimizer(Rewriting):
    """Token counts, costs, budgets and usage reports; `perfkit.optimizer` is the shared one.

    Args:
        clock: time source.
        tracker: where token_usage, cost and price_unknown are recorded; None means the shared PerformanceTracker.
        state: where budgets and usage are shared between processes; None means the configured `[state]`.
        **settings: keys of the `[tokens]` table.

    Raises:
        ConfigError: a setting is unknown or cannot be used.
    """

    _table = "tokens"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        tracker: PerformanceTracker | None = None,
        state: StateHub | None = None,
        **settings: Any,
    ) -> None:
        self._clock = clock = clock if clock is not None else SYSTEM_CLOCK
        self._given_tracker, self._given_state = tracker, state
        self._counter = TokenCounter()
        self._usage = UsageLog(clock, self._usage_store)
        self._experience, self._traffic, self._detector = Experience(), Traffic(), Detector()
        self._scores = Scores()
        self._stored_on: RedisLink | SqliteFile | None = None
        self._stored: Store | None = None
        self._budgets = SharedBudgets(clock, time_zone("UTC"), self._redis)
        self._budgets.listener = self._on_spent
        self._gate = Gate(self._budgets, clock, self._quote)
        self._lock = threading.Lock()  # guards _warned
        self._warned, self._series = set(), {}
        super().__init__(settings)
        self._applied = self.settings
        self._apply()

    def _apply(self) -> None:
        settings = self.settings
        try:
            prices = PriceTable(settings.prices, settings.fallback_price)
            rules, answers = parse_rules(settings.budgets), parse_answers(settings.budgets)
            zone, patterns = time_zone(settings.timezone), _compiled(settings.volatile)
            profiles = Profiles(settings.models)
        except ConfigError:
            self.settings = self._applied
            raise
        self._zone = zone
        self._prices, self._patterns, self._profiles, self._applied = prices, patterns, profiles, settings
        self._budgets.configure(rules, zone, answers)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._counter.after_fork()
        self._usage.after_fork()
        self._budgets.after_fork()
        self._gate.after_fork()
        for learned in (self._experience, self._traffic, self._detector, self._scores):
            learned.after_fork()

    def close(self) -> None:
        """Send what was counted and not yet stored."""
        self._usage.flush()

    def reset(self) -> None:
        """Forget usage, spending, holds, budgets set by hand and what was learned; what is in `[state]` stays."""
        self._counter.clear()
        self._usage.clear()
        self._budgets.clear()
        for learned in (self._experience, self._traffic, self._detector, self._scores):
            learned.clear()
        self._series.clear()
        with self._lock:
            self._warned.clear()
        self._apply()

    @property
    def _state(self) -> StateHub:
        if self._given_state is None:
            from perfkit.state import StateHub

            self._given_state = StateHub.instance()
        return self._given_state

    def _usage_store(self) -> Store | None:
        """Return where usage is kept beyond this process; the first use starts sending it there."""
        link = self._state.link
        if link is not self._stored_on:
            self._stored_on = link
            self._stored = None if link is None else _store_on(link)
            if link is not None:
                background.every(FLUSH_SECONDS, self._usage.flush)
        return self._stored

    def _redis(self) -> RedisLink | None:
        return self._state.redis

    def __repr__(self) -> str:
        return f"TokenOptimizer({len(self.budgets())} budgets)"


def _store_on(link: RedisLink | SqliteFile) -> Store:
    from perfkit.state import SqliteFile

    return SqliteUsage(link) if isinstance(link, SqliteFile) else RedisUsage(link)


def _compiled(patterns: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    try:
        return tuple(re.compile(pattern) for pattern in patterns)
    except (re.error, TypeError) as error:
        raise ConfigError(
            f"tokens.volatile has a pattern that cannot be used: {error}", key="tokens.volatile"
        ) from None
