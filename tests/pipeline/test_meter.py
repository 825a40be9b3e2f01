"""What the pipeline records of calls, over real sockets."""

from __future__ import annotations

from typing import Any

import pytest

import perfkit
from perfkit.testing import FaultServer, faults

TAGS = {"provider": "local", "model": "tiny", "agent": "shop"}


def configure(fault: FaultServer, **tables: Any) -> None:
    tokens = {"prices": {"tiny": {"input": 1.0, "output": 2.0}}, **tables.pop("tokens", {})}
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        client={"default_model": "tiny"},
        tokens=tokens,
        **tables,
    )


def total(name: str, **tags: str) -> float:
    return perfkit.tracker.get_stats(name, tags=tags).get("sum", 0.0)


def test_an_answer_is_recorded_by_provider_model_and_agent(fault: FaultServer) -> None:
    configure(fault)
    answer = perfkit.chat("one two three", agent="shop")
    assert perfkit.tracker.get_stats("llm_duration", tags=TAGS)["sum"] == answer.latency
    assert total("tokens_input", **TAGS) == answer.usage.prompt_tokens
    assert total("tokens_output", **TAGS) == answer.usage.completion_tokens
    assert total("cost", **TAGS) == answer.cost
    assert perfkit.tracker.get_stats("first_token") == {}
    assert perfkit.tracker.get_stats("llm_retry") == perfkit.tracker.get_stats("llm_error") == {}


def test_cached_and_reasoning_tokens_are_told_apart(fault: FaultServer) -> None:
    configure(fault)
    usage = {"prompt_tokens": 100, "completion_tokens": 30, "cached_tokens": 60, "reasoning_tokens": 20}
    fault.behave(faults.ok("x", usage=usage))
    perfkit.chat("hello", agent="shop")
    for name, tokens in {"input": 100, "output": 30, "cached": 60, "reasoning": 20}.items():
        assert total(f"tokens_{name}", **TAGS) == tokens
    assert perfkit.tracker.get_stats("tokens_cache_write") == {}


@pytest.mark.parametrize(("policy", "results"), [("smart", {"exact": 2, "miss": 1}), ("never", {"none": 3})])
def test_the_caches_result_is_counted(fault: FaultServer, policy: str, results: dict[str, int]) -> None:
    configure(fault)
    for _ in range(3):
        perfkit.chat("same", temperature=0, cache=policy, agent="shop")
    for result in ("exact", "miss", "none"):
        assert total("llm_cache", model="tiny", agent="shop", result=result) == results.get(result, 0)
    assert perfkit.tracker.get_stats("agent_response_time", tags={"agent": "shop"})["count"] == 3
    assert perfkit.tracker.get_stats("llm_duration")["count"] == 3 - results.get("exact", 0)


def test_a_stream_records_its_first_token_and_the_time_of_each_further_one(fault: FaultServer) -> None:
    configure(fault)
    with perfkit.stream("one two three four", agent="shop") as stream:
        assert "".join(stream)
    assert stream.response is not None
    first = perfkit.tracker.get_stats("first_token", tags=TAGS)["sum"]
    assert first == stream.response.first_token
    each = perfkit.tracker.get_stats("time_per_output_token", tags=TAGS)["sum"]
    spoken = stream.response.attempts[0].seconds - first
    assert each == pytest.approx(max(0.0, spoken) / (stream.response.usage.completion_tokens - 1))


def test_retries_and_fallbacks_are_counted_for_whom_they_went_to(fault: FaultServer) -> None:
    configure(fault)
    fault.behave(faults.status(503, headers={"retry-after": "0.01"}), then="ok")
    assert len(perfkit.chat("hello", agent="shop").attempts) == 2
    assert (total("llm_retry", **TAGS), total("llm_fallback")) == (1, 0)
    with FaultServer() as other:
        other.behave(faults.server_error(503))
        perfkit.router.register_provider(
            "broken",
            perfkit.providers.create_provider("openai", base_url=other.base_url, api_key="x", models=["tiny"]),
            priority=0,
        )
        perfkit.router.configure(strategy="priority")
        answer = perfkit.chat("hello", agent="shop")
    assert [attempt.provider for attempt in answer.attempts] == ["broken", "local"]
    assert (total("llm_retry"), total("llm_fallback", **TAGS)) == (1, 1)


@pytest.mark.parametrize("streamed", [False, True])
def test_errors_are_counted_by_their_class(fault: FaultServer, streamed: bool) -> None:
    configure(fault)
    fault.behave(faults.unauthorized())
    with pytest.raises(perfkit.AuthenticationError):
        list(perfkit.stream("hello", agent="shop")) if streamed else perfkit.chat("hello", agent="shop")
    assert total("llm_error", model="tiny", agent="shop", kind="AuthenticationError") == 1
    assert perfkit.tracker.get_performance_summary()["local/tiny"]["errors"] == {"AuthenticationError": 1}


def test_a_stream_left_early_is_no_error(fault: FaultServer) -> None:
    configure(fault)
    with perfkit.stream("one two three four") as stream:
        next(stream)
    assert perfkit.tracker.get_stats("llm_error") == {}


def test_the_summary_has_money_and_opinions(fault: FaultServer) -> None:
    configure(fault, tokens={"budgets": ({"scope": "global", "limit": 1.0, "period": "day"},)})
    answers = [perfkit.chat(f"question {i}", agent="shop") for i in range(4)]
    fault.behave(faults.unauthorized())
    with pytest.raises(perfkit.AuthenticationError):
        perfkit.chat("hello")
    for answer, score in zip(answers, (1.0, 0.5), strict=False):
        assert answer.id is not None
        assert perfkit.tracker.feedback(answer.id, score=score, satisfied=score > 0.7, completed=True)
    assert not perfkit.tracker.feedback("never heard of", score=0.0)
    row = perfkit.tracker.get_performance_summary()["local/tiny"]
    spent = sum(answer.cost or 0.0 for answer in answers)
    assert row["requests"] == 5
    assert row["error_rate"] == pytest.approx(0.2)
    assert row["total_cost"] == row["month_to_date_cost"] == pytest.approx(spent)
    assert row["cost_per_success"] == pytest.approx(spent / 4)
    assert row["requests_per_second"] > 0
    assert (row["quality_score"], row["satisfaction"], row["completion_rate"]) == (0.75, 0.5, 1.0)
    assert 0 < row["budget_utilization"] <= spent


def test_a_price_of_nothing_is_known(fault: FaultServer) -> None:
    configure(fault, tokens={"prices": {"tiny": {"input": 0.0, "output": 0.0}}})
    perfkit.chat("hello")
    row = perfkit.tracker.get_performance_summary()["local/tiny"]
    assert (row["total_cost"], row["cost_per_success"]) == (0.0, 0.0)


def test_without_a_price_there_is_no_cost(fault: FaultServer) -> None:
    configure(fault, tokens={"prices": {}})
    perfkit.chat("hello")
    assert perfkit.tracker.get_performance_summary()["local/tiny"]["total_cost"] is None
