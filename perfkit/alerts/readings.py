"""What the names in conditions mean: figures of the metrics of all workers, over a rule's window.

One table for both ways of asking: `perfkit` reads its own sketches, and the same definition is written as PromQL when
rules are exported, so that both see the same thing. Response times are those of providers (`provider_latency`), whose
failed attempts are in `provider_failure`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfkit.alerts.condition import NoDataError, Reading
from perfkit.tokens.periods import window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import tzinfo

    from perfkit.metrics.reading import Readable
    from perfkit.metrics.sketch import Sketch

__all__ = ["Readings"]

SUCCESSES, FAILURES, COST = "provider_latency", "provider_failure", "cost"


@dataclass(frozen=True, slots=True)
class Readings:
    """Reads for one rule and one set of labels.

    Args:
        view: the metrics.
        now: epoch seconds.
        window: seconds looked back.
        tags: only series with these.
        min_count: values that there must be.
        daily_limit: US dollars, None when there is no limit.
        zone: where days begin.
    """

    view: Readable
    now: float
    window: float
    tags: Mapping[str, str]
    min_count: int
    daily_limit: float | None
    zone: tzinfo

    def read(self, wanted: Reading) -> float:
        """Return a reading's value.

        Raises:
            NoDataError: there are not enough values for it.
        """
        if wanted.metric:
            return self._applied(wanted.name, self._sketch(wanted.metric, dict(wanted.tags)))
        special = _SPECIAL.get(wanted.name)
        if special is not None:
            return special(self)
        function, _, name = wanted.name.partition("_")
        return self._applied(function, self._sketch("first_token" if name == "first_token" else SUCCESSES))

    def _sketch(self, metric: str, tags: Mapping[str, str] | None = None) -> Sketch:
        return self.view.sketch(metric, since=self.now - self.window, tags={**(tags or {}), **self.tags})

    def _applied(self, function: str, sketch: Sketch) -> float:
        if function == "count":
            return float(sketch.count)
        if function in ("sum", "rate"):
            return sketch.total / (self.window if function == "rate" else 1.0)
        if sketch.count < self.min_count:
            raise NoDataError
        return sketch.stats()[function]

    def _requests(self) -> tuple[float, float]:
        """Return how many attempts there were, and how many of them failed."""
        failures = self._sketch(FAILURES).total
        return self._sketch(SUCCESSES).count + failures, failures

    def error_rate(self) -> float:
        """Return the part of attempts that failed, 0 to 1."""
        requests, failures = self._requests()
        if requests < self.min_count:
            raise NoDataError
        return failures / requests

    def cache_hit_rate(self) -> float:
        """Return the part of cacheable questions that the cache answered, 0 to 1."""
        hits, misses = (self._sketch(name).total for name in ("cache_hit", "cache_miss"))
        if hits + misses < self.min_count:
            raise NoDataError
        return hits / (hits + misses)

    def daily_cost(self) -> float:
        """Return US dollars since midnight."""
        return self.view.sketch(COST, since=window("day", self.now, self.zone)[0], tags=self.tags).total

    def limit(self) -> float:
        """Return the daily limit."""
        if self.daily_limit is None:
            raise NoDataError
        return self.daily_limit


_SPECIAL: dict[str, Callable[[Readings], float]] = {
    "error_rate": Readings.error_rate,
    "success_rate": lambda readings: 1.0 - readings.error_rate(),
    "request_count": lambda readings: readings._requests()[0],
    "throughput": lambda readings: readings._requests()[0] / readings.window,
    "cache_hit_rate": Readings.cache_hit_rate,
    "daily_cost": Readings.daily_cost,
    "daily_limit": Readings.limit,
}
