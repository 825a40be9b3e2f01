"""How far a text leans to one person: the sum of the weights of its words, of pairs of words and of its form.

The weights are data (leaning.txt), fitted by benchmarks/fit_leaning.py to texts that were labelled by hand. What begins
like a question to a book leans away, and what has nothing of that leans to somebody: texts of no kind that was ever
seen are rather kept from others.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cache
from importlib.resources import files
from itertools import pairwise, repeat

__all__ = ["features", "lean"]

MOST, LAST = 48, 16  # words that are read, the last ones among them: the cost of a text has a bound
HEAD = 240  # characters in which a name is looked for
STEP = 0.25  # what a weight of 1 in the file is worth
GREETINGS = frozenset(("please", "hi", "hello", "hey", "ok", "okay", "so", "and", "um", "well", "just", "kindly"))
BEGIN, END = "^", "$"  # stand before and after the words
SIGNS = "?:,"  # those in a text
NAMED = "<name>"  # a word with a capital inside a sentence
_NAME = re.compile(r"[a-zà-ÿ0-9,;] [A-ZÀ-Þ][a-zà-ÿ]").search
LENGTHS = (1, 2, 4, 7, 12)  # words
LENGTH_NAMES = tuple(f"<{number}>" for number in range(len(LENGTHS) + 1))
_NUMBERS = tuple(
    (f"<{name}>", re.compile(pattern).fullmatch)
    for name, pattern in (
        ("percent", r"\d+%"),
        ("digit", r"\d"),
        ("two-digits", r"[1-9]\d"),
        ("year", r"(?:1[89]|20)\d\d"),
        ("some-digits", r"\d{3,4}"),
        ("many-digits", r"\d{5,}"),
        ("thousands", r"\d+k"),
        ("ordinal", r"\d+(?:st|nd|rd|th)"),
    )
)


def lean(text: str, words: list[str]) -> float:
    """Return by how much a text, with its words in lower case, leans to one person: above 0 it is taken for one's."""
    weights = _weights()
    return sum(map(weights.get, features(text, words), repeat(0))) * STEP


def features(text: str, words: list[str]) -> list[str | tuple[str, ...]]:
    """Return what of a text is weighed: words once each, every pair of them, its beginning, and its form."""
    both_ends = words if len(words) <= MOST else words[: MOST - LAST] + words[-LAST:]
    read = [word if word.isalpha() else _shape(word) for word in both_ends]
    found: list[str | tuple[str, ...]] = [*{*read}, LENGTH_NAMES[bisect_left(LENGTHS, len(words))]]
    found += [sign for sign in SIGNS if sign in text]
    if _NAME(text, 0, HEAD) is not None:
        found.append(NAMED)
    begin = 0
    while begin < len(read) - 1 and read[begin] in GREETINGS:
        begin += 1
    run = [BEGIN, *read[begin:], END]
    found += pairwise(run)
    found.append(tuple(run[:3]))
    return found


def _shape(word: str) -> str:
    """Return what kind of number a word is; the word itself, if it is none."""
    if word[0] in "0123456789":
        return next((name for name, fits in _NUMBERS if fits(word)), "<number>")
    return "<code>" if any(sign in word for sign in "0123456789") else word


@cache
def _weights() -> dict[str | tuple[str, ...], int]:
    """Read the table: each line a weight and what has it, the words of a pair joined by "_"."""
    lines = (files(__package__) / "leaning.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return {tuple(n.split("_")) if "_" in n else n: int(row[0]) for row in rows for n in row[1:]}
