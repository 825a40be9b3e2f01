from __future__ import annotations

import json
from datetime import date

import pytest

from perfkit.errors import NoAvailableProviderError
from perfkit.routing.profiles import TABLE_FILE, ModelProfile, choose_model, profile_of

FAST = ModelProfile("a", "fast", 0.3, 0.1, 100, 0.6, 0.001)
GOOD = ModelProfile("b", "good", 2.0, 0.5, 30, 0.95, 0.02)
CHEAP = ModelProfile("c", "cheap", 1.0, 0.3, 50, 0.7, 0.0001)
UNKNOWN = ModelProfile("d", "unknown")
ALL = (FAST, GOOD, CHEAP, UNKNOWN)


def test_the_table_is_dated_and_says_where_it_is_from() -> None:
    table = json.loads(TABLE_FILE.read_text())
    assert date.fromisoformat(table["date"]) >= date(2026, 11, 1)
    assert "AgentiCraft" in table["source"]
    known = {"provider", "latency", "first_token", "tokens_per_second", "quality"}
    assert all(set(row) == known for row in table["models"].values())
    assert all(0 <= row["quality"] <= 1 for row in table["models"].values())


def test_a_profile_is_found_by_the_longest_beginning_with_todays_price() -> None:
    mini = profile_of("openai/gpt-4o-mini-2024-07-18")
    assert (mini.provider, mini.quality, mini.first_token) == ("openai", 0.7, 0.35)
    assert mini.cost_per_1k == pytest.approx((0.15 * 750 + 0.60 * 250) / 1e6)
    assert profile_of("gpt-4o").quality == 0.85
    assert profile_of("claude-3-haiku-20240307", "mine").provider == "mine"
    assert profile_of("no such model") == ModelProfile("", "no such model")


def test_what_is_measured_goes_over_the_table() -> None:
    overlaid = FAST.overlaid(latency=0.9, quality=None)
    assert (overlaid.latency, overlaid.quality, overlaid.measured) == (0.9, 0.6, True)
    assert FAST.overlaid(latency=None) is FAST
    assert not FAST.overlaid(quality=1.0).measured


def test_the_fastest_that_meets_all_constraints_is_chosen() -> None:
    assert choose_model(ALL, max_latency=5.0) is FAST
    assert choose_model(ALL, min_quality=0.65) is CHEAP
    assert choose_model(ALL, min_quality=0.9, max_latency=5.0) is GOOD
    assert choose_model(ALL, max_cost_per_1k=0.0005) is CHEAP


def test_what_is_not_known_meets_no_constraint() -> None:
    with pytest.raises(NoAvailableProviderError, match="latency is unknown of all"):
        choose_model([UNKNOWN], max_latency=100.0)


def test_the_constraint_that_binds_is_named_with_who_is_nearest() -> None:
    with pytest.raises(NoAvailableProviderError) as caught:
        choose_model(ALL, max_latency=0.1, min_quality=0.5)
    error = caught.value
    assert str(error) == "no model meets the constraints: max_latency=0.1 keeps them out, nearest is a/fast with 0.3"
    assert error.binding == ["max_latency"]  # type: ignore[attr-defined]
    assert error.reasons["d/unknown"] == "latency is unknown, quality is unknown"
    with pytest.raises(
        NoAvailableProviderError, match=r"min_quality=0\.99 keeps them out, nearest is b/good with 0\.95"
    ):
        choose_model(ALL, max_latency=5.0, min_quality=0.99)


def test_two_constraints_may_bind_together() -> None:
    with pytest.raises(NoAvailableProviderError) as caught:
        choose_model([FAST, GOOD], max_latency=0.5, min_quality=0.9)
    assert caught.value.binding == ["max_latency", "min_quality"]  # type: ignore[attr-defined]


def test_nothing_to_choose_from_says_so() -> None:
    with pytest.raises(NoAvailableProviderError, match="no provider names its models"):
        choose_model([], max_latency=1.0)
