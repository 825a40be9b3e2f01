"""What two questions must agree in, on pairs made to differ in one thing only."""

from __future__ import annotations

import pytest
from _pairs import CLASSES, SAME, pairs, unseen

from perfkit.caching.keys import request_digest
from perfkit.caching.semantic.guards import GUARDS, disagreement
from perfkit.values import ChatRequest


@pytest.mark.parametrize("kind", CLASSES)
def test_pairs_that_differ_in_one_thing_are_refused(kind: str) -> None:
    made = pairs(kind)
    refused = sum(disagreement(a, b) is not None for a, b in made)
    assert len(made) >= 20
    assert refused >= 0.95 * len(made), [pair for pair in made if disagreement(*pair) is None]


def test_a_guard_does_not_depend_on_the_order_of_the_two() -> None:
    for kind in CLASSES:
        for a, b in pairs(kind):
            assert (disagreement(a, b) is None) == (disagreement(b, a) is None)


def test_pairs_by_somebody_who_had_not_seen_the_guards_are_refused() -> None:
    missed = [pair for pair in unseen("differing") if disagreement(*pair[1:]) is None]
    assert len(missed) <= 0.01 * len(unseen("differing")), missed


def test_most_questions_in_other_words_pass() -> None:
    """No more than a quarter is refused needlessly: mostly those that have another word in one place."""
    assert sum(disagreement(*pair) is not None for pair in unseen("same")) <= 0.25 * len(unseen("same"))


def test_they_are_other_questions_to_the_exact_cache() -> None:
    for _, one, two in unseen("differing"):
        first, second = (ChatRequest(({"role": "user", "content": text},), "m", 0.0) for text in (one, two))
        assert request_digest(first) != request_digest(second)


@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_same_question_in_other_words_passes(a: str, b: str) -> None:
    assert disagreement(a, b) is None


@pytest.mark.parametrize(
    ("guard", "a", "b"),
    [
        ("numbers", "convert 5 apples into pears please", "please convert 50 apples into pears"),
        ("units", "is it far, in km", "is it far, in miles you think"),
        ("dates", "is the shop open on monday", "is the big shop open on friday"),
        ("bounds", "is the shop open on 3 may", "will the shop open before 3 may"),
        ("negation", "should foals eat oats", "should foals not eat oats"),
        ("opposites", "how to enable logging fully", "how to disable logging"),
        ("names", "write to Anna about rent", "write to Peter about the flat rent"),
        ("question", "where was the treaty signed", "who signed the treaty back then"),
        ("order", "dogs chase cats", "cats chase dogs"),
        ("order", "who follows the pope", "who is followed by the pope"),
        ("one word", "boil the kale", "boil the leek"),
    ],
)
def test_each_guard_has_its_own_reason(guard: str, a: str, b: str) -> None:
    assert disagreement(a, b) == guard
    assert disagreement(a, a) is None


def test_every_guard_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one of them more of the pairs would be served."""
    everything = [pair for kind in CLASSES for pair in pairs(kind)] + [(a, b) for _, a, b in unseen("differing")]
    whole = sum(disagreement(*pair) is None for pair in everything)
    for name in [n for n in GUARDS if n != "one word"]:
        with monkeypatch.context() as patch:
            patch.delitem(GUARDS, "one word")  # it would stand in for the others
            without_two = sum(disagreement(*pair) is None for pair in everything)
            patch.delitem(GUARDS, name)
            assert sum(disagreement(*pair) is None for pair in everything) > without_two >= whole, name


@pytest.mark.parametrize("text", ["", " ", "?!", "5", "N'T", "\u2019", "A" * 10_000, "$ € %", "0 00 0.0"])
def test_any_text_can_be_read(text: str) -> None:
    assert disagreement(text, text) is None
