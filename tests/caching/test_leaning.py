from __future__ import annotations

import pytest

from perfkit.caching.leaning import MOST, features, lean
from perfkit.caching.vocabulary import TO_SPACE


def leaning(text: str) -> float:
    return lean(text, text.lower().translate(TO_SPACE).split())


def seen(text: str) -> list[object]:
    return list(features(text, text.lower().translate(TO_SPACE).split()))


@pytest.mark.parametrize(
    ("somebodys", "anybodys"),
    [
        ("the invoice from Tuesday", "what is an invoice"),
        ("her results came back positive, what now", "what does a positive result mean"),
        ("salary 54k, two kids, which tax class", "what is a tax class"),
        ("remind the team that the Berlin flight was moved", "how are flights moved"),
        ("Status der Bestellung 77120", "was ist eine Bestellung"),
    ],
)
def test_what_is_somebodys_leans_to_him_and_what_stands_in_books_does_not(somebodys: str, anybodys: str) -> None:
    assert leaning(somebodys) > 0 > leaning(anybodys)


def test_words_pairs_beginning_and_form_are_weighed() -> None:
    assert {"the", "lamp", ("the", "lamp"), ("^", "the"), ("lamp", "$"), ("^", "the", "lamp")} <= set(seen("the lamp"))
    assert {"?", ",", "<name>"} <= set(seen("so, is Anna here?"))


def test_greetings_are_no_beginning() -> None:
    assert ("^", "what", "is") in seen("Hi, please what is a queue")
    assert ("^", "please") in seen("please")


def test_numbers_are_weighed_by_their_kind() -> None:
    kinds = {"7": "<digit>", "45": "<two-digits>", "1998": "<year>", "54k": "<thousands>"}
    kinds |= {"88123": "<many-digits>", "1-2": "<number>", "qx7r": "<code>", "5%": "<percent>"}
    assert [seen(number)[0] for number in kinds] == list(kinds.values())


def test_of_a_long_text_both_ends_are_read() -> None:
    found = seen(f"begin {'word ' * MOST} middle {'word ' * MOST} end")
    assert {"begin", "end"} <= set(found)
    assert "middle" not in found
    assert len(found) < 2 * MOST
