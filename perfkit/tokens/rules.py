"""What a budget says, which budgets a call falls under, and how a refusal reads: pure functions on plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final

from perfkit.errors import BudgetExceededError, ConfigError, nearest
from perfkit.tokens.periods import PERIODS
from perfkit.tokens.pricing import from_nano, to_nano
from perfkit.values import finite

__all__ = [
    "EACH",
    "REFUSE",
    "Answer",
    "Key",
    "Rulebook",
    "Rules",
    "exceeded",
    "parse_answer",
    "parse_answers",
    "parse_rule",
    "parse_rules",
    "parse_scope",
]

EACH: Final = "*"
NEEDED: Final = frozenset({"scope", "limit", "period"})

Key = tuple[str, str, str]  # kind and name of the scope, period
Rules = Mapping[Key, int]  # limits in nano-dollars


class Rulebook(dict[Key, int]):
    """Limits in nano-dollars: replaced, never changed, so threads read it without a lock."""

    def __init__(self, rules: Rules | None = None) -> None:
        super().__init__(rules if rules is not None else {})
        self._watched = tuple(dict.fromkeys((kind, period) for kind, _, period in self))

    def matching(self, scopes: Mapping[str, str | None]) -> list[tuple[Key, int]]:
        """Return key and limit of every budget a call falls under; "global" always counts.

        A budget of a name's own takes the place of the one that each name has for the same period.
        """
        found = []
        for kind, period in self._watched:
            name = "" if kind == "global" else scopes.get(kind)
            if name is not None:
                limit = self.get((kind, name, period), self.get((kind, EACH, period)))
                if limit is not None:
                    found.append(((kind, name, period), limit))
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a call that a budget has too little left for.

    Attributes:
        wait: whether it waits, within its own time, for holds to end or the next period to begin.
        models: cheaper ones to ask instead, in order (RecoAgent guide, "Fallback Scenarios: Cost Limits").
    """

    wait: bool = False
    models: tuple[str, ...] = ()


REFUSE: Final = Answer()


def parse_answer(given: Any) -> Answer:
    """Return the answer to an exhausted budget: "refuse", "queue", or the names of cheaper models.

    Raises:
        ConfigError: it is none of these.
    """
    if given in ("refuse", "queue"):
        return Answer(wait=given == "queue")
    if isinstance(given, list | tuple) and given and all(isinstance(model, str) and model for model in given):
        return Answer(models=tuple(given))
    raise ConfigError(f"exhausted is 'refuse', 'queue' or a list of cheaper models, not {given!r}", key="exhausted")


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
    raise ConfigError(
        f"a budget's scope is 'global', or a pair such as ('user', '42') or ('user', '*'), not {scope!r}", key="scope"
    )


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
    """Return the rules of a settings list of {"scope", "limit", "period"}, each perhaps with "exhausted".

    Raises:
        ConfigError: a row cannot be used.
    """
    for row in rows:
        if not isinstance(row, Mapping) or row.keys() - {"exhausted"} != NEEDED:
            raise ConfigError(f"a budget needs scope, limit and period, not {row!r}", key="tokens.budgets")
    return dict(parse_rule(row["scope"], row["limit"], row["period"]) for row in rows)


def parse_answers(rows: Sequence[Any]) -> dict[Key, Answer]:
    """Return what the rows of a settings list that `parse_rules` has read say of exhausted budgets.

    Raises:
        ConfigError: one says what cannot be done.
    """
    return {
        (*parse_scope(row["scope"]), row["period"]): parse_answer(row["exhausted"])
        for row in rows
        if "exhausted" in row
    }


def exceeded(
    key: Key, limit: int, spent: int, needed: int | None, until: tuple[float | None, tzinfo], *, held: int = 0
) -> BudgetExceededError:
    """Return the refusal of a call; amounts in nano-dollars, `needed` None when the price is unknown.

    `held` is the part of `spent` that calls under way may still give back.
    """
    kind, name, period = key
    end, zone = until
    what = f"budget of {kind} {name!r}" if name else f"{kind} budget"
    each = {"total": "in total", "request": "a request"}.get(period, f"a {period}")
    why = "the model's price is unknown: set tokens.prices or tokens.fallback_price"
    if needed is not None:
        why = f"${from_nano(spent):.6g} are spent or held and the call may cost ${from_nano(needed):.6g}"
    ends = "" if end is None else f"; the period ends {datetime.fromtimestamp(end, zone).isoformat()}"
    if kind == "request" and needed is not None:
        ends = "; lower max_tokens, take a cheaper model, or raise the budget"
    return BudgetExceededError(
        f"{what} (${from_nano(limit):.6g} {each}) refuses the call: {why}{ends}",
        scope=(kind, name),
        period=period,
        limit=from_nano(limit),
        spent=from_nano(spent),
        held=from_nano(held),
        needed=math.inf if needed is None else from_nano(needed),
        until=end,
    )
