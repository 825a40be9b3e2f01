"""What is asked of metrics, the same for one process and for all of them together.

The tracker answers from its own series, a `MergedView` from those of all workers; exporters, alerts, the dashboard and
`perfkit report` read either through this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from perfkit.clock import epoch
from perfkit.metrics.sketch import Sketch
from perfkit.metrics.summary import merged, summarize
from perfkit.metrics.window import DAY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perfkit.clock import Moment
    from perfkit.metrics.sinks import Kind

__all__ = ["Readable", "Series", "label", "labels"]

_HOUR = 3600.0


class Series(Protocol):
    """One name with one set of tags; all times are epoch seconds."""

    @property
    def kind(self) -> Kind:
        """Return "timing" (of seconds), "value", "counter" or "gauge"."""
        ...

    @property
    def name(self) -> str:
        """The metric's name."""
        ...

    @property
    def tags(self) -> Mapping[str, str]:
        """Names to values as text."""
        ...

    @property
    def last(self) -> float | None:
        """The newest value of a gauge, None for other kinds."""
        ...

    @property
    def oldest(self) -> float:
        """When the oldest slot with values began, `inf` without any."""
        ...

    @property
    def newest(self) -> float:
        """When the newest slot with values began, `-inf` without any."""
        ...

    @property
    def days(self) -> Mapping[int, float]:
        """Sums by day of UTC (counted from the epoch) of the last month."""
        ...

    def collect(self, into: Sketch, since: float, until: float) -> None:
        """Merge the slots of a time range into a sketch."""
        ...

    def spread(self, into: Sequence[Sketch], since: float, step: float) -> None:
        """Merge each slot from `since` on into the sketch of the step in which it begins."""
        ...

    def lifetime(self) -> Sketch:
        """Return everything ever counted, never less than before: the last slot may not be in a merged view yet."""
        ...


class Readable(ABC):
    """Series by name, and statistics of them."""

    @abstractmethod
    def series(self) -> Sequence[Series]:
        """Return all series with values."""

    @abstractmethod
    def _wall(self) -> float:
        """Return the epoch second that "now" means here."""

    def names(self) -> list[str]:
        """Return the names of all metrics with values of the last day."""
        day_ago = self._wall() - DAY
        return sorted({series.name for series in self.series() if series.newest >= day_ago})

    def sketch(
        self, name: str, since: Moment = None, until: Moment = None, tags: Mapping[str, Any] | None = None
    ) -> Sketch:
        """Return the distribution that `get_stats` describes, of arguments like its own."""
        return merged(self._select(name, tags), *self._range(since, until))

    def steps(self, name: str, since: float, step: float, steps: int) -> list[Sketch]:
        """Return the distribution in each of so many steps of `step` seconds, from the epoch second `since` on.

        A slot is in the step in which it begins, so that the steps add up to the whole; where slots are longer than
        steps, some steps stay empty.
        """
        result = [Sketch() for _ in range(steps)]
        for series in self._select(name, None):
            series.spread(result, since, step)
        return result

    def get_stats(
        self, name: str, since: Moment = None, until: Moment = None, tags: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        """Return count, sum, avg, min, max, p50, p90, p95, p99 and p99_9 of a metric, empty when there are no values.

        Percentiles are nearest rank: exact up to 64 values, beyond within 0.542 %. The range is widened to whole slots:
        10 s during the last 10 minutes, 60 s during the last 2 hours, then 15 minutes.

        Args:
            name: the metric.
            since: epoch seconds, a datetime, or a timedelta before now; None means an hour before `until`.
            until: the same; None means now.
            tags: only series that have at least these; None merges all.
        """
        return self.sketch(name, since, until, tags).stats()

    def get_performance_summary(self, since: Moment = None, until: Moment = None) -> dict[str, dict[str, Any]]:
        """Return for each "provider/model" how it did; the range is that of `get_stats`.

        The AgentiCraft guide's keys: requests, success_rate (0 to 1), avg_latency_ms, p50_latency_ms, p95_latency_ms,
        total_tokens and tokens_per_request. The RecoAgent guide's: total_cost, cost_per_success, month_to_date_cost (US
        dollars; None when no price is known), error_rate, errors (by kind), requests_per_second, and what `feedback`
        told: quality_score, satisfaction and completion_rate (None without); budget_utilization (spent and held over
        the limit, 0 to 1) is that of the fullest budget that binds them.
        """
        begin, end = self._range(since, until)
        return summarize(self.series(), begin, end, self._wall())

    def _select(self, name: str, tags: Mapping[str, Any] | None) -> list[Series]:
        wanted = labels(tags)
        return [
            series
            for series in self.series()
            if series.name == name and all(series.tags.get(tag) == value for tag, value in wanted)
        ]

    def _range(self, since: Moment, until: Moment) -> tuple[float, float]:
        now = self._wall()
        end = epoch(until, now, float("inf"))
        return epoch(since, now, min(now, end) - _HOUR), end


def label(value: Any) -> str:
    """Return a tag's name or value as text."""
    if isinstance(value, str):
        return str.__str__(value)  # of a str enumeration its value, to which it is equal
    return str(value).lower() if isinstance(value, bool) else str(value)


def labels(tags: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """Return tags as sorted pairs of text."""
    return tuple(sorted((label(name), label(value)) for name, value in tags.items())) if tags else ()
