"""How many words two questions share."""

from __future__ import annotations

import pytest

from perfkit.caching.semantic.wording import wording

REFUND = "How do I get a refund for my order?"


@pytest.mark.parametrize(
    ("other", "shared", "different"),
    [
        ("Hello, could you please tell me how you do refunds for orders, thanks", 2, 0),  # nothing that says anything
        ("refund order", 2, 0),
        ("a refudn for the order", 2, 0),  # letters exchanged
        ("a refnd for the ordeer", 2, 0),  # one missing, one too many
        ("a refund for the invoice", 1, 2),
        ("never a refund for the order", 2, 1),
        ("a refund for 2 orders", 2, 1),
        ("who won the cup", 0, 4),
    ],
)
def test_words_that_mean_something_are_compared(other: str, shared: int, different: int) -> None:
    assert wording(REFUND, other) == (shared, different)
    assert wording(other, REFUND) == (shared, different)


def test_short_words_are_not_taken_for_misspelt_ones() -> None:
    assert wording("feed the cat", "feed the bat") == (1, 2)
    assert wording("next winter", "next winner") == (2, 0)  # of longer ones nobody can tell


def test_a_word_said_twice_counts_twice() -> None:
    assert wording("very tall tall tree", "tall tree") == (2, 1)
    assert wording("", "") == (0, 0)
