"""The error bound, with matches whose truth is known."""

from __future__ import annotations

import math
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.caching.semantic.bound import CHANCE, EVERY, FIRST, ErrorBound, Evidence, upper_bound

SURE = Evidence(similarity=0.97, margin=0.3, vote=1.0, right=3, wrong=0, shared=4, different=0)
VAGUE = Evidence(similarity=0.75, margin=0.01, vote=0.2, right=1, wrong=2, shared=1, different=6)


def taught(rates: dict[Evidence, float], count: int, bound: ErrorBound | None = None) -> ErrorBound:
    chosen = random.Random(1)
    made = bound if bound is not None else ErrorBound(0.01)
    for _ in range(count):
        evidence = chosen.choice(list(rates))
        near = evidence._replace(similarity=evidence.similarity - chosen.uniform(0, 0.03))  # no two are equal
        made.learn(near, right=chosen.random() >= rates[evidence])
    return made


def test_nothing_is_served_before_enough_is_verified() -> None:
    bound = ErrorBound(0.01)
    for _ in range(FIRST):
        assert not bound.trusts(SURE)
        bound.learn(SURE, right=True)
    assert not bound.trusts(SURE)  # so few right ones do not show that at most 1 % is wrong
    for _ in range(4 * FIRST):
        bound.learn(SURE, right=True)
    assert bound.trusts(SURE)


def test_what_is_often_wrong_is_not_served_and_what_is_not_is() -> None:
    bound = taught({SURE: 0.0, VAGUE: 0.3}, 1500)
    assert bound.trusts(SURE)
    assert not bound.trusts(VAGUE)
    assert bound.risk(VAGUE) > bound.risk(SURE)


def test_two_percent_wrong_is_never_served_at_a_bound_of_one() -> None:
    assert not taught({SURE: 0.02}, 1500).trusts(SURE)
    assert taught({SURE: 0.02}, 1500, ErrorBound(0.1)).trusts(SURE)


def test_an_answer_that_was_never_verified_needs_more_for_it() -> None:
    bound = taught({SURE: 0.0, SURE._replace(right=0): 0.05}, 2000)
    assert bound.trusts(SURE)
    assert not bound.trusts(SURE._replace(right=0))


def test_the_same_words_say_that_little_is_risked_and_other_words_much() -> None:
    bound = ErrorBound(0.01)
    same, other = bound.risk(SURE._replace(shared=6)), bound.risk(SURE._replace(shared=1, different=8))
    assert same < bound.risk(SURE) < other


def test_what_would_not_be_served_may_turn_out_wrong_without_an_alarm() -> None:
    bound = taught({SURE: 0.0, VAGUE: 0.3}, 1500)
    for _ in range(100):
        bound.learn(VAGUE, right=False)
    assert bound.stats()["changes"] == 0
    assert bound.trusts(SURE)


def test_what_is_wrong_as_often_as_is_wanted_is_seldom_served_however_often_one_looks() -> None:
    def ever(seed: int) -> bool:
        chosen, bound, served = random.Random(seed), ErrorBound(0.05), False
        for _ in range(1000):
            bound.learn(SURE, right=chosen.random() >= 0.05, risk=0.001)
            served |= bound.stats()["served_up_to_risk"] > 0
        return served

    assert sum(map(ever, range(40))) <= 2 * CHANCE * 40


def test_another_rate_has_to_be_proven_anew() -> None:
    bound = taught({SURE: 0.0}, 1000)
    bound.aim(0.01)
    assert bound.trusts(SURE)
    bound.aim(0.001)
    assert not bound.trusts(SURE)


def test_one_wrong_match_raises_the_doubt_and_right_ones_lower_it() -> None:
    bound = taught({SURE: 0.0}, 2000)
    assert bound.doubt == 0.0
    bound.learn(SURE, right=False)
    after = bound.doubt
    assert 0 < after < 1
    bound.learn(SURE, right=True)
    assert bound.doubt < after


def test_when_questions_change_nothing_is_served_until_the_new_ones_are_known() -> None:
    bound = taught({SURE: 0.0}, 2000)
    assert bound.trusts(SURE)
    wrong = 0
    while bound.trusts(SURE) and wrong <= 8:
        wrong += 1
        bound.learn(SURE, right=False)
    assert wrong <= 5
    while not bound.stats()["changes"] and wrong <= 8:
        wrong += 1
        bound.learn(SURE, right=False)
    assert wrong <= 8
    for _ in range(16 * EVERY):
        bound.learn(SURE, right=True)
        if bound.trusts(SURE):
            break
    assert bound.stats()["of_late"] > FIRST


@given(st.integers(0, 50), st.integers(1, 5000))
def test_the_upper_bound_is_above_what_was_seen_and_falls_with_more_of_it(wrong: int, of: int) -> None:
    wrong = min(wrong, of)
    bound = upper_bound(wrong, of)
    assert wrong / of <= bound <= 1
    assert upper_bound(wrong, of, confidence=0.99) >= bound
    assert upper_bound(2 * wrong, 2 * of) <= bound + 1e-9


def test_the_upper_bound_holds_as_often_as_it_says() -> None:
    chosen, true = random.Random(2), 0.02
    misses = sum(upper_bound(sum(chosen.random() < true for _ in range(400)), 400) < true for _ in range(500))
    assert misses <= 50
    assert upper_bound(0, 300, confidence=0.95) == pytest.approx(-math.log(0.05) / 300, rel=0.02)
    assert upper_bound(0, 0) == 1.0


def test_threads_may_learn_at_once() -> None:
    bound = ErrorBound(0.01)
    threads = [threading.Thread(target=taught, args=({SURE: 0.0}, 200, bound)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bound.stats()["verified"] == 800
    assert bound.trusts(SURE)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), "1"])
def test_a_rate_that_means_nothing_is_refused(rate: object) -> None:
    with pytest.raises((TypeError, ValueError), match="max_error_rate"):
        ErrorBound(rate)  # type: ignore[arg-type]
