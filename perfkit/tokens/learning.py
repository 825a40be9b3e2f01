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

__all__ = ["Experience", "Prediction", "quantile"]

KEPT: Final = 200  # answers of a route
ROUTES: Final = 1000  # the least recently used are forgotten; 10 MB when all are full
ENOUGH: Final = 5  # answers to speak of a median
SPREAD_ENOUGH: Final = 20  # answers to speak of their 95th percentile; below, it is guessed from the median
GUESSED_SPREAD: Final = 3.0  # times the median
NEW_SHARE: Final = 0.05  # of a new value in a moving average, once there are 20
FACTOR_BOUNDS: Final = (0.25, 4.0)  # a count further off than this is not the tokenizer's doing


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


@dataclass(slots=True)
class _Past:
    """The newest answers of one route from one model, and averages over them."""

    seconds: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=KEPT))
    factor: float = 1.0  # reported prompt tokens over counted ones
    counted: int = 0

    def correct(self, ratio: float) -> None:
        low, high = FACTOR_BOUNDS
        self.counted += 1
        self.factor += (min(high, max(low, ratio)) - self.factor) * max(NEW_SHARE, 1 / self.counted)


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

    def correct(self, route: str, model: str, counted: int, reported: int) -> None:
        """Learn from the prompt tokens a provider reports for a prompt that was `counted` here without correction."""
        if counted > 0 and reported > 0:
            with self._lock:
                self._of(route, model).correct(reported / counted)

    def _of(self, route: str, model: str) -> _Past:
        past = self._past.find((route, model))
        return past if past is not None else self._past.put((route, model), _Past())

    def factor(self, route: str, model: str) -> float:
        """Return reported over counted prompt tokens of a route; 1.0 while nothing was learned."""
        with self._lock:
            past = self._past.find((route, model))
            return past.factor if past is not None else 1.0

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
