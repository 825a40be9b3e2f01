from __future__ import annotations

from typing import Any

import pytest

from perfkit.clock import FakeClock
from perfkit.errors import BudgetExceededError, ConfigError
from perfkit.metrics import PerformanceTracker
from perfkit.tokens import Admission, TokenOptimizer
from perfkit.values import ChatRequest

PRICES = {"big": {"input": 0, "output": 1000}, "small": {"input": 0, "output": 100}}  # $ a million: 0.001 a token


def made(clock: FakeClock | None = None, **settings: Any) -> TokenOptimizer:
    clock = clock if clock is not None else FakeClock()
    return TokenOptimizer(clock=clock, tracker=PerformanceTracker(clock=clock), prices=PRICES, **settings)


def ask(model: str = "big", **more: Any) -> ChatRequest:
    return ChatRequest([{"role": "user", "content": "How are you?"}], model, **more)


def spend(optimizer: TokenOptimizer, amount: float) -> None:
    optimizer.reserve({}, amount).settle(amount)


def test_without_budgets_nothing_is_held_and_nothing_bounded() -> None:
    assert made().admit(ask(), "p") == Admission(None, None)


def test_answer_without_a_bound_gets_that_of_the_setting() -> None:
    optimizer = made(answer_tokens=500)
    optimizer.set_budget("global", 10.0, "day")
    admission = optimizer.admit(ask(), "p")
    assert admission.max_tokens == 500
    assert admission.hold is not None
    assert admission.hold.amount == 0.5


def test_answer_is_bounded_by_what_is_left() -> None:
    optimizer = made()
    optimizer.set_budget("global", 1.0, "day")
    spend(optimizer, 0.7)
    admission = optimizer.admit(ask(), "p")
    assert admission.max_tokens == pytest.approx(300, abs=1)
    assert optimizer.budgets()[0]["held"] <= 0.3
    with pytest.raises(BudgetExceededError):
        optimizer.admit(ask(), "p")


def test_bound_of_the_caller_is_kept_or_refused() -> None:
    optimizer = made()
    optimizer.set_budget("global", 1.0, "day")
    with pytest.raises(BudgetExceededError):
        optimizer.admit(ask(max_tokens=1001), "p")
    assert optimizer.admit(ask(max_tokens=1000), "p").max_tokens is None


def test_no_money_is_spent_on_answers_shorter_than_usual() -> None:
    optimizer = made()
    optimizer.set_budget("global", 1.0, "day")
    for _ in range(20):
        optimizer._experience.add("default", "big", None, 400, None)
    spend(optimizer, 0.7)
    with pytest.raises(BudgetExceededError):
        optimizer.admit(ask(), "p")


def test_budget_of_one_call_bounds_its_answer_too() -> None:
    optimizer = made()
    assert optimizer.admit(ask(), "p", budget=0.2).max_tokens == pytest.approx(200, abs=1)
    assert optimizer.admit(ask(), "p", budget=0.2, spent=0.1).max_tokens == pytest.approx(100, abs=1)
    with pytest.raises(BudgetExceededError, match="lower max_tokens"):
        optimizer.admit(ask(max_tokens=300), "p", budget=0.2)
    with pytest.raises(BudgetExceededError, match="no known price"):
        optimizer.admit(ask("nobody's"), "p", budget=0.2)


def refusal(optimizer: TokenOptimizer, request: ChatRequest) -> BudgetExceededError:
    with pytest.raises(BudgetExceededError) as caught:
        optimizer.admit(request, "p")
    return caught.value


def test_cheaper_models_are_asked_in_turn() -> None:
    optimizer = made()
    optimizer.set_budget("global", 1.0, "day", exhausted=["small", "tiny"])
    request = ask(max_tokens=5000)
    refused = refusal(optimizer, request)
    cheaper = optimizer.otherwise(refused, request)
    assert cheaper.model == "small"
    assert optimizer.admit(cheaper, "p").hold is not None
    assert optimizer.otherwise(refused, cheaper).model == "tiny"
    with pytest.raises(BudgetExceededError):
        optimizer.otherwise(refused, ask("tiny"))


def test_queued_call_waits_until_another_one_gives_its_hold_back() -> None:
    clock = FakeClock()
    optimizer = made(clock)
    optimizer.set_budget("global", 1.0, "day", exhausted="queue")
    hold = optimizer.reserve({}, 0.9)
    request = ask(max_tokens=500, timeout=10)
    waited = optimizer.otherwise(refusal(optimizer, request), request)
    assert waited.timeout is not None
    assert waited.timeout == pytest.approx(10 - (clock.now() - 1000))
    assert waited.timeout < 10
    hold.settle(0.1)
    assert optimizer.admit(waited, "p").hold is not None


def test_queued_call_is_refused_when_its_time_is_up() -> None:
    clock = FakeClock()
    optimizer = made(clock, queue_timeout=1)
    optimizer.set_budget("global", 1.0, "day", exhausted="queue")
    optimizer.reserve({}, 0.9)
    request = ask(max_tokens=500)
    with pytest.raises(BudgetExceededError):  # noqa: PT012 - how often it may wait is the question
        for _ in range(1000):
            request = optimizer.otherwise(refusal(optimizer, request), request)
    assert clock.now() - 1000 == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("amount", [0.5, 2000.0])
def test_call_that_no_waiting_helps_is_refused_at_once(amount: float) -> None:
    clock = FakeClock()
    optimizer = made(clock)
    optimizer.set_budget("global", 1.0, "day", exhausted="queue")
    spend(optimizer, 0.9)
    request = ask(max_tokens=int(amount * 1000))
    with pytest.raises(BudgetExceededError):
        optimizer.otherwise(refusal(optimizer, request), request)
    assert clock.now() == 1000


def test_call_waits_for_a_period_that_begins_in_time() -> None:
    clock = FakeClock(wall=1_700_000_000.0)  # 20 seconds into a minute
    optimizer = made(clock)
    optimizer.set_budget("global", 1.0, "minute", exhausted="queue")
    spend(optimizer, 1.0)
    request = ask(max_tokens=500, timeout=45)
    while True:
        try:
            hold = optimizer.admit(request, "p").hold
        except BudgetExceededError as refused:
            request = optimizer.otherwise(refused, request)
        else:
            break
    assert hold is not None
    assert 40 <= clock.now() - 1000 < 41


def test_queue_has_a_bound() -> None:
    optimizer = made(queue_size=0)
    optimizer.set_budget("global", 1.0, "day", exhausted="queue")
    optimizer.reserve({}, 0.9)
    request = ask(max_tokens=500)
    with pytest.raises(BudgetExceededError):
        optimizer.otherwise(refusal(optimizer, request), request)


@pytest.mark.parametrize("given", ["cheaper", [], [1], None, 3])
def test_other_answers_to_an_exhausted_budget_are_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="'refuse', 'queue' or a list of cheaper models"):
        made().set_budget("global", 1.0, "day", exhausted=given)
    with pytest.raises(ConfigError):
        made(budgets=({"scope": "global", "limit": 1, "period": "day", "exhausted": given},))


def test_configured_answer_counts_for_each_name() -> None:
    row = {"scope": ["user", "*"], "limit": 0.1, "period": "day", "exhausted": ["small"]}
    optimizer = made(budgets=(row,))
    request = ask(max_tokens=500, user="anna")
    assert optimizer.otherwise(refusal(optimizer, request), request).model == "small"


def test_warning_comes_once_when_80_percent_are_spent(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    tracker = PerformanceTracker(clock=clock)
    optimizer = TokenOptimizer(clock=clock, tracker=tracker)
    optimizer.set_budget("global", 1.0, "day")
    optimizer.set_budget(("user", "*"), 10.0, "day")
    for _ in range(9):
        hold = optimizer.reserve({"user": "anna"}, 0.1)
        hold.settle(0.1)
        hold.settle(0.1)
    assert tracker.get_stats("budget_warning")["count"] == 1
    assert [record.message for record in caplog.records] == ["global budget (day): 80 % of $1 are spent"]
    spend(optimizer, 0.05)
    clock.advance(86400)
    spend(optimizer, 0.9)
    assert len(caplog.records) == 2
