"""What two questions must agree in, however near their embeddings are, before one gets the other's answer.

Embeddings are near for questions that differ in a date, a number, a name, a "not" or in who does what to whom: just
where the answer is another one. Each guard compares one such thing; what it cannot compare it lets pass.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from perfkit.caching.remembering import remembered
from perfkit.caching.semantic import words as w

__all__ = ["GUARDS", "Reading", "disagreement", "read"]

_TOKEN = re.compile(r"\d+(?:[.,:/-]\d+)*|[^\W\d_]+(?:['\u2019+#.-][^\W\d_]+)*[+#]*|[$€£¥%]")
_SENTENCE = re.compile(r"[.!?:\n]\s*$|^\s*$|[\"'(\u201c]\s*$")
_ISO = re.compile(r"\d[\d.,:/-]*")


_REVERSING = ("un", "in", "im", "ir", "il", "dis", "de", "non", "mis")  # before a word they mean its opposite,
_REVERSED = 3  # if it has so many letters: "into" is not the opposite of "to"
_POLE = 5  # letters that tell the words of a row apart, and not their endings
_WEAK = frozenset(("1", "1.", "2.", "x1", "2"))  # said without counting: "one of my cards", "at first", "both"


@dataclass(frozen=True, slots=True)
class Reading:
    """What the guards need of a question, read once."""

    numbers: tuple[str, ...]
    units: frozenset[str]
    dates: frozenset[str]
    negations: int
    poles: frozenset[tuple[int, str]]  # row of the table of opposites, and word
    names: frozenset[str]
    bounds: frozenset[str]  # which side of a number or date is meant: "after", "at least"
    kind: str  # of question
    passive: bool  # who does it is named by "by"
    inflected: frozenset[str]  # stems of words that end like a verb
    words: tuple[str, ...]  # stemmed, without those that mean nothing by themselves or have a guard of their own
    content: tuple[str, ...]  # stemmed, without those that mean nothing by themselves
    every: frozenset[str]


@remembered
def read(text: str) -> Reading:
    """Return what the guards need of a question."""
    found = [(match[0], _SENTENCE.search(text[: match.start()][-4:]) is not None) for match in _TOKEN.finditer(text)]
    tokens = [_plain(token) for token, _ in found]
    parts = [part for token in tokens for part in _spread(token)]
    return Reading(
        numbers=tuple(n for token in tokens if (n := _number(token)) is not None),
        units=frozenset(w.UNITS[part] for part in parts if part in w.UNITS),
        dates=frozenset(w.DATES[part] for part in parts if part in w.DATES) | _halves(tokens),
        negations=sum(part in w.NEGATIONS for part in parts) % 2,
        poles=frozenset((w.OPPOSITES[part], part) for part in parts if part in w.OPPOSITES),
        names=_names(found) | (frozenset(tokens) & w.PLACES),
        bounds=_bounds(parts),
        kind=_kind(tokens),
        passive=any(by == "by" and (verb.endswith("ed") or verb in w.DONE) for verb, by in pairwise(tokens)),
        inflected=frozenset(_stem(token) for token in tokens if token.endswith(("ed", "ing"))),
        words=tuple(_stem(token) for token in tokens if not _is_compared(token)),
        content=tuple(_stem(token) for token in tokens if token not in w.EMPTY),
        every=frozenset(map(_stem, tokens)),
    )


def _halves(tokens: list[str]) -> frozenset[str]:
    """Return "am" and "pm" behind a number: elsewhere the first is a verb."""
    return frozenset(half for hour, half in pairwise(tokens) if half in {"am", "pm"} and hour[0].isdigit())


def _bounds(parts: list[str]) -> frozenset[str]:
    """Return "after" and the like where a number or date follows: "by noon" is one, "sent by mail" is none."""
    followed = ((part, parts[at + 1 : at + 3]) for at, part in enumerate(parts) if part in w.BOUNDS)
    return frozenset(w.BOUNDS[part] for part, after in followed if any(one in w.DATES or _number(one) for one in after))


def _plain(token: str) -> str:
    return token.lower().replace("\u2019", "'").rstrip(".-")


def _spread(token: str) -> tuple[str, ...]:
    if token.endswith("n't"):
        return (token[:-3], "n't")
    return ("cannot",) if token in {"cant", "wont", "dont", "doesnt", "didnt", "isnt"} else (token,)


def _is_compared(token: str) -> bool:
    return token in w.EMPTY or token in w.NEGATIONS or token.endswith("n't") or _number(token) is not None


def _number(token: str) -> str | None:
    if _ISO.fullmatch(token):
        plain = token.replace(",", "")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain.lstrip("0") or "0"
    return w.NUMBERS.get(token)


def _names(found: list[tuple[str, bool]]) -> frozenset[str]:
    """Return words with a capital that no sentence's beginning explains, in lower case."""
    shouting = sum(token.isupper() and len(token) > 1 for token, _ in found) > len(found) / 2
    if shouting:
        return frozenset()
    return frozenset(
        _plain(token).removesuffix("'s")
        for token, first in found
        if token[0].isupper() and not first and token not in {"I", "I'm", "I'd", "I've", "I'll"}
    )


def _kind(tokens: list[str]) -> str:
    for at, token in enumerate(tokens):
        base = token.split("'")[0]
        if base in w.QUESTIONS:
            after = tokens[at + 1] if at + 1 < len(tokens) else ""
            if base == "how":
                quantity = after in {"many", "much", "long", "often", "far", "old", "big", "high", "tall", "fast"}
                return "quantity" if quantity else "why" if after == "come" else "how"
            return "who" if base in {"whom", "whose"} else base
    return ""


def _stem(token: str) -> str:
    """Return a word without its ending, so that "cards" is "card", "cities" is "city" and "transferred" "transfer"."""
    for ending in ("ing", "ed", "s"):
        if token.endswith(ending) and len(token) - len(ending) > 2:  # noqa: PLR2004 - letters that stay
            token = token.removesuffix(ending)
            break
    if token.endswith("ie"):
        return token[:-2] + "y"
    if len(token) > 3 and token[-1] == token[-2] and token[-1] not in "eio":  # noqa: PLR2004 - "add" is a word
        return token[:-1]
    return token[:-1] if token.endswith(("sse", "xe", "che", "she")) else _without_e(token)


def _without_e(token: str) -> str:
    """Return a long word without its "e": "change" and "changing" are one, but "plane" and "plan" are two."""
    return token.removesuffix("e") if len(token) > 5 else token  # noqa: PLR2004


def _numbers_differ(a: Reading, b: Reading) -> bool:
    if not a.numbers or not b.numbers:
        return not {*a.numbers, *b.numbers} <= _WEAK
    return a.numbers != b.numbers


def _units_differ(a: Reading, b: Reading) -> bool:
    return a.units != b.units


def _dates_differ(a: Reading, b: Reading) -> bool:
    return a.dates != b.dates


def _bounds_differ(a: Reading, b: Reading) -> bool:
    return a.bounds != b.bounds


def _negations_differ(a: Reading, b: Reading) -> bool:
    return a.negations != b.negations


def _opposites_differ(a: Reading, b: Reading) -> bool:
    rows = {row for row, _ in a.poles} & {row for row, _ in b.poles}
    if {_pole(pole) for pole in a.poles if pole[0] in rows} != {_pole(pole) for pole in b.poles if pole[0] in rows}:
        return True
    return any(
        _without_e(prefix + word) in two
        for one, two in ((a.every, b.every), (b.every, a.every))
        for word in one - two
        for prefix in _REVERSING
        if len(word) >= _REVERSED
    )


def _pole(pole: tuple[int, str]) -> str:
    return _stem(pole[1])[:_POLE]


def _names_differ(a: Reading, b: Reading) -> bool:
    stems_a, stems_b = {_stem(name) for name in a.names}, {_stem(name) for name in b.names}
    return not (stems_a <= b.every and stems_b <= a.every)


def _questions_differ(a: Reading, b: Reading) -> bool:
    return bool(a.kind and b.kind and a.kind != b.kind and frozenset((a.kind, b.kind)) not in w.COMPATIBLE)


def _order_differs(a: Reading, b: Reading) -> bool:
    """Tell whether the same words are in another order, but for a verb that changes its form as it moves.

    "X is followed by Y" is "Y follows X", so there the same order is another one.
    """
    if Counter(a.words) != Counter(b.words):
        return False
    if a.passive != b.passive:
        return a.words == b.words and len(a.words) > 1
    moved = a.inflected ^ b.inflected
    return [word for word in a.words if word not in moved] != [word for word in b.words if word not in moved]


def _one_word_exchanged(a: Reading, b: Reading) -> bool:
    """Tell whether the same sentence has another word in one place: an embedder sees no difference, a reader does."""
    if len(a.words) != len(b.words) or len(a.words) < 2:  # noqa: PLR2004 - one word alone is a topic
        return False
    return sum(one != two for one, two in zip(a.words, b.words, strict=True)) == 1


GUARDS = {
    "numbers": _numbers_differ,
    "units": _units_differ,
    "dates": _dates_differ,
    "bounds": _bounds_differ,
    "negation": _negations_differ,
    "opposites": _opposites_differ,
    "names": _names_differ,
    "question": _questions_differ,
    "order": _order_differs,
    "one word": _one_word_exchanged,
}


def disagreement(a: str, b: str) -> str | None:
    """Return the name of the first guard that finds two questions different, None when all let them pass."""
    one, two = read(a), read(b)
    return next((name for name, differ in GUARDS.items() if differ(one, two)), None)
