"""What a budget says, which budgets a call falls under, and how a refusal reads: pure functions on plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

from perfkit.errors import BudgetExceededError, ConfigError, nearest
from perfkit.tokens.periods import PERIODS
from perfkit.tokens.pricing import from_nano, to_nano
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EACH", "Key", "Rules", "exceeded", "matching", "parse_rule", "parse_rules", "parse_scope"]

EACH: Final = "*"

Key = tuple[str, str, str]  # kind and name of the scope, period
Rules = Mapping[Key, int]  # limits in nano-dollars


def parse_scope(scope: Any) -> tuple[str, str]:
    """Return kind and name of a scope: ("user", "42"), "user:42", ("user", "*") or "user" for each user, "global".

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(scope, str) and scope:
        kind, _, name = scope.partition(":")
        return kind, name or ("" if kind == "global" else EACH)
    match scope:
        case (str(kind), str(name)) if kind:
            return kind, name
    raise ConfigError(f"a budget's scope is a pair such as ('user', '42') or ('user', '*'), not {scope!r}", key="scope")


def parse_rule(scope: Any, limit: Any, period: Any) -> tuple[Key, int]:
    """Return key and limit (nano-dollars) of a budget.

    Raises:
        ConfigError: a part of it cannot be used.
    """
    kind, name = parse_scope(scope)
    if period not in PERIODS:
        raise ConfigError(
            f"a budget's period is one of {', '.join(PERIODS)}, not {period!r}{nearest(period, PERIODS)}", key="period"
        )
    try:
        return (kind, name, period), to_nano(finite("a budget's limit", limit, least=0))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{error}; give US dollars", key="limit") from None


def parse_rules(rows: Sequence[Any]) -> dict[Key, int]:
    """Return the rules of a settings list of {"scope", "limit", "period"}.

    Raises:
        ConfigError: a row cannot be used.
    """
    for row in rows:
        if not isinstance(row, Mapping) or set(row) != {"scope", "limit", "period"}:
            raise ConfigError(f"a budget needs scope, limit and period, not {row!r}", key="tokens.budgets")
    return dict(parse_rule(row["scope"], row["limit"], row["period"]) for row in rows)


def matching(rules: Rules, scopes: Mapping[str, str | None]) -> Iterator[tuple[Key, int]]:
    """Yield key and limit of every budget a call falls under; "global" always counts.

    A budget of a name's own takes the place of the one that each name has for the same period.
    """
    named = {"global": "", **scopes} if rules else {}
    for kind, name in named.items():
        for period in PERIODS if name is not None else ():
            key = (kind, str(name), period)
            limit = rules.get(key, rules.get((kind, EACH, period)))
            if limit is not None:
                yield key, limit


def exceeded(
    key: Key, limit: int, spent: int, needed: int | None, until: tuple[float | None, tzinfo]
) -> BudgetExceededError:
    """Return the refusal of a call; amounts in nano-dollars, `needed` None when the price is unknown."""
    kind, name, period = key
    end, zone = until
    what = f"budget of {kind} {name!r}" if name else f"{kind} budget"
    each = {"total": "in total", "request": "a request"}.get(period, f"a {period}")
    why = "the model's price is unknown: set tokens.prices or tokens.fallback_price"
    if needed is not None:
        why = f"${from_nano(spent):.6g} are spent or held and the call may cost ${from_nano(needed):.6g}"
    ends = "" if end is None else f"; the period ends {datetime.fromtimestamp(end, zone).isoformat()}"
    return BudgetExceededError(
        f"{what} (${from_nano(limit):.6g} {each}) refuses the call: {why}{ends}",
        scope=(kind, name),
        period=period,
        limit=from_nano(limit),
        spent=from_nano(spent),
        needed=math.inf if needed is None else from_nano(needed),
        until=end,
    )
