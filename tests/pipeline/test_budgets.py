from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from _noon import noon
from _servers import Redis

import perfkit
from perfkit.testing import FaultServer, faults

PRICES = {"big": {"input": 0.0, "output": 1000.0}, "small": {"input": 0.0, "output": 100.0}}  # 0.001 a token of "big"


@pytest.fixture
def chat(fault: FaultServer) -> Callable[..., perfkit.ChatResponse]:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        client={"default_model": "big"},
        tokens={"prices": PRICES, "timezone": noon()},
    )
    return perfkit.chat


def bodies(fault: FaultServer) -> list[dict[str, object]]:
    return [json.loads(request["body"]) for request in fault.stats()["recent"]]


def answer(tokens: int, finish_reason: str = "stop", delay: float = 0.0) -> faults.Behaviour:
    return faults.ok("some text", usage={"completion_tokens": tokens}, finish_reason=finish_reason, delay=delay)


def test_answer_is_bounded_by_what_is_left_and_not_kept_when_cut(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    perfkit.optimizer.set_budget("global", 0.1, "day")
    fault.behave(answer(60, "length"), answer(39))
    first = chat("tell me all", temperature=0)
    assert (first.cost, first.cache_decision) == (0.06, "cut short by a budget")
    assert chat("tell me all", temperature=0).cost == 0.039
    assert [body["max_tokens"] for body in bodies(fault)] == [pytest.approx(100, abs=1), pytest.approx(40, abs=1)]
    with pytest.raises(perfkit.BudgetExceededError):
        chat("tell me more")


def test_budgets_know_the_price_of_a_model_that_each_provider_calls_otherwise(fault: FaultServer) -> None:
    local = {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}
    perfkit.configure(
        providers={"one": {**local, "models": {"fast": "big"}}, "two": {**local, "models": {"fast": "small"}}},
        router={"strategy": "priority"},
        tokens={"prices": PRICES, "timezone": noon()},
    )
    perfkit.optimizer.set_budget(("user", "*"), 0.1, "day")
    fault.behave(answer(60), answer(30))
    assert perfkit.chat("hi", model="fast", provider="one", user="42").cost == 0.06
    assert perfkit.chat("hi", model="fast", provider="two", user="42").cost == 0.003
    assert [body["max_tokens"] for body in bodies(fault)] == [pytest.approx(100, abs=1), pytest.approx(400, abs=1)]
    fault.behave(faults.cut(after_events=2))
    with pytest.raises(perfkit.PerfkitError):
        list(perfkit.stream("hi", model="fast", provider="one", user="42"))
    [spent] = [row["spent"] for row in perfkit.optimizer.budgets() if row["scope"] == ("user", "42")]
    assert 0.063 < spent < 0.075  # the few tokens that came, not all that was held


def test_every_attempt_is_bounded_anew(chat: Callable[..., perfkit.ChatResponse], fault: FaultServer) -> None:
    perfkit.optimizer.set_budget("global", 1.0, "day")
    fault.behave(faults.rate_limited(retry_after=0), answer(10))
    chat("hi")
    assert [body["max_tokens"] for body in bodies(fault)] == [pytest.approx(1000, abs=1)] * 2


def test_cheaper_model_answers_when_the_budget_is_spent_and_is_not_kept(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    perfkit.optimizer.set_budget(("model", "big"), 0.1, "day", exhausted=["small"])
    fault.behave(answer(100), answer(50), answer(50))
    assert chat("What is a budget?", max_tokens=100).model == "big"
    cheaper = [chat("again", temperature=0) for _ in range(2)]
    assert [body["model"] for body in bodies(fault)] == ["big", "small", "small"]
    assert [one.cost for one in cheaper] == [0.005, 0.005]
    assert cheaper[0].cache_decision == "answered by a cheaper model"
    streamed = perfkit.stream("and again", max_tokens=100)
    assert "".join(streamed)
    assert bodies(fault)[-1]["model"] == "small"


def test_queued_calls_wait_for_each_others_money(chat: Callable[..., perfkit.ChatResponse], fault: FaultServer) -> None:
    perfkit.optimizer.set_budget("global", 0.15, "day", exhausted="queue")
    fault.behave(*[answer(20, delay=0.02) for _ in range(5)])
    with ThreadPoolExecutor(5) as pool:
        costs = list(pool.map(lambda n: chat(f"question {n}", max_tokens=60).cost, range(5)))
    assert costs == [0.02] * 5
    assert perfkit.optimizer.budgets()[0]["spent"] == pytest.approx(0.1)
    assert fault.counters()["peak_in_flight"] <= 2  # 0.06 is held for each
    with pytest.raises(perfkit.BudgetExceededError):
        chat("one more", max_tokens=60)


def test_budget_is_shared_through_the_configured_redis(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer, redis: Redis
) -> None:
    perfkit.configure(state={"url": redis.url, "timeout": 5.0})
    other = perfkit.TokenOptimizer(prices=PRICES, timezone=noon())
    for worker in (perfkit.optimizer, other):
        worker.set_budget("global", 0.1, "day")
    other.reserve({}, 0.07).settle(0.07)
    fault.behave(answer(20))
    assert chat("hi").cost == 0.02
    assert bodies(fault)[0]["max_tokens"] == pytest.approx(30, abs=1)
    assert other.budgets()[0]["spent"] == pytest.approx(0.09)


def test_savings_by_cache_and_by_cheaper_models_are_counted(
    chat: Callable[..., perfkit.ChatResponse], fault: FaultServer
) -> None:
    perfkit.optimizer.set_budget(("model", "big"), 0.1, "day", exhausted=["small"])
    fault.behave(answer(100), answer(50))
    for _ in range(2):
        chat("What is a budget?", max_tokens=100, temperature=0, context={"tag": "day"})
    chat("again", context={"tag": "night"})
    saved = perfkit.optimizer.savings()
    assert [saved["cache"], saved["choice"]] == [pytest.approx(0.1), pytest.approx(0.045)]
    assert perfkit.optimizer.get_usage_report(group_by=("tag",))["night"]["request_count"] == 1
    rows = json.loads(perfkit.optimizer.export_usage(kind="json"))
    assert {row["tag"] for row in rows if row["saved_by_cache"]} == {"day"}  # a hit has the tag of its call
