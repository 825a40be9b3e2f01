from __future__ import annotations

import json
from datetime import date

import pytest

from perfkit import FakeClock, PerformanceTracker, TokenOptimizer
from perfkit.routing import ModelProfile
from perfkit.routing.profiles import profile_of
from perfkit.tokens.profiles import TABLE_FILE

FAST = ModelProfile("a", "fast", 0.3, 0.1, 100, 0.6, 0.001)


def test_the_table_is_dated_and_says_where_it_is_from() -> None:
    table = json.loads(TABLE_FILE.read_text())
    assert date.fromisoformat(table["date"]) >= date(2026, 11, 1)
    assert "RAAF" in table["source"]
    assert "AgentiCraft" in table["source"]
    known = {"provider", "latency", "first_token", "tokens_per_second", "quality"}
    assert all(set(row) == known for row in table["models"].values())
    assert all(0 <= row["quality"] <= 1 for row in table["models"].values())


def test_a_profile_is_found_by_the_longest_beginning_with_todays_price() -> None:
    mini = profile_of("openai/gpt-4o-mini-2024-07-18")
    assert (mini.provider, mini.quality, mini.first_token) == ("openai", 0.75, 0.35)
    assert mini.cost_per_1k == pytest.approx((0.15 * 750 + 0.60 * 250) / 1e6)
    assert profile_of("gpt-4o").quality == 1.0
    assert profile_of("claude-3-haiku-20240307", "mine").provider == "mine"
    assert profile_of("no such model") == ModelProfile("", "no such model")


def test_the_router_and_the_optimizer_know_the_same_of_a_model() -> None:
    optimizer = TokenOptimizer(
        tracker=PerformanceTracker(), clock=FakeClock(), models={"gpt-4o": {"quality": 0.3, "latency": 9.0}}
    )
    routed = profile_of("gpt-4o", optimizer=optimizer)
    assert (routed.quality, routed.latency) == (0.3, 9.0)
    known = optimizer.profile("gpt-4o")
    assert (known.quality, known.latency) == (0.3, 9.0)


def test_what_is_measured_goes_over_the_table() -> None:
    overlaid = FAST.overlaid(latency=0.9, quality=None)
    assert (overlaid.latency, overlaid.quality, overlaid.measured) == (0.9, 0.6, True)
    assert FAST.overlaid(latency=None) is FAST
    assert not FAST.overlaid(quality=1.0).measured
