from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest

import perfkit
from perfkit.clock import FakeClock
from perfkit.errors import BudgetExceededError, ConfigError
from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer
from perfkit.values import ChatRequest, Usage


@dataclass
class Agent:
    instructions: str | None = "You are a helpful assistant."
    model: str = "gpt-4o"


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker(clock=FakeClock())


def count(tracker: PerformanceTracker, name: str, tags: dict[str, Any] | None = None) -> float:
    return float(tracker.get_stats(name, tags=tags).get("sum", 0))


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(**{"messages": "How tall is the lighthouse of Alexandria?", "model": "gpt-4o", **fields})


def test_shared_instance_is_perfkit_optimizer() -> None:
    assert perfkit.optimizer is TokenOptimizer.instance()
    assert perfkit.TokenOptimizer is TokenOptimizer


def test_text_and_messages_are_counted() -> None:
    optimizer = TokenOptimizer()
    text = "How tall is the lighthouse of Alexandria?"
    assert optimizer.count_tokens(text) > 5
    assert optimizer.count_tokens([{"role": "user", "content": text}], "gpt-4o") == optimizer.count_tokens(text) + 7
    assert optimizer.count_tokens(request().messages) == optimizer.count_tokens(text) + 7


def test_tokens_of_an_agents_run_are_estimated() -> None:
    optimizer, agent = TokenOptimizer(), Agent()
    found = optimizer.estimate_tokens(agent, "How tall is it?")
    chat: list[dict[str, Any]] = [
        {"role": "system", "content": agent.instructions},
        {"role": "user", "content": "How tall is it?"},
    ]
    assert found["prompt_tokens"] == optimizer.count_tokens(chat, "gpt-4o")
    assert found["total_tokens"] == found["prompt_tokens"] + found["completion_tokens"]
    more = optimizer.estimate_tokens(agent, "How tall is it?", {"city": "Alexandria", "units": ["m", "ft"]})
    assert more["prompt_tokens"] > found["prompt_tokens"]
    assert optimizer.estimate_tokens(Agent(instructions=None), "Hi")["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("model", "message", "tokens"),
    [
        ("gpt-4o", "x" * 400, 150),
        ("gpt-4o-mini", "x" * 400, 100),
        ("another", "x" * 400, 120),
        ("gpt-4o", "explain" + "x" * 393, 225),
        ("claude-3-5-haiku-20241022", "describe" + "x" * 392, 150),
        ("another", "list" + "x" * 396, 96),
        ("gpt-4o-mini", "summary" + "x" * 393, 80),
        ("gpt-4o", "abcd" * 3, 5),  # 4.5 is rounded up, as Ruby does
    ],
)
def test_completion_follows_the_guides_rule(model: str, message: str, tokens: int) -> None:
    assert TokenOptimizer().estimate_tokens(Agent(model=model), message)["completion_tokens"] == tokens


def test_cost_is_in_dollars_for_usage_and_mappings() -> None:
    optimizer = TokenOptimizer()
    assert optimizer.calculate_cost(Usage(1_000_000, 100_000), "gpt-4o") == 3.5
    assert optimizer.calculate_cost({"prompt_tokens": 1_000_000, "completion_tokens": 100_000}, "gpt-4o") == 3.5
    assert optimizer.calculate_cost(Usage(1_000_000, 0, cached_tokens=1_000_000), "gpt-4o") == 1.25
    assert optimizer.calculate_cost(Usage(300_000, 0), "gpt-6.1-sol") == 1.2


def test_unknown_model_costs_none_warns_once_and_is_counted(
    tracker: PerformanceTracker, caplog: pytest.LogCaptureFixture
) -> None:
    optimizer = TokenOptimizer(tracker=tracker)
    with caplog.at_level(logging.WARNING, "perfkit.tokens"):
        for model in ("no-such-model", "no-such-model", "other"):
            assert optimizer.calculate_cost(Usage(1000, 1000), model) is None
        assert optimizer.price("no-such-model") is None
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "no price for model 'no-such-model'",
        "no price for model 'other'",
    ]
    assert count(tracker, "price_unknown", {"model": "no-such-model"}) == 3
    assert count(tracker, "price_unknown") == 4


def test_known_models_neither_warn_nor_count(tracker: PerformanceTracker, caplog: pytest.LogCaptureFixture) -> None:
    optimizer = TokenOptimizer(tracker=tracker, prices={"free": {"input": 0, "output": 0}})
    assert optimizer.calculate_cost(Usage(1000, 1000), "free") == 0.0
    assert optimizer.price("gpt-4o") is not None
    assert caplog.records == []
    assert count(tracker, "price_unknown") == 0


def test_fallback_prices_unknown_models_and_still_counts_them(tracker: PerformanceTracker) -> None:
    optimizer = TokenOptimizer(tracker=tracker, fallback_price={"input": 5, "output": 25})
    assert optimizer.calculate_cost(Usage(1_000_000, 0), "no-such-model") == 5.0
    assert optimizer.calculate_cost(Usage(1_000_000, 0), "gpt-4o") == 2.5
    assert count(tracker, "price_unknown") == 1


def test_configured_prices_take_effect_in_place() -> None:
    optimizer = TokenOptimizer()
    assert optimizer.calculate_cost(Usage(1_000_000, 0), "gpt-4o") == 2.5
    optimizer.configure(prices={"gpt-4o": {"input": 2, "output": 8}})
    assert optimizer.calculate_cost(Usage(1_000_000, 0), "gpt-4o") == 2.0


def test_worst_cost_is_the_prompt_with_a_margin_and_the_longest_answer() -> None:
    optimizer = TokenOptimizer()
    prompt = optimizer.count_tokens(request().messages, "gpt-4o")
    margin = -(-prompt * 115 // 100)
    assert optimizer.worst_cost(request(max_tokens=100)) == (margin * 2500 + 100 * 10_000) / 1e9
    assert optimizer.worst_cost(request()) == (margin * 2500 + 4096 * 10_000) / 1e9
    assert optimizer.worst_cost(request(extra={"max_completion_tokens": 50, "n": 3})) == (
        (margin * 2500 + 150 * 10_000) / 1e9
    )
    assert optimizer.worst_cost(request(model="x", max_tokens=100), "gpt-4o") == optimizer.worst_cost(
        request(max_tokens=100)
    )
    assert optimizer.worst_cost(request(model="no-such-model")) is None


def test_worst_cost_knows_models_that_write_less_than_the_default() -> None:
    optimizer = TokenOptimizer(prices={"m": {"input": 0, "output": 1}})
    assert optimizer.worst_cost(request(model="m")) == 4096 / 1e6
    assert optimizer.price("command-r7b-12-2024").max_output == 4096  # type: ignore[union-attr]


def test_worst_cost_counts_tools_and_schemas() -> None:
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
    optimizer = TokenOptimizer()
    plain = optimizer.worst_cost(request())
    assert plain is not None
    assert (optimizer.worst_cost(request(tools=(tool,))) or 0) > plain
    assert (optimizer.worst_cost(request(response_format={"type": "json_object"})) or 0) > plain


def test_usage_is_reported_and_recorded(tracker: PerformanceTracker) -> None:
    optimizer = TokenOptimizer(tracker=tracker, clock=FakeClock())
    optimizer.track_usage("support", "gpt-4o", Usage(900, 100), 0.0125, provider="openai", user="42")
    optimizer.track_usage("support", "gpt-4o", {"total_tokens": 500}, 0.01)
    report = optimizer.get_usage_report()
    assert report["support"]["gpt-4o"]["total_tokens"] == 1500
    assert report["support"]["gpt-4o"]["total_cost"] == 0.0225
    assert optimizer.get_usage_report(group_by=("user",))["42"]["request_count"] == 1
    assert count(tracker, "token_usage", {"agent": "support", "model": "gpt-4o", "provider": "openai"}) == 1000
    assert count(tracker, "token_usage") == 1500
    assert count(tracker, "cost") == pytest.approx(0.0225)


def test_cost_that_is_not_given_is_calculated(tracker: PerformanceTracker) -> None:
    optimizer = TokenOptimizer(tracker=tracker)
    optimizer.track_usage("a", "gpt-4o", Usage(1000, 100))
    optimizer.track_usage("a", "no-such-model", Usage(1000, 100))
    report = optimizer.get_usage_report()["a"]
    assert report["gpt-4o"]["total_cost"] == 0.0035
    assert (report["no-such-model"]["total_cost"], report["no-such-model"]["unpriced_requests"]) == (None, 1)
    assert count(tracker, "cost") == 0.0035


@pytest.mark.parametrize("cost", [-1, float("nan"), "1"])
def test_impossible_cost_is_refused(cost: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="cost must be"):
        TokenOptimizer().track_usage("a", "m", Usage(1, 1), cost)


def test_budget_is_set_reserved_and_settled() -> None:
    optimizer = TokenOptimizer(clock=FakeClock())
    optimizer.set_budget(("user", "*"), 1.0, "day")
    assert optimizer.has_budgets
    hold = optimizer.reserve({"user": "42", "model": "gpt-4o"}, 0.6)
    assert hold.amount == 0.6
    with pytest.raises(BudgetExceededError, match="user '42'"):
        optimizer.reserve({"user": "42"}, 0.6)
    hold.settle(0.1)
    assert optimizer.budgets()[0]["spent"] == 0.1
    optimizer.set_budget(("user", "*"), None, "day")
    optimizer.reserve({"user": "42"}, 5.0)
    assert repr(optimizer) == "TokenOptimizer(0 budgets)"


def test_call_of_unknown_price_is_refused_under_a_budget_unless_a_fallback_is_set() -> None:
    optimizer = TokenOptimizer()
    optimizer.set_budget("global", 1.0, "day")
    call = request(model="no-such-model", max_tokens=1000)
    with pytest.raises(BudgetExceededError, match="fallback_price"):
        optimizer.reserve({}, optimizer.worst_cost(call))
    optimizer.configure(fallback_price={"input": 1, "output": 10})
    assert optimizer.reserve({}, optimizer.worst_cost(call)).amount > 0.01


@pytest.mark.parametrize("arguments", [{"amount": -1}, {"amount": float("nan")}, {"amount": 1, "ttl": 0}])
def test_impossible_reservation_is_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match="must be a finite number"):
        TokenOptimizer().reserve({}, **arguments)


def test_budgets_prices_and_zone_come_from_the_configuration() -> None:
    day = {"scope": ["user", "*"], "limit": 0.5, "period": "day"}
    perfkit.configure(tokens={"budgets": [day], "timezone": "Asia/Tokyo", "prices": {"m": {"input": 1, "output": 1}}})
    perfkit.optimizer.reserve({"user": "7"}, 0.5)
    row = perfkit.optimizer.budgets()[0]
    assert (row["scope"], row["limit"], row["until"] % 86400) == (("user", "7"), 0.5, 15 * 3600)
    perfkit.configure(tokens={"budgets": []})
    assert not perfkit.optimizer.has_budgets


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"timezone": "Mars/Olympus"}, "no time zone"),
        ({"budgets": [{"scope": "global", "limit": 1, "period": "week"}]}, "period is one of"),
        ({"prices": {"m": {"input": 1}}}, "needs 'output'"),
        ({"fallback_price": {"in": 1}}, "unknown tokens.fallback_price.in"),
        ({"pricse": {}}, "did you mean 'prices'"),
    ],
)
def test_wrong_setting_is_refused_and_changes_nothing(setting: Any, said: str) -> None:
    optimizer = TokenOptimizer(fallback_price={"input": 1, "output": 1})
    optimizer.set_budget("global", 1.0, "day")
    before = optimizer.settings
    with pytest.raises(ConfigError, match=said):
        optimizer.configure(**setting)
    assert optimizer.settings == before
    assert optimizer.calculate_cost(Usage(1_000_000, 0), "no-such-model") == 1.0
    with pytest.raises(ConfigError, match=said):
        TokenOptimizer(**setting)


def test_reset_forgets_state_and_keeps_settings(tracker: PerformanceTracker, caplog: pytest.LogCaptureFixture) -> None:
    limit = {"scope": "global", "limit": 1.0, "period": "total"}
    optimizer = TokenOptimizer(tracker=tracker, budgets=[limit])
    optimizer.set_budget("user", 1.0, "day")
    optimizer.reserve({}, 1.0)
    optimizer.track_usage("a", "no-such-model", Usage(1, 1))
    optimizer.reset()
    assert optimizer.get_usage_report() == {}
    assert [(row["scope"], row["held"]) for row in optimizer.budgets()] == [(("global", ""), 0.0)]
    optimizer.price("no-such-model")
    assert len(caplog.records) == 2


def test_forked_child_works_and_starts_without_the_parents_use() -> None:
    optimizer = TokenOptimizer(clock=FakeClock())
    optimizer.set_budget("global", 1.0, "total")
    optimizer.reserve({}, 0.9)
    optimizer.track_usage("a", "gpt-4o", Usage(1, 1))
    for part in (optimizer, optimizer._counter, optimizer._usage, optimizer._budgets):
        part._lock.acquire()  # as other threads of the parent held them
    optimizer._after_fork()
    optimizer._after_fork()
    assert optimizer.get_usage_report() == {}
    assert optimizer.budgets()[0]["held"] == 0
    assert optimizer.price("no-such-model") is None
    assert optimizer.count_tokens("hello world " * 40) > 0
    optimizer.close()
