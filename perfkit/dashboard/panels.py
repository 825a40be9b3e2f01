"""What the dashboard shows, as data in JSON types: each panel is a method, each method a twin of what the page draws.

Calls, errors, tokens and cost are those of all workers where `[metrics] store` is set; pools, providers' circuits, the
cache's contents, profiles and memory are those of the worker that answers, which is named.
"""

from __future__ import annotations

import math
import os
import re
import socket
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from perfkit._shared import current_config
from perfkit.agents import AgentPool
from perfkit.alerts import Alerts
from perfkit.caching import ResponseCache
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.memory import GCOptimizer
from perfkit.metrics import PerformanceTracker
from perfkit.profiling import Profiler
from perfkit.routing import ProviderRouter
from perfkit.tokens import TokenOptimizer
from perfkit.transport import ConnectionPool
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.metrics.reading import Readable, Series

__all__ = ["SPANS", "Panels", "span_named"]

SPANS = {"10m": 600.0, "1h": 3600.0, "6h": 21600.0, "24h": 86400.0}  # seconds
STEPS = ((600.0, 10.0), (7200.0, 60.0), (43200.0, 900.0), (math.inf, 1800.0))  # seconds of a chart, and of its steps
PROFILES = 20  # latest ones told
OWN = re.compile(r"(GET|HEAD) (\S*/)?perfkit/")  # requests by their routes: looking is nothing to look at
LATE = 30.0  # seconds after which a worker that has not reported is not reporting


def span_named(name: str) -> float | None:
    """Return the seconds of a time range, a day at most: a number, perhaps with s, m, h or d; None of anything else."""
    found = re.fullmatch(r"([0-9]{1,7})([smhd]?)", name)
    if found is None:
        return None
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[found[2] or "s"]
    return min(max(1.0, int(found[1]) * unit), SPANS["24h"])


class Panels:
    """Reads the shared instances.

    Args:
        clock: None means the system's.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else SYSTEM_CLOCK

    def all(self, span: float) -> dict[str, Any]:
        """Return every panel by name, of the last `span` seconds."""
        return {name: panel(self, span) for name, panel in PANELS.items()}

    def workers(self, _span: float) -> dict[str, Any]:
        """Return who lives, who of them has reported lately, and how old the oldest of their data is.

        Ages are seconds, None when nobody has reported; memory is bytes.
        """
        view, rows = PerformanceTracker.instance().merged(), self._reports()
        age = view.age if rows else None  # infinity is not JSON
        reporting = sum(row["age"] <= LATE for row in rows)
        shared = PerformanceTracker.instance().settings.store is not None
        return {
            "reporting": reporting, "known": len(rows), "age": age, "shared": shared, "workers": rows,
            "answered_by": _this_worker(), "now": self._clock.wall(),
        }  # fmt: skip

    def _reports(self) -> list[dict[str, Any]]:
        """Return the last report of each worker that lives."""
        now = self._clock.wall()
        workers = PerformanceTracker.instance().merged().workers
        return [{**one._asdict(), "age": max(0.0, now - one.reported)} for one in workers]

    def overview(self, span: float) -> dict[str, Any]:
        """Return calls, times, errors, cost and savings: of the span, and where it says so of today.

        Calls are those that were answered, by a provider or the cache, and those that failed.
        """
        view = PerformanceTracker.instance().merged()
        since, midnight = timedelta(seconds=span), self._midnight()
        times, first = view.get_stats("agent_response_time", since), view.get_stats("first_token", since)
        asked = _counts(view, "llm_cache", "result", since)
        errors = view.sketch("llm_error", since).total
        answered = sum(asked.values())
        calls, cacheable = answered + errors, answered - asked.get("none", 0.0)
        cost_today = view.sketch("cost", midnight)
        return {
            "calls": round(calls),
            "calls_today": round(sum(view.sketch(name, midnight).total for name in ("llm_cache", "llm_error"))),
            "avg_response_time": times.get("avg"),
            "p50_response_time": times.get("p50"),
            "p95_response_time": times.get("p95"),
            "p95_first_token": first.get("p95"),
            "errors": round(errors),
            "error_rate": errors / calls if calls else None,
            "cache_hit_rate": (cacheable - asked.get("miss", 0.0)) / cacheable if cacheable else None,
            "cost_today": cost_today.total if cost_today.count else None,
            "cost_run_rate": self._run_rate(view),
            "saved_by_cache": view.sketch("cache_saving", since).total,
            "saved_by_prefix": _prefix_saving(view, since),
            "daily_limit": _daily_limit(),
        }

    def _midnight(self) -> float:
        zone = ZoneInfo(TokenOptimizer.instance().settings.timezone)
        now = datetime.fromtimestamp(self._clock.wall(), zone)
        return now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()

    @staticmethod
    def _run_rate(view: Readable) -> float | None:
        """Return US dollars a day, at the pace of the last hour."""
        hour = view.sketch("cost", timedelta(hours=1))
        return hour.total * 24 if hour.count else None

    def history(self, span: float) -> dict[str, Any]:
        """Return calls, errors, response times and cost over time, in steps that are whole slots of the metrics."""
        view, now = PerformanceTracker.instance().merged(), self._clock.wall()
        step = next(step for longest, step in STEPS if span <= longest)
        number = math.ceil(span / step) + 1
        begin = now // step * step - step * (number - 1)
        times = [one.stats() for one in view.steps("agent_response_time", begin, step, number)]
        counted = ("llm_cache", "llm_error", "cost")
        totals = {name: [one.total for one in view.steps(name, begin, step, number)] for name in counted}
        return {
            "moments": [begin + step * n for n in range(number)],
            "calls": list(map(sum, zip(totals["llm_cache"], totals["llm_error"], strict=True))),
            "errors": totals["llm_error"],
            "cost": totals["cost"],
            "p50": [one.get("p50") for one in times],
            "p95": [one.get("p95") for one in times],
        }

    def providers(self, span: float) -> dict[str, Any]:
        """Return the circuit of each provider, what it was asked and answered, and how each of its models did."""
        view, since = PerformanceTracker.instance().merged(), timedelta(seconds=span)
        health = ProviderRouter.instance().health()
        return {
            "worker": _this_worker(),
            "health": health,
            "traffic": {name: _traffic(view, name, since) for name in health},
            "models": view.get_performance_summary(since),
        }

    def cache(self, span: float) -> dict[str, Any]:
        """Return how calls were answered by kind, and what this worker holds."""
        view = PerformanceTracker.instance().merged()
        asked = _counts(view, "llm_cache", "result", timedelta(seconds=span))
        return {"results": {kind: round(count) for kind, count in sorted(asked.items())}, **_cache_stats()}

    def tokens(self, span: float) -> dict[str, Any]:
        """Return tokens and cost by agent and model, and the budgets: this worker's unless all share them."""
        since = self._clock.wall() - span
        rows: dict[tuple[str, str], dict[str, float]] = {}
        names = ("tokens_input", "tokens_output", "tokens_cached", "tokens_reasoning", "cost")
        for series in PerformanceTracker.instance().merged().series():
            if series.name in names:
                at = (series.tags.get("agent", ""), series.tags.get("model", ""))
                row = rows.setdefault(at, dict.fromkeys(names, 0.0))
                row[series.name] += _total(series, since)
        listed = [{"agent": agent, "model": model, **row} for (agent, model), row in sorted(rows.items())]
        return {
            "usage": [row for row in listed if any(row[name] for name in names)],
            "budgets": TokenOptimizer.instance().budgets(),
            "budgets_shared": current_config().table("state").url is not None,
            "worker": _this_worker(),
        }

    def pools(self, _span: float) -> dict[str, Any]:
        """Return connections by host and agents by type, of this worker."""
        connections, agents = ConnectionPool.instance().stats(), AgentPool.instance().stats()
        return {"worker": _this_worker(), "connections": connections, "agents": agents}

    def runtime(self, _span: float) -> dict[str, Any]:
        """Return memory (bytes) and garbage collection of this worker, and as all have reported them."""
        return {"worker": _this_worker(), **GCOptimizer.instance().stats(), "workers": self._reports()}

    def profiles(self, _span: float) -> dict[str, Any]:
        """Return the latest profiles of this worker, slow runs caught, and CPU profiles; newest first.

        Requests of the dashboard itself are left out.
        """
        profiler = Profiler.instance()
        latest = [asdict(one) for one in profiler.latest(4 * PROFILES) if not OWN.match(one.operation)]
        slow = [one.to_dict() for one in profiler.slow_captures() if not OWN.match(one.operation)]
        recorded = [one.to_dict() for one in profiler.cpu_reports()]
        found = {"latest": latest, "slow": slow, "recorded": recorded}
        return {"worker": _this_worker(), **{part: rows[:PROFILES] for part, rows in found.items()}}

    def alerts(self, _span: float) -> dict[str, Any]:
        """Return the state of every rule, and the alerts there are; looking begins to watch."""
        watch = Alerts.instance()
        watch.start()
        rows = [
            {
                "rule": one.rule,
                "labels": dict(one.labels),
                "state": one.state,
                "severity": one.severity,
                "fired": one.fired,
                "since": one.since,
                "values": dict(one.values),
                "condition": one.condition,
            }
            for one in watch.alerts()
        ]
        return {"rules": watch.state(), "alerts": sorted(rows, key=lambda row: (row["state"] != "firing", row["rule"]))}

    def report(self, operation: str, span: float) -> dict[str, Any]:
        """Return the RAAF guide's detailed report of one operation (8.2): exactly its five keys."""
        since = timedelta(seconds=span)
        view = PerformanceTracker.instance().merged()
        stats = view.get_stats(operation, since)
        if not stats:
            stats = view.get_stats("operation_duration", since, tags={"operation": operation})
        return {
            "operation": operation,
            "time_range": span,
            "performance_stats": stats,
            "recent_profiles": Profiler.instance().get_performance_summary(operation),
            "cost_analysis": TokenOptimizer.instance().get_usage_report(since),
        }


PANELS: dict[str, Callable[[Panels, float], dict[str, Any]]] = {
    "workers": Panels.workers,
    "overview": Panels.overview,
    "history": Panels.history,
    "providers": Panels.providers,
    "cache": Panels.cache,
    "tokens": Panels.tokens,
    "pools": Panels.pools,
    "runtime": Panels.runtime,
    "profiles": Panels.profiles,
    "alerts": Panels.alerts,
}


def _this_worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _counts(view: Readable, name: str, tag: str, since: timedelta) -> dict[str, float]:
    """Return the totals of a counter by the values of one of its tags."""
    values = {series.tags[tag] for series in view.series() if series.name == name and tag in series.tags}
    return {value: view.sketch(name, since, tags={tag: value}).total for value in values}


def _traffic(view: Readable, provider: str, since: timedelta) -> dict[str, Any]:
    """Return what attempts at a provider took and cost; `rate_limited` are its answers 429."""
    of = {"provider": provider}
    times, first = view.get_stats("provider_latency", since, tags=of), view.get_stats("first_token", since, tags=of)
    answered, failed = times.get("count", 0), view.sketch("provider_failure", since, tags=of).total
    cost = view.sketch("cost", since, tags=of)
    return {
        "requests": round(answered + failed),
        "success_rate": answered / (answered + failed) if answered + failed else None,
        "p50": times.get("p50"),
        "p95": times.get("p95"),
        "first_token": first.get("p95"),
        "rate_limited": round(view.sketch("provider_failure", since, tags={**of, "error": "RateLimitError"}).total),
        "cost": cost.total if cost.count else None,
    }


def _prefix_saving(view: Readable, since: timedelta) -> float:
    """Return US dollars that reading tokens from prefix caches saved, less what writing them cost."""
    price, saved = TokenOptimizer.instance().calculate_cost, 0.0
    read, written = (_counts(view, name, "model", since) for name in ("tokens_cached", "tokens_cache_write"))
    for model in {*read, *written}:
        cached, wrote = round(read.get(model, 0.0)), round(written.get(model, 0.0))
        usage = Usage(cached + wrote, 0, cached_tokens=cached, cache_write_tokens=wrote)
        paid, full = price(usage, model), price(Usage(cached + wrote, 0), model)
        saved += full - paid if full is not None and paid is not None else 0.0
    return saved


def _daily_limit() -> float | None:
    """Return US dollars that all calls may cost a day."""
    rows = TokenOptimizer.instance().budgets()
    daily = [row["limit"] for row in rows if tuple(row["scope"]) == ("global", "") and row["period"] == "day"]
    limit: float | None = min(daily, default=Alerts.instance().settings.daily_limit)
    return limit


def _total(series: Series, since: float) -> float:
    from perfkit.metrics.sketch import Sketch

    sketch = Sketch()
    series.collect(sketch, since, float("inf"))
    return sketch.total


def _cache_stats() -> dict[str, Any]:
    return {"worker": _this_worker(), **ResponseCache.instance().stats()}
