"""What past answers teach of coming ones: how long they are, how long they take, how far token counts are off.

Everything is kept per route and model (lengths also per bound), since the prompt template decides it: questions of one
template get answers of like length, while between templates they differ a hundredfold. The newest values count.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from perfkit.tokens.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.tokens.estimator import Mix

__all__ = ["Experience", "Prediction", "quantile"]

KEPT: Final = 200  # answers of a route
ROUTES: Final = 1000  # the least recently used are forgotten; 10 MB when all are full
ENOUGH: Final = 5  # answers to speak of a median
SPREAD_ENOUGH: Final = 20  # answers to speak of their 95th percentile; below, it is guessed from the median
GUESSED_SPREAD: Final = 3.0  # times the median
FACTOR_BOUNDS: Final = (0.25, 4.0)  # a count further off than this is not the tokenizer's doing
# How far factors may be from 1 for all of a text together, and for one sort of it apart from the others (variances);
# how far a single count is off; how much both may change from answer to answer. The last makes 5 % of a new value
# count in the long run.
COMMON, APART, NOISE, DRIFT = 1.0, 0.3, 0.005, 1.25e-5


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank quantile of values in ascending order."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Prediction(float):
    """A median to expect, as a number, and what lies around it.

    Attributes:
        p95: what 95 of 100 calls stay below.
        prompt_tokens: counted.
        completion_tokens: median expected.
        completion_p95: what 95 of 100 answers stay below.
        samples: answers it was learned from; 0: a rule of thumb.
    """

    p95: float
    prompt_tokens: int
    completion_tokens: int
    completion_p95: int
    samples: int

    @classmethod
    def of(cls, value: float, p95: float, prompt: int, length: Length) -> Prediction:
        """Return the prediction of a quantity that grows with the length of the answer."""
        made = cls(value)
        made.p95, made.prompt_tokens, made.samples = p95, prompt, length.samples
        made.completion_tokens, made.completion_p95 = length.median, length.p95
        return made


@dataclass(frozen=True, slots=True)
class Length:
    """How long answers are, in tokens."""

    median: int
    p95: int
    samples: int


class Correction:
    """Reported over counted tokens, by recursive least squares for words, for symbols, and for all beyond ASCII.

    A tokenizer differs from another one by more for some sorts than for others, and so do the prompts of one route from
    each other. The first answer sets all three alike; those that follow tell them apart.
    """

    __slots__ = ("_factors", "_spread")

    def __init__(self) -> None:
        self._factors = [1.0, 1.0, 1.0]
        self._spread = [[COMMON + APART * (row == column) for column in range(3)] for row in range(3)]

    def of(self, mix: Mix) -> float:
        """Return the factor for a prompt."""
        low, high = FACTOR_BOUNDS
        return min(high, max(low, _dot(_shares(mix), self._factors)))

    def learn(self, mix: Mix, reported: int) -> None:
        """Learn from the tokens reported for a prompt."""
        low, high = FACTOR_BOUNDS
        shares = _shares(mix)
        off = min(high, max(low, reported / mix.tokens)) - _dot(shares, self._factors)
        toward = [_dot(row, shares) for row in self._spread]
        certain = NOISE + _dot(toward, shares)
        self._factors = [factor + off * way / certain for factor, way in zip(self._factors, toward, strict=True)]
        self._spread = [
            [
                value + DRIFT * (1 + (row == column)) - toward[row] * toward[column] / certain
                for column, value in enumerate(line)
            ]
            for row, line in enumerate(self._spread)
        ]


def _shares(mix: Mix) -> tuple[float, float, float]:
    symbols, beyond = mix.symbols / mix.tokens, mix.beyond / mix.tokens
    return 1.0 - symbols - beyond, symbols, beyond


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@dataclass(slots=True)
class _Past:
    """The newest answers of one route from one model, and how far its counts are off."""

    seconds: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=KEPT))
    correction: Correction = field(default_factory=Correction)


class Experience:
    """Bounded memory of answers; safe to use from many threads."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new; what was learned stays true in a child."""
        self._lock = threading.Lock()  # guards _lengths and _past, and what is in them
        if not hasattr(self, "_lengths"):
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._lengths: Recent[tuple[str, str, int | None], deque[int]] = Recent(ROUTES)
            self._past: Recent[tuple[str, str], _Past] = Recent(ROUTES)

    def add(self, route: str, model: str, bound: int | None, tokens: int, seconds: float | None) -> None:
        """Learn from one answer.

        Args:
            route: part of the application that asked.
            model: that answered.
            bound: `max_tokens` of the request.
            tokens: of the answer.
            seconds: it took, None if that says nothing.
        """
        with self._lock:
            lengths = self._lengths.find((route, model, bound))
            if lengths is None:
                lengths = self._lengths.put((route, model, bound), deque(maxlen=KEPT))
            lengths.append(tokens)
            if seconds is not None:
                self._of(route, model).seconds.append((tokens, seconds))

    def correct(self, route: str, model: str, counted: Mix, reported: int) -> None:
        """Learn from the prompt tokens a provider reports for a prompt that was `counted` here without correction."""
        if counted.tokens > 0 and reported > 0:
            with self._lock:
                self._of(route, model).correction.learn(counted, reported)

    def _of(self, route: str, model: str) -> _Past:
        past = self._past.find((route, model))
        return past if past is not None else self._past.put((route, model), _Past())

    def factor(self, route: str, model: str, counted: Mix) -> float:
        """Return reported over counted tokens to expect of a prompt; 1.0 while nothing was learned of the route."""
        with self._lock:
            past = self._past.find((route, model))
            return past.correction.of(counted) if past is not None and counted.tokens > 0 else 1.0

    def length(self, route: str, model: str, bound: int | None) -> Length | None:
        """Return how long answers are; None while too few are known."""
        with self._lock:
            known = list(self._lengths.find((route, model, bound)) or ())
        if len(known) < ENOUGH:
            return None
        known.sort()
        median = round(quantile(known, 0.5))
        p95 = quantile(known, 0.95) if len(known) >= SPREAD_ENOUGH else max(known[-1], median * GUESSED_SPREAD)
        return Length(median, round(min(p95, bound) if bound is not None else p95), len(known))

    def seconds(self, route: str, model: str, tokens: int, tokens_p95: int) -> tuple[float, float] | None:
        """Return median and 95th percentile of the time an answer takes; None while too few are known."""
        with self._lock:
            past = self._past.find((route, model))
            pairs = list(past.seconds) if past is not None else []
        if len(pairs) < ENOUGH:
            return None
        start, each = _line(pairs)
        off = sorted(seconds - start - each * length for length, seconds in pairs)
        middle = start + each * tokens + quantile(off, 0.5)
        late = start + each * max(tokens, tokens_p95) + quantile(off, 0.95)
        return max(0.0, middle), max(0.0, middle, late)


def _line(pairs: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return start and slope of Tukey's resistant line of seconds over tokens: a call that hung does not bend it."""
    ordered = sorted(pairs)
    third = max(1, len(ordered) // 3)
    (low, begin), (high, end) = (_middle(part) for part in (ordered[:third], ordered[-third:]))
    each = max(0.0, (end - begin) / (high - low)) if high > low else 0.0
    return quantile(sorted(seconds - each * tokens for tokens, seconds in pairs), 0.5), each


def _middle(pairs: Sequence[tuple[int, float]]) -> tuple[float, float]:
    return quantile(sorted(t for t, _ in pairs), 0.5), quantile(sorted(s for _, s in pairs), 0.5)
