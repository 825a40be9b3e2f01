"""Which model to ask: by a rule, or by what feedback on each route says of each model.

Static scores and keyword rules recover hardly more of the quality between a weak and a strong model than chance does.
What decides is the route: one template gains everything from the stronger model, the next one nothing. So scores are
learned per route and model, and shrunk towards the model's mean while a route has few of them; inside a route, longer
questions may be harder, and by how much is learned from all routes together.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perfkit.tokens.constraints import best, cheapest
from perfkit.tokens.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.tokens.constraints import Choice

__all__ = ["Scores", "by_gain", "by_length"]

ROUTES: Final = 5000
ANSWERS: Final = 10_000  # whose feedback may still come; 2 MB
PRIOR: Final = 5.0  # scores that the model's own mean counts as, for a route
Origin = tuple[str, str, int]  # route, model, characters of the question; 0: not known
FEW_WORDS: Final = 10  # RecoAgent guide, "Cost Optimization": fewer are a simple query


def by_length(question: str, choices: Sequence[Choice]) -> Choice:
    """Return the cheapest for a question below ten words, else the best (RecoAgent guide, optimize_for_cost)."""
    return cheapest(choices) if len(question.split()) < FEW_WORDS else best(choices)


def by_gain(choices: Sequence[Choice], *, worth: float) -> Choice:
    """Return the choice whose quality is worth its cost: one unit of quality (0 to 1) is worth `worth` dollars.

    A model nobody has scored is not chosen, unless none is.
    """
    known = [choice for choice in choices if choice.quality is not None and choice.cost is not None]
    return max(known, key=lambda c: (c.quality or 0.0) * worth - (c.cost or 0.0)) if known else cheapest(choices)


@dataclass(slots=True)
class _Sum:
    """Scores of a route, or of a model, and the lengths of what was asked (logarithms), with their means."""

    count: int = 0
    score: float = 0.0
    length: float = 0.0

    def add(self, score: float, length: float) -> tuple[float, float]:
        """Count one; return how much it adds to the scatter of lengths, and of lengths with scores (Welford)."""
        self.count += 1
        off = length - self.length
        self.score += (score - self.score) / self.count
        self.length += off / self.count
        return off * (length - self.length), off * (score - self.score)

    def mean(self, prior: float) -> float:
        return (self.score * self.count + PRIOR * prior) / (self.count + PRIOR)


@dataclass(slots=True)
class _Model:
    """All scores of a model, and how they change with the length of the question inside its routes."""

    whole: _Sum
    scatter: float = 0.0
    shared: float = 0.0

    @property
    def slope(self) -> float:
        return self.shared / (self.scatter + PRIOR)


class Scores:
    """What feedback says of models, per route; safe to use from many threads."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new; what was learned stays true in a child."""
        self._lock = threading.Lock()  # guards all that is below
        if not hasattr(self, "_routes"):
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._routes: Recent[tuple[str, str], _Sum] = Recent(ROUTES)
            self._models: Recent[str, _Model] = Recent(ROUTES)
            self._answers: Recent[str, Origin] = Recent(ANSWERS)

    def remember(self, answer: str, origin: Origin) -> None:
        """Remember whose the answer of that id is, until feedback comes."""
        with self._lock:
            self._answers.put(answer, origin)

    def origin(self, answer: str | None) -> Origin | None:
        """Return where an answer came from; None if it is not known, or no more."""
        with self._lock:
            return self._answers.find(answer) if answer is not None else None

    def add(self, origin: Origin, score: float) -> None:
        """Count one score, 0 to 1."""
        route, model, length = origin
        with self._lock:
            own, known = self._routes.find((route, model)), self._models.find(model)
            if own is None:
                own = self._routes.put((route, model), _Sum())
            if known is None:
                known = self._models.put(model, _Model(_Sum()))
            scatter, shared = own.add(score, math.log1p(length))
            known.whole.add(score, math.log1p(length))
            known.scatter += scatter
            known.shared += shared

    def quality(self, origin: Origin, profile: float | None) -> float | None:
        """Return what to expect of a model on a route; None when nothing at all is known of it.

        Args:
            origin: route, model, and the length of the question; 0 for one of no particular length.
            profile: its static score, what its mean is shrunk towards.
        """
        route, model, length = origin
        with self._lock:
            known, own = self._models.find(model), self._routes.find((route, model))
            if known is None:
                return profile
            expected = known.whole.mean(profile if profile is not None else known.whole.score)
            if own is not None:
                expected = own.mean(expected)
                expected += known.slope * (math.log1p(length) - own.length) if length else 0.0
        return min(1.0, max(0.0, expected))
