"""Two runs beside each other, and bounds on the figures of one: what tells a build that something got worse."""

from __future__ import annotations

import operator
import random
import re
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.bench.report import percentile
from perfkit.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Bound", "Difference", "compare", "identity"]

TIMES = ("latency_ms", "first_token_ms", "per_token_ms")
DRAWS = 1000  # of the bootstrap
LOW, HIGH = 2.5, 97.5  # percent
_SIGNS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
_BOUND = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)?(?:e-?\d+)?)\s*", re.ASCII)


class Bound(NamedTuple):
    """A figure that has to stay on one side of a number, such as `p95_latency_ms<=800`."""

    key: str
    sign: str
    number: float

    @classmethod
    def parse(cls, text: str, known: Iterable[str] = ()) -> Bound:
        """Return the bound that a text says.

        Args:
            text: key, sign and number.
            known: keys there are; none means any.

        Raises:
            ConfigError: it says none, or of a key there is not.
        """
        match = _BOUND.fullmatch(text)
        if match is None:
            raise ConfigError(f"{text!r} is no bound: write key<=number, such as p95_latency_ms<=800")
        names = list(known)
        if names and match[1] not in names:
            raise ConfigError(f"{text!r}: no figure {match[1]!r}{nearest(match[1], names)}")
        return cls(match[1], match[2], float(match[3]))

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row keeps it; one without the figure does not."""
        value = row.get(self.key)
        return value is not None and bool(_SIGNS[self.sign](value, self.number))

    def __str__(self) -> str:
        return f"{self.key}{self.sign}{self.number:g}"


class Difference(NamedTuple):
    """One time of one case in both runs.

    Attributes:
        case: what `identity` says.
        key: of the time.
        before: median, milliseconds.
        after: median, milliseconds.
        ratio: after / before.
        low: the ratio is above this with 97.5 % certainty, by bootstrap.
        high: and below this.
        verdict: "slower", "faster", or "same" when the interval holds 1.
    """

    case: str
    key: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    verdict: str


def identity(row: Mapping[str, Any]) -> str:
    """Return what rows of two runs have in common when they measured the same case."""
    load = f"{row['concurrency']} at a time" if row.get("rate") is None else f"{row['rate']:g} a second"
    return f"{row['provider']}/{row['model']}, {row.get('prompts', 'default')} prompts, {load}"


def compare(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], *, seed: int = 1
) -> list[Difference]:
    """Return how the times of the cases that both runs measured differ, case by case.

    Args:
        before: rows of a run, as `measure` returns them.
        after: rows of the other one.
        seed: of the bootstrap.
    """
    old = {identity(row): row for row in before}
    pairs = [(identity(row), old[identity(row)], row) for row in after if identity(row) in old]
    found = (_difference(name, key, _times(a, key), _times(b, key), seed) for name, a, b in pairs for key in TIMES)
    return [difference for difference in found if difference is not None]


def _times(row: Mapping[str, Any], key: str) -> list[float]:
    samples = row.get("samples", ())
    return [sample[key] for sample in samples if sample["error"] is None and sample[key] is not None]


def _difference(name: str, key: str, old: list[float], new: list[float], seed: int) -> Difference | None:
    if not old or not new or not median(old):
        return None
    chance = random.Random(seed)
    ratios = sorted(
        median(chance.choices(new, k=len(new))) / (median(chance.choices(old, k=len(old))) or 1e-9)
        for _ in range(DRAWS)
    )
    low, high = percentile(ratios, LOW), percentile(ratios, HIGH)
    verdict = "slower" if low > 1 else "faster" if high < 1 else "same"
    before, after = median(old), median(new)
    return Difference(name, key, before, after, after / before, low, high, verdict)
