"""What came of a simulation: figures of each strategy, as a table and as a chart."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.charts import Line, line_chart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Outcome", "Simulation", "Summary", "percentile"]

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
BINS = 60  # points of a line


class Outcome(NamedTuple):
    """One call.

    Attributes:
        began: simulated seconds since the beginning.
        seconds: the caller waited.
        provider: that answered, None when the call failed.
        attempts: providers that were asked.
        quality: of the answer.
    """

    began: float
    seconds: float
    provider: str | None
    attempts: int
    quality: float = 1.0


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest rank of sorted values, NaN of none."""
    if not values:
        return math.nan
    return values[min(len(values) - 1, max(0, math.ceil(round(percent * len(values) / 100, 6)) - 1))]


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of the calls that began in a stretch of time; seconds.

    Attributes:
        calls: how many.
        failed: of them, without an answer.
        attempts: requests for each call.
        shares: provider to its part of the answers, 0..1.
    """

    calls: int
    failed: int
    p50: float
    p99: float
    p99_9: float
    mean: float
    attempts: float
    shares: dict[str, float]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Summary:
        """Return the figures of outcomes."""
        waits = sorted(outcome.seconds for outcome in outcomes)
        answered = Counter(outcome.provider for outcome in outcomes if outcome.provider is not None)
        total = max(1, answered.total())
        return cls(
            calls=len(outcomes),
            failed=len(outcomes) - answered.total(),
            p50=percentile(waits, 50),
            p99=percentile(waits, 99),
            p99_9=percentile(waits, 99.9),
            mean=sum(waits) / len(waits) if waits else math.nan,
            attempts=sum(outcome.attempts for outcome in outcomes) / max(1, len(outcomes)),
            shares={name: number / total for name, number in sorted(answered.items())},
        )


class Simulation:
    """Outcomes by strategy, of the same trace.

    Attributes:
        outcomes: strategy to the outcomes of its calls, in the order they began.
        asked: strategy to provider to the requests it got.
    """

    def __init__(self, outcomes: dict[str, list[Outcome]], asked: dict[str, dict[str, int]]) -> None:
        self.outcomes, self.asked = outcomes, asked

    def summary(self, strategy: str, start: float = 0.0, end: float = math.inf) -> Summary:
        """Return the figures of one strategy for the calls that began between two moments."""
        return Summary.of([outcome for outcome in self.outcomes[strategy] if start <= outcome.began < end])

    def requests(self, strategy: str) -> int:
        """Return how many requests all providers got, those that lost a race included."""
        return sum(self.asked[strategy].values())

    def table(self, start: float = 0.0, end: float = math.inf) -> str:
        """Return the figures of all strategies between two moments as text."""
        head = f"{'strategy':24}{'calls':>9}{'failed':>8}{'p50':>9}{'p99':>9}{'p99.9':>9}{'mean':>9}{'tries':>7}"
        return "\n".join([head, *(_row(name, self.summary(name, start, end)) for name in self.outcomes)])

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of all strategies over the whole time, in JSON types."""
        summaries = {name: self.summary(name) for name in self.outcomes}
        return {
            name: {field: getattr(summary, field) for field in Summary.__dataclass_fields__}
            for name, summary in summaries.items()
        }

    def svg(self, *, percent: float = 99.0) -> str:
        """Return a chart of a percentile of the waits over time, a line a strategy, as a file of its own."""
        last = max((outcome.began for found in self.outcomes.values() for outcome in found), default=0.0)
        width = max(last / BINS, 1e-9)
        lines = [Line(name, _binned(found, width, percent)) for name, found in self.outcomes.items()]
        title = f"{percent:g} % of calls are answered within so many seconds"
        chart = line_chart(
            [number * width for number in range(BINS)], lines, title=title, value=_seconds, moment=_seconds
        )
        return chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
            ">", f">{_style(lines)}", 1
        )


def _binned(outcomes: Sequence[Outcome], width: float, percent: float) -> list[float | None]:
    bins: list[list[float]] = [[] for _ in range(BINS)]
    for outcome in outcomes:
        bins[min(BINS - 1, int(outcome.began / width))].append(outcome.seconds)
    return [percentile(sorted(waits), percent) if waits else None for waits in bins]


def _style(lines: Sequence[Line]) -> str:
    """Return the colours that a page's style sheet gives otherwise."""
    strokes = "".join(
        f".line-{number}{{stroke:{COLOURS[number % len(COLOURS)]};fill:none;stroke-width:1.5}}"
        for number in range(len(lines))
    )
    return f"<style>text{{font:10px sans-serif}}line{{stroke:#ddd}}{strokes}</style>"


_seconds: Callable[[float], str] = "{:.3g} s".format


def _row(name: str, told: Summary) -> str:
    times = "".join(f"{value:9.3f}" for value in (told.p50, told.p99, told.p99_9, told.mean))
    return f"{name:24}{told.calls:9}{told.failed:8}{times}{told.attempts:7.3f}"
