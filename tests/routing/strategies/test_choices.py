"""Strategies beyond order, latency and turns: load, chance, price, quality, meaning, learning; and who is fit."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from perfkit.errors import NoAvailableProviderError, ServerError
from perfkit.tokens.complexity import RULES, classify, classify_task
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import SlowClock

    from perfkit.routing import ProviderRouter

    MakeRouter = Callable[..., ProviderRouter]

SHORT: Any = "What is RAG?"
LONG: Any = "Compare these two documents"


def terms(router: ProviderRouter, name: str, **given: Any) -> None:
    router.register_provider(name, router.get_provider(name), **given)


def ask(router: ProviderRouter, request: ChatRequest, times: int, clock: SlowClock, gap: float = 0.1) -> Counter[str]:
    answered: Counter[str] = Counter()
    for _ in range(times):
        clock.advance(gap)
        answered[router.execute_with_fallback(request).provider] += 1
    return answered


def test_the_least_busy_counts_active_and_waiting_calls(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"strategy": "least_busy"}, a=0.0, b=0.0)
    first = made._candidates["a"]
    first.in_flight = 2
    made._candidates["b"].in_flight = 1
    assert made.route_request(request_) == "b"
    assert made.execute_with_fallback(request_).attempts[0].reason.startswith("least busy with")


def test_two_choices_prefer_the_faster_and_find_a_recovered_one_again(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    random.seed(1)
    made = router({"strategy": "p2c", "outlier_factor": None}, a=0.1, b=0.1, c=0.1)
    ask(made, request_, 50, clock)
    made.get_provider("c").script = [5.0]
    slowed = ask(made, request_, 200, clock)
    assert slowed["c"] <= 8
    made.get_provider("c").script = [0.1]
    assert ask(made, request_, 300, clock, gap=1.0)["c"] > 50


def test_one_slow_answer_costs_its_place_at_once_and_is_forgotten_soon(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router({"strategy": "least_latency"}, a=0.1, b=0.3)
    ask(made, request_, 20, clock)
    made.get_provider("a").script = [8.0, 0.1]
    assert ask(made, request_, 1, clock) == {"a": 1}
    assert ask(made, request_, 1, clock) == {"b": 1}  # peak: after a single slow answer
    expected = made._candidates["a"].expected
    clock.advance(20)
    assert made._candidates["a"].expected < expected / 4  # decaying in ten seconds


def test_the_cheapest_is_chosen_by_the_price_of_the_model_there(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"strategy": "cost"}, a=0.0, b=0.0, c=0.0)
    for name, own_name in (("a", "gpt-4o"), ("b", "gpt-4o-mini"), ("c", "nobody knows")):
        made.get_provider(name).own_name = lambda _, own_name=own_name: own_name
    assert made.execute_with_fallback(request_).provider == "b"
    made.get_provider("b").script = [ServerError("500")]
    assert made.execute_with_fallback(request_).provider == "a"
    made.get_provider("c").cost_per_1k = 0.0
    assert made.execute_with_fallback(request_).provider == "c"  # free is known, not unknown


def test_the_best_quality_is_chosen_as_registered_then_as_judged(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"strategy": "quality"}, a=0.0, b=0.0)
    terms(made, "a", quality=0.9)
    terms(made, "b", quality=0.8)
    assert made.execute_with_fallback(request_).attempts[0].reason == "best quality 0.90"
    for _ in range(20):
        made._candidates["a"].judged(0.3)
    assert made.execute_with_fallback(request_).provider == "b"


def test_manual_takes_the_primary_and_switches_at_run_time(router: MakeRouter, request_: ChatRequest) -> None:
    made = router({"strategy": "manual", "primary": "b"}, a=0.0, b=0.0, c=0.0)
    assert made.execute_with_fallback(request_).attempts[0].reason == "primary"
    assert made.route_request() == "b"
    made.configure(primary="c")
    assert made.route_request() == "c"
    made.get_provider("c").script = [ServerError("500")]
    response = made.execute_with_fallback(request_)
    assert (response.provider, response.attempts[1].reason) == ("a", "primary c cannot be used after ServerError")


@pytest.mark.parametrize(
    ("text", "context", "level"),
    [
        ("What is RAG?", 0, "simple"),
        ("What is RAG?", 1000, "medium"),
        ("What is RAG?", 5001, "complex"),
        ("word " * 9, 0, "simple"),
        ("word " * 10, 0, "medium"),
        ("word " * 50, 0, "medium"),
        ("word " * 51, 0, "complex"),
        ("Explain it", 0, "complex"),
        ("EVALUATE this", 0, "complex"),
    ],
)
def test_complexity_is_told_by_words_terms_and_context(text: str, context: int, level: str) -> None:
    assert classify(text, context)[0] == level


def test_the_rules_can_be_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "technical_terms", ["what"])
    assert classify("What is RAG?") == ("complex", "it says 'what'")


def test_dynamic_sends_simple_to_the_cheapest_complex_to_the_best_and_the_rest_to_the_fastest(
    router: MakeRouter, clock: SlowClock
) -> None:
    made = router({"strategy": "dynamic"}, cheap=0.5, best=0.5, fast=0.1)
    for name, cost, quality in (("cheap", 0.001, 0.5), ("best", 0.03, 0.9), ("fast", 0.01, 0.6)):
        made.get_provider(name).cost_per_1k = cost
        terms(made, name, quality=quality)
        made.execute_with_fallback(ChatRequest(SHORT, "m"), provider=name)
    answer = made.execute_with_fallback(ChatRequest(SHORT, "m"))
    assert (answer.provider, answer.attempts[0].reason) == ("cheap", "simple (3 words): cheapest, cheap")
    answer = made.execute_with_fallback(ChatRequest(LONG, "m"))
    assert (answer.provider, answer.attempts[0].reason) == ("best", "complex (it says 'compare'): best quality 0.90")
    middling: Any = "Tell me what you would do on a rainy day in autumn"
    assert made.execute_with_fallback(ChatRequest(middling, "m")).provider == "fast"
    assert made.route_request({"query": "What is RAG?", "context": "x" * 6000}) == "best"


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Write a Python function that sorts", "code"),
        ("Translate this into French", "translation"),
        ("Summarise the article", "summary"),
        ("Solve the equation", "math"),
        ("Hello there", "chat"),
    ],
)
def test_tasks_are_told_by_words(text: str, task: str) -> None:
    assert classify_task(text) == task


def test_tasks_go_to_those_named_for_them(router: MakeRouter) -> None:
    made = router({"strategy": "task", "tasks": {"code": ["gone", "b"], "vision": "c"}}, a=0.0, b=0.0, c=0.0)
    code: Any = "Fix this Python function"
    answer = made.execute_with_fallback(ChatRequest(code, "m"))
    assert (answer.provider, answer.attempts[0].reason) == ("b", "task code")
    told = ChatRequest(code, "m", metadata={"task": "vision"})
    assert made.execute_with_fallback(told).provider == "c"
    assert made.execute_with_fallback(ChatRequest(SHORT, "m")).attempts[0].reason == "task chat, priority 1"
    made.get_provider("b").script = [ServerError("500")]
    assert made.execute_with_fallback(ChatRequest(code, "m")).provider == "a"


@pytest.mark.parametrize("seed", range(8))
def test_adaptive_finds_the_best_again_within_200_requests_of_a_silent_change(
    seed: int, router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    random.seed(seed)
    made = router({"strategy": "adaptive", "outlier_factor": None}, a=0.2, b=2.0, c=2.0, d=2.0)
    assert ask(made, request_, 300, clock)["a"] > 200
    made.get_provider("a").script = [2.0]
    made.get_provider("c").script = [0.2]
    ask(made, request_, 200, clock)
    assert ask(made, request_, 100, clock)["c"] > 70


def test_adaptive_leaves_who_fails(router: MakeRouter, clock: SlowClock, request_: ChatRequest) -> None:
    random.seed(3)
    made = router({"strategy": "adaptive", "failure_threshold": 10**6, "failure_rate": 1}, a=ServerError("500"), b=1.0)
    ask(made, request_, 200, clock)
    assert made.get_provider("a").calls < 40
    reason = made.execute_with_fallback(request_).attempts[0].reason
    assert reason.startswith("reward 0.")


def test_weights_shrink_with_the_room_that_limits_leave(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router({"strategy": "weighted"}, a=0.0, b=0.0)
    terms(made, "a", rpm=60)
    answered = ask(made, request_, 300, clock, gap=0.1)
    assert 20 <= answered["a"] <= 32  # what its limit lets through in half a minute
    assert clock.slept == []


# --- who is fit


def test_limits_of_the_caller_filter_for_any_strategy_and_name_what_binds(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router({"strategy": "priority"}, slow=3.0, poor=0.1, dear=0.1, good=0.2)
    for name, quality, cost in (("slow", 0.9, 0.001), ("poor", 0.2, 0.001), ("dear", 0.9, 0.1), ("good", 0.9, 0.001)):
        terms(made, name, quality=quality)
        made.get_provider(name).cost_per_1k = cost
        made.execute_with_fallback(request_, provider=name)
    limits = {"max_latency": 1.0, "min_quality": 0.7, "max_cost": 0.01}
    assert made.execute_with_fallback(request_, limits=limits).provider == "good"
    assert made.route_request({"model": "m", **limits}) == "good"
    with pytest.raises(NoAvailableProviderError) as caught:
        made.execute_with_fallback(request_, limits={**limits, "max_latency": 0.01})
    assert caught.value.reasons == {
        "slow": "max_latency 0.01 s: it takes 3.00 s",
        "poor": "max_latency 0.01 s: it takes 0.10 s",
        "dear": "max_latency 0.01 s: it takes 0.10 s",
        "good": "max_latency 0.01 s: it takes 0.20 s",
    }
    made.configure(min_quality=0.95)
    with pytest.raises(NoAvailableProviderError, match=r"poor: min_quality 0\.95: it has 0\.20"):
        made.execute_with_fallback(request_)
    with pytest.raises(TypeError):
        made.execute_with_fallback(request_, limits={"max_cost": "little"})


def test_an_unknown_price_is_not_below_a_limit(router: MakeRouter, request_: ChatRequest) -> None:
    with pytest.raises(NoAvailableProviderError, match="its price is unknown"):
        router(a=0.0).execute_with_fallback(request_, limits={"max_cost": 1.0})


@pytest.mark.parametrize(
    ("request_", "lacks"),
    [
        (ChatRequest(SHORT, "m", tools=[{"type": "function"}]), "tools"),
        (ChatRequest(SHORT, "m", response_format={"type": "json_object"}), "json"),
        (ChatRequest([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "m"), "vision"),
        (ChatRequest([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "m"), "audio"),
    ],
)
def test_who_cannot_do_it_is_not_asked(request_: ChatRequest, lacks: str, router: MakeRouter) -> None:
    made = router(a=0.0, b=0.0)
    terms(made, "a", capabilities=["streaming"])
    assert made.execute_with_fallback(request_).provider == "b"  # of whom nothing is known
    with pytest.raises(NoAvailableProviderError, match=f"a: cannot do {lacks}"):
        made.execute_with_fallback(request_, provider="a")
    terms(made, "a", capabilities=["tools", "json", "vision", "audio"])
    assert made.execute_with_fallback(request_).provider == "a"
    with pytest.raises(NoAvailableProviderError, match="a: cannot do streaming"):
        next(made.stream_with_fallback(request_, provider="a"))
