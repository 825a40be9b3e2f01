from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from perfkit.clock import FakeClock
from perfkit.resilience.breaker import Rules
from perfkit.routing import Candidate
from perfkit.routing.strategies.shares import Random, RoundRobin, Weighted
from perfkit.routing.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping


def candidates(weights: Mapping[str, float]) -> list[Candidate]:
    return [
        Candidate(name, object(), terms=Terms(weight=weight), rules=Rules(), clock=FakeClock())
        for name, weight in weights.items()
    ]


def test_turns_go_round() -> None:
    turns, known = RoundRobin(), candidates({"a": 1, "b": 1, "c": 1})
    assert "".join(turns(known, None).name for _ in range(9)) == "abcabcabc"
    assert turns.reason(known[0]) == "turn of a"


def test_turns_stay_even_while_candidates_come_and_go() -> None:
    turns, known = RoundRobin(), candidates({"a": 1, "b": 1, "c": 1})
    without_b = [known[0], known[2]]
    names = "".join(turns(known if number % 2 else without_b, None).name for number in range(300))
    assert not {"aa", "bb", "cc"} & set(map("".join, pairwise(names)))
    assert Counter(names) == {"a": 100, "b": 100, "c": 100}


def test_a_provider_that_was_away_gets_one_turn_not_all_it_missed() -> None:
    turns, known = RoundRobin(), candidates({"a": 1, "b": 1})
    for _ in range(50):
        turns(known[:1], None)
    assert "".join(turns(known, None).name for _ in range(4)) == "baba"


def test_turns_come_as_often_as_their_weight_says() -> None:
    turns, known = RoundRobin(), candidates({"a": 3, "b": 1, "c": 2})
    counted = Counter(turns(known, None).name for _ in range(600))
    assert [round(counted[name] / 100) for name in "abc"] == [3, 1, 2]


def test_weights_are_spread_smoothly() -> None:
    weighted = Weighted()
    known = candidates({"a": 5, "b": 1, "c": 1})
    assert "".join(weighted(known, None).name for _ in range(14)) == "aabacaa" * 2
    assert weighted.reason(known[0]) == "weight 5"


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_after_a_full_round_shares_are_exactly_the_weights(weights: list[int]) -> None:
    weighted, known = Weighted(), candidates({str(n): w for n, w in enumerate(weights)})
    counted = Counter(weighted(known, None).name for _ in range(sum(weights)))
    assert [counted[str(n)] for n in range(len(weights))] == weights


def test_a_weight_counts_only_while_its_provider_can_be_used() -> None:
    weighted, known = Weighted(), candidates({"a": 3, "b": 1, "c": 1})
    for _ in range(100):
        weighted(known[1:], None)
    assert Counter(weighted(known, None).name for _ in range(10)) == {"a": 6, "b": 2, "c": 2}


def test_chance_is_equal() -> None:
    known = candidates({"a": 1, "b": 100})
    counted = Counter(Random()(known, None).name for _ in range(2000))
    assert 800 < counted["a"] < 1200
    assert Random().reason(known[0]) == "random"
