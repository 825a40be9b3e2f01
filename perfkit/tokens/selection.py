"""Which model to ask: by constraints, by a rule, or by what feedback on each route says of each model.

Static scores and keyword rules recover hardly more of the quality between a weak and a strong model than chance does.
What decides is the route: one template gains everything from the stronger model, the next one nothing. So scores are
learned per route and model, and shrunk towards the model's mean while a route has few of them; inside a route, longer
questions may be harder, and by how much is learned from all routes together.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from perfkit.errors import ConfigError, nearest
from perfkit.tokens.recent import Recent
from perfkit.values import finite

__all__ = ["Choice", "Constraints", "Profile", "Scores", "cheapest", "profiles_of", "select"]

PROFILES_FILE = Path(__file__).with_name("profiles.json")
ROUTES: Final = 5000
ANSWERS: Final = 10_000  # whose feedback may still come; 2 MB
PRIOR: Final = 5.0  # scores that the model's own mean counts as, for a route
Origin = tuple[str, str, int]  # route, model, characters of the question; 0: not known
FEW_WORDS: Final = 10  # RecoAgent guide, "Cost Optimization": fewer are a simple query
PERCENT: Final = 100.0


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a model beside its price; None: not known.

    Attributes:
        quality: 0 to 1.
        first_token: seconds.
        tokens_per_second: of output.
    """

    quality: float | None = None
    first_token: float | None = None
    tokens_per_second: float | None = None

    def seconds(self, tokens: int) -> float | None:
        """Return how long an answer of `tokens` takes."""
        if self.first_token is None or not self.tokens_per_second:
            return None
        return self.first_token + tokens / self.tokens_per_second


@cache
def _shipped() -> dict[str, Profile]:
    rows: dict[str, dict[str, float]] = json.loads(PROFILES_FILE.read_bytes())["models"]
    return {model: Profile(**row) for model, row in rows.items()}


def profiles_of(own: Mapping[str, Any]) -> dict[str, Profile]:
    """Return the shipped profiles with those of the settings laid over them.

    Raises:
        ConfigError: a row has an unknown key or a value that is no number of at least 0.
    """
    known = tuple(Profile.__dataclass_fields__)
    for model, row in own.items():
        where = f"tokens.models[{model!r}]"
        if not isinstance(row, Mapping):
            raise ConfigError(f"{where} must be a table of {', '.join(known)}, not {row!r}", key=where)
        for key, value in row.items():
            if key not in known:
                raise ConfigError(f"unknown {where}.{key}; known: {', '.join(known)}{nearest(key, known)}", key=where)
            try:
                finite(f"{where}.{key}", value, least=0)
            except (TypeError, ValueError) as error:
                raise ConfigError(str(error), key=where) from None
    return {**_shipped(), **{model: Profile(**row) for model, row in own.items()}}


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a model must keep to; None: no matter.

    Attributes:
        budget: US dollars for the request.
        max_latency: seconds for the whole answer.
        min_quality: 0 to 1.
    """

    budget: float | None = None
    max_latency: float | None = None
    min_quality: float | None = None

    @classmethod
    def of(cls, budget: float | None, max_latency: float | None, min_quality: float | None) -> Constraints:
        """Return checked constraints; a quality above 1 is taken as percent.

        Raises:
            TypeError, ValueError: one is no number of at least 0.
        """
        for name, value in (("budget", budget), ("max_latency", max_latency), ("min_quality", min_quality)):
            if value is not None:
                finite(name, value, least=0)
        if min_quality is not None and min_quality > 1:
            min_quality /= PERCENT
        return cls(budget, max_latency, min_quality)

    def __bool__(self) -> bool:
        return (self.budget, self.max_latency, self.min_quality) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that may be asked, and what is expected of it; None: not known."""

    model: str
    cost: float | None
    seconds: float | None
    quality: float | None

    def breaks(self, constraints: Constraints) -> str | None:
        """Return the constraint it does not keep to, or is not known to keep to; None for none."""
        if constraints.budget is not None and (self.cost is None or self.cost > constraints.budget):
            return "budget"
        if constraints.max_latency is not None and (self.seconds is None or self.seconds > constraints.max_latency):
            return "max_latency"
        if constraints.min_quality is not None and (self.quality is None or self.quality < constraints.min_quality):
            return "min_quality"
        return None


def select(choices: Sequence[Choice], constraints: Constraints) -> str:
    """Return the model to ask.

    Under a budget it is the one of the highest quality (RAAF guide 5.1), else the fastest that is good enough
    (AgentiCraft guide, "Smart Model Selection"), the cheaper of equals.

    Raises:
        ValueError: none keeps to the constraints; the message says which one each of them breaks.
    """
    broken = {choice.model: choice.breaks(constraints) for choice in choices}
    fit = [choice for choice in choices if broken[choice.model] is None]
    if not fit:
        told = ", ".join(f"{model} ({constraint})" for model, constraint in broken.items()) or "there are none"
        raise ValueError(f"no model keeps to the constraints {constraints}: {told}")
    if constraints.budget is not None:
        return max(fit, key=lambda choice: (_or(choice.quality, -1), -_or(choice.cost, 0))).model
    return min(fit, key=lambda choice: (_or(choice.seconds, float("inf")), _or(choice.cost, float("inf")))).model


def _or(value: float | None, default: float) -> float:
    return value if value is not None else default


def cheapest(choices: Sequence[Choice]) -> Choice:
    """Return the choice of the lowest known cost."""
    return min(choices, key=lambda choice: _or(choice.cost, float("inf")))


def best(choices: Sequence[Choice]) -> Choice:
    """Return the choice of the highest known quality, the cheaper of equals."""
    return max(choices, key=lambda choice: (_or(choice.quality, -1), -_or(choice.cost, 0)))


def by_length(question: str, choices: Sequence[Choice]) -> Choice:
    """Return the cheapest for a question below ten words, else the best (RecoAgent guide, optimize_for_cost)."""
    return cheapest(choices) if len(question.split()) < FEW_WORDS else best(choices)


def by_gain(choices: Sequence[Choice], *, worth: float) -> Choice:
    """Return the choice whose quality is worth its cost: one unit of quality (0 to 1) is worth `worth` dollars.

    A model nobody has scored is not chosen, unless none is.
    """
    known = [choice for choice in choices if choice.quality is not None and choice.cost is not None]
    return max(known, key=lambda c: _or(c.quality, 0) * worth - _or(c.cost, 0)) if known else cheapest(choices)


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
