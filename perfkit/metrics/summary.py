"""How each provider and model did: the AgentiCraft guide's table with the RecoAgent guide's additions.

Made of what routing, tokens, the pipeline and `tracker.feedback` record, all tagged provider and model: requests are
attempts (provider_latency has one value a success, provider_failure one a failure), tokens and cost are what was paid.
"""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from perfkit.metrics.sketch import Sketch
from perfkit.metrics.window import DAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perfkit.metrics.reading import Series

__all__ = ["merged", "summarize"]

_PARTS = {
    "provider_latency",
    "provider_failure",
    "token_usage",
    "cost",
    "feedback_score",
    "feedback_satisfied",
    "feedback_completed",
}

Parts = dict[str, list["Series"]]


def summarize(series: Sequence[Series], begin: float, end: float, now: float) -> dict[str, dict[str, Any]]:
    """Return a row for each "provider/model" with requests between two epoch seconds."""
    groups: dict[tuple[str, ...], Parts] = defaultdict(lambda: defaultdict(list))
    for one in series:
        if one.name in _PARTS and "provider" in one.tags:
            groups[tuple(one.tags[tag] for tag in ("provider", "model") if tag in one.tags)][one.name].append(one)
    rows: dict[str, dict[str, Any]] = {}
    for names, parts in sorted(groups.items()):
        row = _row(parts, begin, end, now)
        if row["requests"]:
            rows["/".join(names)] = row | {"budget_utilization": _utilization(series, names)}
    return rows


def _row(parts: Parts, begin: float, end: float, now: float) -> dict[str, Any]:
    latency, tokens, cost = (merged(parts[name], begin, end) for name in ("provider_latency", "token_usage", "cost"))
    errors = _errors(parts["provider_failure"], begin, end)
    failures, seconds = sum(errors.values()), latency.stats()
    requests = latency.count + failures
    first = min((one.oldest for name in ("provider_latency", "provider_failure") for one in parts[name]), default=now)
    span = max(1.0, min(end, now) - max(begin, first))
    return {
        "requests": requests,
        "success_rate": latency.count / requests if requests else 0.0,
        "avg_latency_ms": seconds.get("avg", 0.0) * 1000,
        "p50_latency_ms": seconds.get("p50", 0.0) * 1000,
        "p95_latency_ms": seconds.get("p95", 0.0) * 1000,
        "total_tokens": round(tokens.total),
        "tokens_per_request": tokens.total / requests if requests else 0.0,
        "total_cost": cost.total if cost.count else None,
        "cost_per_success": cost.total / latency.count if cost.count and latency.count else None,
        "month_to_date_cost": _month_to_date(parts["cost"], now),
        "error_rate": failures / requests if requests else 0.0,
        "errors": errors,
        "requests_per_second": requests / span,
        "quality_score": _average(parts["feedback_score"], begin, end),
        "satisfaction": _average(parts["feedback_satisfied"], begin, end),
        "completion_rate": _average(parts["feedback_completed"], begin, end),
    }


def merged(series: Iterable[Series], begin: float, end: float) -> Sketch:
    """Return the distribution of several series together between two epoch seconds."""
    result = Sketch()
    for one in series:
        one.collect(result, begin, end)
    return result


def _average(series: Iterable[Series], begin: float, end: float) -> float | None:
    values = merged(series, begin, end)
    return values.total / values.count if values.count else None


def _errors(series: Iterable[Series], begin: float, end: float) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for one in series:
        n = round(merged([one], begin, end).total)
        if n:
            counts[one.tags.get("error", "unknown")] += n
    return dict(sorted(counts.items()))


def _month_to_date(series: Sequence[Series], now: float) -> float | None:
    """Return the sums of the month of UTC that `now` is in."""
    began = (
        datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp() // DAY
    )
    sums = [amount for one in series for day, amount in one.days.items() if day >= began]
    return math.fsum(sums) if sums else None


def _utilization(series: Iterable[Series], names: tuple[str, ...]) -> float | None:
    """Return how full the fullest budget is that binds a provider, its model, or all calls."""
    binding = {("global", ""), *zip(("provider", "model"), names, strict=False)}
    full = [
        one.last
        for one in series
        if one.name == "budget_utilization"
        and (one.tags.get("scope"), one.tags.get("name")) in binding
        and one.last is not None
    ]
    return max(full, default=None)
