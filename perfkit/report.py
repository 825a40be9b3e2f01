"""`perfkit report`: what all workers of an application have measured, as tables or as one JSON document.

It reads the store that the application's configuration names, so it runs beside the application, which need not answer.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from perfkit._shared import current_config
from perfkit.charts import aligned
from perfkit.dashboard import formats
from perfkit.errors import ConfigError
from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from perfkit.metrics import MergedView

__all__ = ["add_arguments", "run"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DISTRIBUTION = ("count", "avg", "p50", "p95", "p99", "max")

Table = tuple[str, tuple[str, ...], list[list[str]]]  # title, columns, rows


def _span(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a span such as 90s, 15m, 1h or 1d")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `perfkit report`."""
    hour = timedelta(hours=1)
    parser.add_argument("--since", type=_span, default=hour, metavar="SPAN", help="90s, 15m, 1h (default), 1d")
    parser.add_argument("--store", help="directory or 'redis'; default: the setting metrics.store")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Print the merged metrics of the store; 1 when nothing has been shared there.

    Raises:
        ConfigError: no store is configured.
    """
    store = options.store if options.store is not None else current_config().table("metrics").store
    if store is None:
        raise ConfigError(
            "metrics.store is not set: say where the workers share their metrics, or pass --store", key="metrics.store"
        )
    view = PerformanceTracker(store=store).merged()
    found = _document(view, options.since)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    return 0 if found["metrics"] else 1


def _document(view: MergedView, since: timedelta) -> dict[str, Any]:
    kinds = {series.name: series.kind for series in view.series()}
    metrics = {name: {"kind": kinds[name], **view.get_stats(name, since=since)} for name in sorted(kinds)}
    return {
        "since_seconds": since.total_seconds(),
        "age_seconds": view.age if math.isfinite(view.age) else None,
        "workers": [{"host": worker.host, "pid": worker.pid, "reported": worker.reported} for worker in view.workers],
        "llm": view.get_performance_summary(since=since),
        "metrics": {name: row for name, row in metrics.items() if len(row) > 1},
    }


def _show(found: dict[str, Any]) -> None:
    workers, age = found["workers"], found["age_seconds"]
    hosts = len({worker["host"] for worker in workers})
    reported = "no worker reports"
    if workers:
        reported = f"{_of(len(workers), 'worker')} on {_of(hosts, 'host')} reported, the slowest {age:.0f} s ago"
    print(f"Last {timedelta(seconds=found['since_seconds'])} h; {reported}.")
    for title, columns, rows in _tables(found):
        if rows:
            named = [[formats.text(cell) for cell in row] for row in rows]
            print(f"\n{title}", *aligned([columns, *named], names=2 if title == "Errors" else 1), sep="\n")


def _of(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' if number != 1 else ''}"


def _tables(found: dict[str, Any]) -> list[Table]:
    metrics, llm = found["metrics"].items(), found["llm"].items()
    timings = [[name, *_times(row)] for name, row in metrics if row["kind"] == "timing"]
    values = [[name, *_values(row)] for name, row in metrics if row["kind"] in ("value", "gauge")]
    counts = [[name, _number(row["sum"])] for name, row in metrics if row["kind"] == "counter"]
    errors = [[name, kind, str(n)] for name, row in llm for kind, n in row["errors"].items()]
    return [
        (
            "Providers and models",
            ("", "requests", "ok", "req/s", "avg ms", "p50 ms", "p95 ms", "tokens"),
            [[name, *_work(row)] for name, row in llm],
        ),
        (
            "Money and opinions",
            ("", "cost $", "$/ok", "month $", "budget", "quality", "satisfied", "done"),
            [[name, *_worth(row)] for name, row in llm],
        ),
        ("Errors", ("", "kind", "n"), errors),
        ("Durations", ("", *_DISTRIBUTION), timings),
        ("Values", ("", *_DISTRIBUTION), values),
        ("Counts", ("", "total"), counts),
    ]


def _work(row: dict[str, Any]) -> list[str]:
    times = (f"{row[key]:.1f}" if row[key] else "-" for key in ("avg_latency_ms", "p50_latency_ms", "p95_latency_ms"))
    speed = f"{row['requests_per_second']:.2f}"
    return [str(row["requests"]), f"{row['success_rate']:.1%}", speed, *times, str(row["total_tokens"])]


def _worth(row: dict[str, Any]) -> list[str]:
    money = (row[key] for key in ("total_cost", "cost_per_success", "month_to_date_cost"))
    shares = (row["satisfaction"], row["completion_rate"])
    return [
        *("-" if amount is None else f"{amount:.4g}" for amount in money),
        _share(row["budget_utilization"]),
        "-" if row["quality_score"] is None else f"{row['quality_score']:.2f}",
        *map(_share, shares),
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _values(row: dict[str, float]) -> list[str]:
    return [_number(row[key]) for key in _DISTRIBUTION]


def _times(row: dict[str, float]) -> list[str]:
    return [str(row["count"]), *(formats.seconds(row[key]) for key in _DISTRIBUTION[1:])]


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.3g}"
