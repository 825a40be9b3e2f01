"""How many words two questions share, and how many only one of them has.

An embedder's distance does not say it, and it often decides: questions in the same words seldom want another answer,
however badly the embedder placed them, and those in others may. Words that mean nothing by themselves do not count, and
one misspelt letter is forgiven.
"""

from __future__ import annotations

from collections import Counter

from perfkit.caching.semantic.guards import read

__all__ = ["wording"]

_LONG = 4  # letters of a word that may be misspelt


def wording(a: str, b: str) -> tuple[int, int]:
    """Return how many words two questions share, and how many have no counterpart."""
    one, two = Counter(read(a).content), Counter(read(b).content)
    left, over = list((one - two).elements()), list((two - one).elements())
    shared = (one & two).total()
    for word in list(left):
        other = next((other for other in over if _is_misspelt(word, other)), None)
        if other is not None:
            left.remove(word)
            over.remove(other)
            shared += 1
    return shared, len(left) + len(over)


def _is_misspelt(a: str, b: str) -> bool:
    """Tell whether one letter more, less, other or exchanged with its neighbour makes one word of the other."""
    if min(len(a), len(b)) < _LONG:
        return False
    at = next((at for at, (one, two) in enumerate(zip(a, b, strict=False)) if one != two), min(len(a), len(b)))
    a, b = a[at:], b[at:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
