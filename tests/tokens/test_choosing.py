from __future__ import annotations

import json
import random
from typing import Any

import pytest

from perfkit.clock import FakeClock
from perfkit.errors import ConfigError, UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.learning import Experience
from perfkit.values import ChatRequest, ChatResponse, Usage

PRICES = {"cheap": {"input": 1, "output": 2}, "good": {"input": 5, "output": 10}, "best": {"input": 20, "output": 40}}
MODELS = {
    "cheap": {"quality": 0.5, "first_token": 0.1, "tokens_per_second": 200},
    "good": {"quality": 0.8, "first_token": 0.5, "tokens_per_second": 100},
    "best": {"quality": 0.95, "first_token": 1.0, "tokens_per_second": 20},
}
TOKENS = {"prompt_tokens": 1000, "completion_tokens": 100}


def made(**settings: Any) -> TokenOptimizer:
    clock = FakeClock()
    tracker = PerformanceTracker(clock=clock)
    return TokenOptimizer(clock=clock, tracker=tracker, **{"prices": PRICES, "models": MODELS, **settings})


def ask(text: str = "why?", model: str = "good", **more: Any) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": text}], model, **more)


def answered(model: str, tokens: int, *, prompt: int = 10, key: str | None = None) -> ChatResponse:
    return ChatResponse("x", Usage(prompt, tokens), model, "p", id=key, cost=1.0)


# --- lengths and times


def test_first_prediction_is_the_rule_of_thumb() -> None:
    predicted = made().predict_cost(ask("explain " * 40))
    assert predicted is not None
    assert predicted.samples == 0
    assert predicted.completion_tokens == round(80 * 1.2 * 1.5)
    assert 0 < predicted < predicted.p95


def test_lengths_are_learned_per_route_model_and_bound() -> None:
    optimizer = made()
    for n in range(40):
        optimizer.observe(ask(agent="long"), answered("good", 480 + n))
        optimizer.observe(ask(agent="short"), answered("good", 10 + n % 3))
        optimizer.observe(ask(agent="long", max_tokens=100), answered("good", 100))
    long, short, bound = (
        optimizer.predict_cost(request)
        for request in (ask(agent="long"), ask(agent="short"), ask(agent="long", max_tokens=100))
    )
    assert long is not None
    assert short is not None
    assert bound is not None
    assert (long.completion_tokens, long.completion_p95, long.samples) == (499, 517, 40)
    assert (short.completion_tokens, bound.completion_p95) == (11, 100)
    assert long == pytest.approx(optimizer.calculate_cost(Usage(long.prompt_tokens, 499), "good"))
    assert optimizer.predict_cost(ask(model="nobody's")) is None


def test_newest_lengths_count() -> None:
    optimizer = made()
    for tokens in [10] * 300 + [500] * 200:
        optimizer.observe(ask(), answered("good", tokens))
    predicted = optimizer.predict_cost(ask())
    assert predicted is not None
    assert predicted.completion_tokens == 500


def test_counts_are_corrected_by_what_providers_report() -> None:
    optimizer, request = made(), ask("a question that is not short " * 20, agent="a")
    before = optimizer.predict_cost(request)
    assert before is not None
    for _ in range(20):
        optimizer.observe(request, answered("good", 5, prompt=round(before.prompt_tokens * 1.3)))
    after, elsewhere = optimizer.predict_cost(request), optimizer.predict_cost(request.evolve(agent="b"))
    assert after is not None
    assert elsewhere is not None
    assert after.prompt_tokens == pytest.approx(before.prompt_tokens * 1.3, rel=0.02)
    assert elsewhere.prompt_tokens == before.prompt_tokens


def test_estimated_usage_teaches_nothing() -> None:
    optimizer = made()
    for _ in range(10):
        optimizer.observe(ask(), ChatResponse("x", Usage(9, 999, estimated=True), "good", "p"))
    predicted = optimizer.predict_cost(ask())
    assert predicted is not None
    assert predicted.samples == 0


def test_time_is_learned_from_answers_and_a_call_that_hung_does_not_matter() -> None:
    optimizer = made()
    for n in range(30):
        optimizer.observe(ask(max_tokens=n * 10 + 10), answered("good", n * 10), 0.5 + n * 0.1 + (60 if n == 29 else 0))
    for n in range(10):
        optimizer.observe(ask(max_tokens=200), answered("good", 190 + n), 2.4)
    predicted = optimizer.predict_latency(ask(max_tokens=200))
    assert predicted is not None
    assert predicted == pytest.approx(2.4, rel=0.1)
    assert predicted.p95 >= predicted


def test_time_comes_from_the_profile_before_there_are_answers() -> None:
    predicted = made().predict_latency(ask("explain " * 40, max_tokens=50))
    assert predicted is not None
    assert predicted == pytest.approx(0.5 + 50 / 100)
    assert made().predict_latency(ask(model="nobody's")) is None


def test_memory_of_routes_is_bounded() -> None:
    experience = Experience()
    for n in range(3000):
        experience.add(f"route {n}", "m", None, 5, 1.0)
    assert len(experience._lengths) == len(experience._past) == 1000


# --- constraints


@pytest.mark.parametrize(
    ("constraints", "model"),
    [
        ({"budget": 0.1}, "best"),
        ({"budget": 0.01}, "good"),
        ({"budget": 0.0012}, "cheap"),
        ({"max_latency": 2}, "cheap"),
        ({"max_latency": 2, "min_quality": 0.7}, "good"),
        ({"min_quality": 90}, "best"),
        ({"budget": 0.1, "max_latency": 2}, "good"),
    ],
)
def test_model_keeps_to_the_constraints(constraints: Any, model: str) -> None:
    assert made().select_optimal_model(TOKENS, **constraints) == model


def test_error_names_what_each_model_breaks() -> None:
    with pytest.raises(ValueError, match=r"cheap \(min_quality\), good \(budget\), best \(budget\)"):
        made().select_optimal_model(TOKENS, budget=0.002, min_quality=0.6)


def test_model_of_unknown_price_or_quality_keeps_to_no_constraint_on_it() -> None:
    optimizer = made(models={"dark": {}, "cheap": MODELS["cheap"]})
    assert optimizer.select_optimal_model(TOKENS, budget=1.0) == "cheap"
    with pytest.raises(ValueError, match=r"dark \(min_quality\)"):
        optimizer.select_optimal_model(TOKENS, min_quality=0.1, candidates=["dark"])


def test_nothing_to_choose_by_means_the_configured_model() -> None:
    assert made(default_model="good").select_optimal_model(TOKENS) == "good"
    assert made().select_optimal_model(TOKENS, candidates=["best", "cheap"]) == "best"
    with pytest.raises(ConfigError, match="default_model"):
        made().select_optimal_model(TOKENS)


def test_shipped_candidates_are_those_still_sold() -> None:
    optimizer = TokenOptimizer(tracker=PerformanceTracker())
    usage = Usage(1000, 500)
    assert optimizer.select_optimal_model(usage, budget=1.0) == "gpt-4o"
    assert optimizer.select_optimal_model(usage, budget=0.001) == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({"m": 1}, "must be a table"),
        ({"m": {"qualty": 1}}, "did you mean 'quality'"),
        ({"m": {"quality": -1}}, "least 0"),
    ],
)
def test_wrong_profile_is_refused(models: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(models=models)


# --- feedback


def test_feedback_on_an_answer_is_learned_for_its_route_and_model() -> None:
    optimizer = made()
    for n in range(50):
        for route, cheap in (("easy", 1.0), ("hard", 0.0)):
            for model, score in (("cheap", cheap), ("best", 1.0)):
                key = f"{n} {route} {model}"
                optimizer.observe(ask(model=model, agent=route), answered(model, 50, key=key))
                optimizer.feedback(answered(model, 50, key=key), score)
    easy, hard = ask(agent="easy"), ask(agent="hard")
    assert optimizer.predict_quality(easy, "cheap") == pytest.approx(1.0, abs=0.1)
    assert optimizer.predict_quality(hard, "cheap") == pytest.approx(0.0, abs=0.1)
    assert optimizer.predict_quality(ask(agent="new"), "cheap") == pytest.approx(0.5, abs=0.05)
    candidates = ["cheap", "best"]
    assert optimizer.choose_model(easy, candidates, explore=0) == "cheap"
    assert optimizer.choose_model(hard, candidates, explore=0) == "best"
    assert optimizer.choose_model(hard, candidates, explore=0, worth=0.0) == "cheap"
    assert {optimizer.choose_model(easy, candidates, explore=1) for _ in range(50)} == {"cheap", "best"}


def test_quality_before_any_feedback_is_the_profiles() -> None:
    assert made().predict_quality(ask(), "best") == 0.95
    assert made().predict_quality(ask(), "nobody's") is None


def test_longer_questions_of_a_route_may_be_harder() -> None:
    optimizer, rng = made(), random.Random(1)
    for _ in range(400):
        words = rng.randrange(1, 200)
        optimizer.feedback("", words < 100, request=ask("word " * words, model="cheap"))
    short, long = (optimizer.predict_quality(ask("word " * words), "cheap") for words in (5, 190))
    assert short is not None
    assert long is not None
    assert (short > 0.7, long < 0.5) == (True, True)


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), "good"])
def test_score_out_of_range_is_refused(score: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="score"):
        made().feedback("x", score, request=ask())


def test_feedback_on_an_unknown_answer_says_what_to_do() -> None:
    with pytest.raises(UnknownNameError, match="pass request="):
        made().feedback("nobody knows", 1.0)


def test_short_questions_go_to_the_cheapest_by_the_simple_rule() -> None:
    optimizer = made()
    assert optimizer.choose_model(ask("What is it?"), MODELS, policy="simple") == "cheap"
    assert optimizer.choose_model(ask("word " * 10), MODELS, policy="simple") == "best"
    with pytest.raises(UnknownNameError, match="learned"):
        optimizer.choose_model(ask(), MODELS, policy="lerned")
    with pytest.raises(ValueError, match="candidates is empty"):
        optimizer.choose_model(ask(), [])


# --- cascade


@pytest.mark.parametrize(
    ("valid_from", "asked"), [(0, ["cheap"]), (1, ["cheap", "good"]), (3, ["cheap", "good", "best"])]
)
def test_cascade_goes_on_until_an_answer_is_valid(valid_from: int, asked: list[str]) -> None:
    optimizer, seen = made(), []

    def send(request: ChatRequest) -> ChatResponse:
        seen.append(request.model)
        return answered(request.model, 5)

    order = list(MODELS)
    found = optimizer.cascade(ask(), order, lambda r: order.index(r.model) >= valid_from, ask=send)
    assert seen == asked
    assert (found.model, found.cost) == (asked[-1], float(len(asked)))
    if len(asked) > 1:
        assert (optimizer.predict_quality(ask(), "cheap") or 1.0) < 0.5


def test_cost_of_a_cascade_with_an_unpriced_model_is_not_known() -> None:
    found = made().cascade(
        ask(),
        ["a", "b"],
        lambda r: r.model == "b",
        ask=lambda r: answered(r.model, 1).evolve(cost=None if r.model == "a" else 1),
    )
    assert found.cost is None
    with pytest.raises(ValueError, match="models is empty"):
        made().cascade(ask(), [], lambda _: True, ask=lambda _: answered("a", 1))


# --- compression of requests


def test_only_tool_results_are_compressed_and_always_the_same_way() -> None:
    optimizer = made()
    uuids = [f"9b2f0001-77aa-4bbb-8ccc-00000000000{n}" for n in range(3)]
    rows = json.dumps([{"id": uuid, "amount": n} for n, uuid in enumerate(uuids)])
    talk = [
        {"role": "system", "content": '{"tone":   "kind"}'},
        {"role": "user", "content": "Look at [1,   2]."},
        {"role": "tool", "tool_call_id": "1", "content": rows},
    ]
    first, _ = optimizer.compress_request(ChatRequest(talk, "good"))
    assert list(first.messages[:2]) == talk[:2]
    assert first.messages[2]["content"] == '{"cols":["id","amount"],"rows":[["uid0",0],["uid1",1],["uid2",2]]}'
    later = [*talk, {"role": "assistant", "content": "x"}, {"role": "tool", "tool_call_id": "2", "content": rows}]
    second, _ = optimizer.compress_request(ChatRequest(later, "good"))
    assert second.messages[:3] == first.messages
    assert talk[2]["content"] == rows
