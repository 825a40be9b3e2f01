from __future__ import annotations

import pickle
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from perfkit.errors import ConfigError
from perfkit.tokens.rules import Rulebook, exceeded, parse_rule, parse_rules, parse_scope

DOLLAR = 10**9


@pytest.mark.parametrize(
    ("given", "scope"),
    [
        (("user", "42"), ("user", "42")),
        (["user", "*"], ("user", "*")),
        ("user:42", ("user", "42")),
        ("user", ("user", "*")),
        ("global", ("global", "")),
    ],
)
def test_scope_is_a_pair_or_its_short_form(given: Any, scope: tuple[str, str]) -> None:
    assert parse_scope(given) == scope


@pytest.mark.parametrize("given", ["", 7, None, ("user",), ("user", 42), ("", "42"), ("a", "b", "c")])
def test_other_scopes_are_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="'global', or a pair"):
        parse_scope(given)


@pytest.mark.parametrize(
    ("limit", "period", "said"),
    [
        (1, "dy", "did you mean 'day'"),
        (-1, "day", "at least 0"),
        ("1", "day", "a number"),
        (float("inf"), "day", "finite"),
    ],
)
def test_wrong_limit_or_period_is_refused(limit: Any, period: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_rule("global", limit, period)


def test_settings_rows_become_rules() -> None:
    rows = [
        {"scope": ["user", "*"], "limit": 0.5, "period": "day"},
        {"scope": "global", "limit": 20, "period": "month"},
    ]
    assert parse_rules(rows) == {("user", "*", "day"): DOLLAR // 2, ("global", "", "month"): 20 * DOLLAR}


@pytest.mark.parametrize("row", [{"scope": "global", "limit": 1}, "global", {"scope": "a", "limit": 1, "perid": "day"}])
def test_incomplete_settings_row_is_refused(row: Any) -> None:
    with pytest.raises(ConfigError, match="needs scope, limit and period"):
        parse_rules([row])


def test_every_budget_of_a_call_matches() -> None:
    rules = {("user", "*", "day"): 1, ("agent", "a", "day"): 2, ("global", "", "month"): 3, ("agent", "b", "day"): 4}
    assert dict(Rulebook(rules).matching({"user": "42", "agent": "a", "model": "m"})) == {
        ("user", "42", "day"): 1,
        ("agent", "a", "day"): 2,
        ("global", "", "month"): 3,
    }


def test_own_budget_takes_the_place_of_that_for_each_in_its_period_only() -> None:
    rules = {("user", "*", "day"): 1, ("user", "vip", "day"): 9, ("user", "*", "month"): 5}
    assert dict(Rulebook(rules).matching({"user": "vip"})) == {("user", "vip", "day"): 9, ("user", "vip", "month"): 5}


def test_call_without_a_user_falls_under_no_users_budget() -> None:
    rules = Rulebook({("user", "*", "day"): 1})
    assert rules.matching({"user": None}) == rules.matching({}) == []


def test_refusal_says_which_how_much_and_until_when() -> None:
    key = ("user", "42", "day")
    error = exceeded(key, DOLLAR, 995_000_000, 10_000_000, (1_700_000_000.0, ZoneInfo("Europe/Berlin")))
    assert str(error) == (
        "budget of user '42' ($1 a day) refuses the call: $0.995 are spent or held and the call may cost $0.01; "
        "the period ends 2023-11-14T23:13:20+01:00"
    )
    assert (error.scope, error.limit, error.spent, error.needed) == (("user", "42"), 1.0, 0.995, 0.01)
    assert pickle.loads(pickle.dumps(error)).until == error.until == 1_700_000_000.0


def test_refusal_for_want_of_a_price_says_what_to_set() -> None:
    error = exceeded(("global", "", "total"), DOLLAR, 0, None, (None, UTC))
    assert "global budget ($1 in total)" in str(error)
    assert "tokens.fallback_price" in str(error)
    assert error.until is None
