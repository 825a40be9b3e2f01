"""A/B tests: who gets which, and what is said of it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

import pytest

from perfkit.errors import ServerError, UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.providers import Provider
from perfkit.routing import ABTest, ProviderRouter
from perfkit.testing import FakeClock
from perfkit.values import ChatRequest, ChatResponse, Usage


class Timed(Provider):
    """Answers after `seconds` of a fake clock, or fails."""

    def __init__(self, name: str, clock: FakeClock, seconds: float) -> None:
        super().__init__(name)
        self.clock, self.seconds, self.broken = clock, seconds, False

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        self.clock.sleep(self.seconds)
        if self.broken:
            raise ServerError("broken")
        return ChatResponse("x", Usage(750, 250), "gpt-4o-mini", self.name)


@pytest.fixture
def router() -> ProviderRouter:
    clock = FakeClock()
    made = ProviderRouter(clock=clock, tracker=PerformanceTracker(), failure_threshold=10_000)
    made.register_provider("openai", Timed("openai", clock, 1.0))
    made.register_provider("anthropic", Timed("anthropic", clock, 1.5))
    return made


@pytest.fixture
def test(router: ProviderRouter) -> ABTest:
    return router.ab("speed", {"A": "openai", "B": "anthropic"})


def asked(user: str) -> ChatRequest:
    return ChatRequest("hi", "gpt-4o-mini", user=user)


# --- who gets which ---------------------------------------------------------------------------------------------------


def test_a_user_has_the_same_arm_in_every_process(test: ABTest) -> None:
    code = """
import json, sys
from perfkit.routing import ProviderRouter
from perfkit.metrics import PerformanceTracker
class P:
    def chat_completion(self, request): ...
router = ProviderRouter(tracker=PerformanceTracker())
router.register_provider("openai", P()); router.register_provider("anthropic", P())
test = router.ab("speed", {"A": "openai", "B": "anthropic"})
print(json.dumps([test.assign(f"user-{n}") for n in range(100)]))
"""
    there = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                capture_output=True,
                timeout=60,
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            ).stdout
        )
        for seed in ("1", "2")
    ]
    here = [test.assign(f"user-{number}") for number in range(100)]
    assert there == [here, here]


def test_shares_are_kept_and_tests_do_not_share_their_halves(router: ProviderRouter) -> None:
    arms = {"A": "openai", "B": "anthropic"}
    users = range(20_000)
    uneven = router.ab("x", arms, {"A": 1, "B": 9})
    assert sum(uneven.assign(user) == "A" for user in users) / len(users) == pytest.approx(0.1, abs=0.01)
    first, second = router.ab("one", arms, [50, 50]), router.ab("two", arms)
    both = sum(first.assign(user) == second.assign(user) for user in users) / len(users)
    assert both == pytest.approx(0.5, abs=0.02)


def test_growing_an_arm_moves_nobody_out_of_it(router: ProviderRouter) -> None:
    arms = {"A": "openai", "B": "anthropic"}
    small, large = router.ab("x", arms, {"A": 10, "B": 90}), router.ab("x", arms, {"A": 30, "B": 70})
    assert all(large.assign(user) == "A" for user in range(2000) if small.assign(user) == "A")


@pytest.mark.parametrize(
    ("arms", "shares", "words"),
    [
        ({"A": "openai"}, None, "two arms"),
        ({"A": "openai", "B": "anthropic"}, {"A": 1}, "arms are A, B"),
        ({"A": "openai", "B": "anthropic"}, [1], "2 arms need 2 shares"),
        ({"A": "openai", "B": "anthropic"}, [1, 0], "share of 'B'"),
    ],
)
def test_a_test_that_makes_no_sense_is_refused(router: ProviderRouter, arms: Any, shares: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        router.ab("x", arms, shares)


def test_an_arm_needs_a_provider(router: ProviderRouter) -> None:
    with pytest.raises(UnknownNameError, match="nobody"):
        router.ab("x", {"A": "openai", "B": "nobody"})


# --- what is said of it -----------------------------------------------------------------------------------------------


def test_results_have_recoagents_keys(test: ABTest) -> None:
    for user in range(200):
        test.record(user, response_time=1.0 if test.assign(user) == "A" else 2.0, quality=0.8)
    results = test.results()
    for arm, seconds, provider in (("A", 1.0, "openai"), ("B", 2.0, "anthropic")):
        told = results[arm]
        assert (told["avg_response_time"], told["provider"]) == (seconds, provider)
        assert told["avg_quality_score"] == pytest.approx(0.8)
        assert told["sample_size"] == sum(test.assign(user) == arm for user in range(200))
    assert results["A"]["avg_cost"] is None
    json.dumps(results)


def test_calls_record_themselves(router: ProviderRouter, test: ABTest) -> None:
    for number in range(300):
        test.execute(asked(f"user-{number}"))
    results = test.results()
    assert (results["A"]["avg_response_time"], results["B"]["avg_response_time"]) == pytest.approx((1.0, 1.5))
    assert results["A"]["avg_cost"] == pytest.approx((0.15 * 750 + 0.60 * 250) / 1e6)
    assert results["A"]["error_rate"] == 0.0


def test_a_failing_arm_is_seen_as_one_and_nobody_else_answers_for_it(router: ProviderRouter, test: ABTest) -> None:
    router.get_provider("anthropic").broken = True
    for number in range(300):
        try:
            test.execute(asked(f"user-{number}"))
        except ServerError:
            assert test.assign(f"user-{number}") == "B"
    assert test.results()["B"]["error_rate"] == 1.0
    assert test.compare("error_rate")["B"].is_real


def test_a_difference_is_told_when_it_is_one(test: ABTest) -> None:
    assert not test.compare()["B"].is_real
    for number in range(2000):
        user = f"user-{number}"
        noise = (number % 7) / 10
        test.record(user, response_time=noise + (1.0 if test.assign(user) == "A" else 1.2), quality=noise)
    assert test.compare()["B"].is_real
    assert test.compare()["B"].difference == pytest.approx(0.2, abs=0.05)
    assert not test.compare("quality_score")["B"].is_real
    with pytest.raises(UnknownNameError, match="did you mean 'cost'"):
        test.compare("costs")


def test_quality_may_come_later_and_counts_no_call(test: ABTest) -> None:
    test.record("ann", response_time=1.0)
    test.record("ann", quality=1.0)
    told = test.results()[test.assign("ann")]
    assert (told["sample_size"], told["avg_quality_score"]) == (1, 1.0)


def test_nonsense_is_not_taken(test: ABTest) -> None:
    with pytest.raises(ValueError, match="response_time"):
        test.record("ann", response_time=float("nan"), quality=1.0)
    assert test.results()[test.assign("ann")]["avg_quality_score"] is None


def test_workers_results_add_up(router: ProviderRouter) -> None:
    arms = {"A": "openai", "B": "anthropic"}
    here, there, whole = (ABTest("x", arms, router=router) for _ in range(3))
    for user in range(400):
        for test in (here if user % 2 else there, whole):
            test.record(user, response_time=float(user % 13), cost=0.1)
    here.merge(json.loads(json.dumps(there.snapshot())))
    for arm in arms:
        merged, one = here.results()[arm], whole.results()[arm]
        assert merged["sample_size"] == one["sample_size"]
        assert merged["avg_response_time"] == pytest.approx(one["avg_response_time"])


def test_a_result_is_not_taken_while_others_are_read(test: ABTest) -> None:
    worker = threading.Thread(target=lambda: test.record("ann", response_time=1.0))
    with test._lock:
        worker.start()
        worker.join(0.05)
        assert worker.is_alive()
        assert test._seen[test.assign("ann")]["response_time"].count == 0
    worker.join(10)
    assert test.results()[test.assign("ann")]["sample_size"] == 1


def test_a_test_asked_for_again_in_a_view_is_the_same_one(router: ProviderRouter) -> None:
    arms = {"A": "openai", "B": "anthropic"}
    for number in range(3):
        router.ab("speed", arms).record("ann", response_time=float(number))
    assert sum(arm["sample_size"] for arm in router.ab("speed", arms).results().values()) == 3
    assert router.ab("speed", arms, [1, 3]) is not router.ab("speed", arms)


def test_answers_are_scored_where_asked_for(router: ProviderRouter, test: ABTest) -> None:
    for user in ("ann", "bob", "eve", "joe"):
        test.execute(asked(user), score=lambda _, response: 1.0 if response.provider == "openai" else 0.25)
    assert {arm["provider"]: arm["avg_quality_score"] for arm in test.results().values()} == {
        "openai": 1.0,
        "anthropic": 0.25,
    }
