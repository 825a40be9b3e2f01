"""The page: HTML made on the server from the panels' data, so that it works without JavaScript.

All that comes from outside (names of models, agents, tags, errors) is escaped here, in `_cell` and `_tile`, and nowhere
is markup put together in another way.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from perfkit.charts import Line, line_chart
from perfkit.dashboard import formats
from perfkit.dashboard.columns import (
    AGENTS,
    ALERTS,
    BUDGETS,
    CALLS,
    CONNECTIONS,
    FUNCTIONS,
    MEANWHILE,
    MODELS,
    PROFILES,
    PROVIDERS,
    RECORDED,
    SLOW,
    USAGE,
    WORKERS,
    Column,
)  # fmt: skip
from perfkit.dashboard.panels import SPANS
from perfkit.profiling import SlowRun
from perfkit.profiling.export import slow_stacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perfkit.profiling.reports import CPUReport

__all__ = ["live_part", "profile_page", "whole_page"]

SHOWN = 8  # of the latest runs; their JSON has more
ANSWERS = {"miss": "Asked of a provider", "none": "Not to be cached"}  # other results are kinds of hits
TONES = {
    "healthy": "good",
    "closed": "good",
    "unavailable": "bad",
    "open": "bad",
    "firing": "bad",
}  # other states: wary


def whole_page(data: Mapping[str, Any], chosen: str, words: Sequence[Mapping[str, Any]] | None = None) -> str:
    """Return the page; `chosen` is a name from SPANS, `words` are those of the latest calls, None to leave them out."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>perfkit</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="static/icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="static/uplot.css"><link rel="stylesheet" href="static/dashboard.css">'
        '<script src="static/uplot.js" defer></script><script src="static/dashboard.js" defer></script></head>'
        f'<body><a class="skip" href="#live">Skip to the figures</a>{_head(chosen)}'
        f'<main id="live" tabindex="-1">{live_part(data, chosen, words)}</main></body></html>'
    )


def _head(chosen: str) -> str:
    links = "".join(
        f'<a href="?range={name}"{" aria-current=page" if name == chosen else ""}>{name}</a>' for name in SPANS
    )
    return (
        f'<header><h1>perfkit</h1><nav aria-label="Time range">{links}</nav>'
        '<form id="live-form" hidden><label>Every <output id="every-shown">5 s</output> '
        '<input id="every" type="range" min="1" max="60" value="5"></label>'
        '<button id="pause" type="button" aria-pressed="false">Pause</button></form></header>'
    )


def live_part(data: Mapping[str, Any], chosen: str, words: Sequence[Mapping[str, Any]] | None = None) -> str:
    """Return what changes: everything below the head."""
    traffic = data["providers"]["traffic"]
    health = [{"name": name, **row, **traffic[name]} for name, row in data["providers"]["health"].items()]
    usage, cache = data["tokens"]["usage"], data["cache"]
    sections = (
        _workers(data["workers"]),
        f'<section aria-label="Overview" class="tiles">{_overview(data["overview"])}</section>',
        _section("Alerts", "alerts", _alerts(data["alerts"])),
        _section("Over time", "history", _charts(data["history"], chosen)),
        _section(
            "Providers",
            "providers",
            _table(PROVIDERS, health) + _reasons(health) + _table(MODELS, _models(data["providers"])),
        ),
        _section("Tokens and cost", "tokens", _table(USAGE, usage) + _table(BUDGETS, _budgets(data["overview"]))),
        _section("Cache", "cache", f'<div class="tiles">{_cache(cache)}</div>'),
        _section("Pools", "pools", "".join(_pools(data["pools"]))),
        _section("Memory and garbage collection", "runtime", _runtime(data["runtime"]) + _each(data["workers"])),
        _section("Latest profiles", "profiles", "".join(_profiles(data["profiles"]))),
        _words(words),
    )
    return "".join(sections)


def _workers(workers: Mapping[str, Any]) -> str:
    reporting, known = workers["reporting"], workers["known"]
    said = f"{reporting} of {known} workers reporting, data at most {formats.seconds(workers['age'])} old"
    if not workers["shared"]:
        said = "one worker reporting: set [metrics] store to see all workers of the application together"
    elif not known:
        said = "no worker has reported yet: that takes up to 10 s after the first call"
    late = " late" if reporting < known else ""
    return f'<p class="banner{late}" role="status">{escape(said)}; answered by {escape(workers["answered_by"])}</p>'


def _words(calls: Sequence[Mapping[str, Any]] | None) -> str:
    """Return the section that has no twin in JSON, where it is to be shown."""
    if calls is None:
        return ""
    return f'<section aria-labelledby="words"><h2 id="words">Prompts and answers</h2>{_table(CALLS, calls)}</section>'


def _section(title: str, name: str, body: str) -> str:
    label = escape(title)
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{label} '
        f'<a class="twin" href="panels/{name}.json" aria-label="{label} as JSON">JSON</a></h2>{body}</section>'
    )


def _tile(label: str, value: str, hint: str = "") -> str:
    small = f"<small>{escape(hint)}</small>" if hint else ""
    return f'<div class="tile"><span>{escape(label)}</span><strong>{escape(value)}</strong>{small}</div>'


def _overview(data: Mapping[str, Any]) -> str:
    count, dollars, seconds = formats.count, formats.dollars, formats.seconds
    limit, spent = data["daily_limit"], data["cost_today"] or 0.0
    of = f"{formats.percent(spent / limit)} of {dollars(limit)} a day" if limit else "no limit a day"
    return "".join(
        (
            _tile("Response time", seconds(data["avg_response_time"]), "average"),
            _tile("Response time", seconds(data["p95_response_time"]), "p95"),
            _tile("First token", seconds(data["p95_first_token"]), "p95 of streams"),
            _tile("Calls today", count(data["calls_today"]), f"{count(data['calls'])} in this range"),
            _tile("Errors", formats.percent(data["error_rate"]), f"{count(data['errors'])} calls failed"),
            _tile("Cost today", dollars(data["cost_today"]), of),
            _tile("Run-rate", dollars(data["cost_run_rate"]), "a day, at the last hour's pace"),
            _tile("Cache hits", formats.percent(data["cache_hit_rate"]), "of the calls that may be cached"),
            _tile("Saved", dollars(data["saved_by_cache"]), "by the cache"),
            _tile("Saved", dollars(data["saved_by_prefix"]), "by prefix caching"),
        )
    )


def _charts(data: Mapping[str, Any], chosen: str) -> str:
    moments = data["moments"]

    def chart(title: str, lines: Sequence[Line], value: Callable[[float], str], unit: str = "") -> str:
        drawn = line_chart(moments, lines, title=f"{title}, last {chosen}", value=value, moment=formats.minute)
        names = "".join(f'<span class="key-{place}">{escape(line.name)}</span>' for place, line in enumerate(lines))
        return f'<figure data-unit="{unit}"><figcaption>{escape(title)} {names}</figcaption>{drawn}</figure>'

    return (
        '<div class="charts">'
        + "".join(
            (
                chart("Calls", [Line("calls", data["calls"]), Line("errors", data["errors"])], formats.count),
                chart("Response time", [Line("p50", data["p50"]), Line("p95", data["p95"])], formats.seconds, "s"),
                chart("Cost", [Line("cost", data["cost"])], formats.dollars, "$"),
            )
        )
        + "</div>"
    )


def _reasons(health: Iterable[Mapping[str, Any]]) -> str:
    """Return why providers are out of use."""
    told = "; ".join(f"{row['name']}: {row['reason']}" for row in health if row["reason"])
    return f'<p class="empty">{escape(formats.text(told))}</p>' if told else ""


def _models(data: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for name, row in data["models"].items():
        errors = ", ".join(f"{kind} {count}" for kind, count in row["errors"].items())
        times = {time: row[f"{time}_latency_ms"] / 1000 or None for time in ("p50", "p95")}  # none: nothing came
        yield {**row, **times, "name": name, "errors": errors}


def _budgets(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{**row, "scope": " ".join(part for part in row["scope"] if part)} for row in data["budgets"]]


def _alerts(data: Mapping[str, Any]) -> str:
    quiet = [name for name, state in data["rules"].items() if state == "inactive"]
    told = [row for row in data["alerts"] if row["state"] != "inactive"]
    rows = [{**row, "labels": _pairs(row["labels"]), "values": _pairs(row["values"])} for row in told]
    watched = f'<p class="empty">Quiet: {escape(", ".join(quiet)) or formats.NOTHING}</p>'
    return (_table(ALERTS, rows) if rows else "") + watched


def _pairs(values: Mapping[str, Any]) -> str:
    """Return names with their values; numbers with four digits."""
    told = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _cache(data: Mapping[str, Any]) -> str:
    kinds = [
        _tile(ANSWERS.get(kind, f"By {kind} hit"), formats.count(number)) for kind, number in data["results"].items()
    ]
    room = f"of {formats.size(data['max_bytes'])}, {formats.count(data['entries'])} entries"
    return "".join(
        (*kinds, _tile("Held", formats.size(data["bytes"]), room), _tile("Evicted", formats.count(data["evictions"])))
    )


def _pools(data: Mapping[str, Any]) -> Iterable[str]:
    for columns, part in ((CONNECTIONS, "connections"), (AGENTS, "agents")):
        yield _table(columns, [{"name": name, **row} for name, row in data[part].items()])


def _runtime(data: Mapping[str, Any]) -> str:
    collections = " / ".join(formats.count(number) for number in data["collections"])
    tiles = (
        _tile("Resident memory", formats.size(data["rss"]), data["worker"]),
        _tile("Workload", formats.text(data["workload"]), "what the collector is set for"),
        _tile("Collections", collections, "by generation"),
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _each(workers: Mapping[str, Any]) -> str:
    """Return the memory of each worker, where there are several."""
    rows = [
        {
            **row,
            "name": f"{row['host']}:{row['pid']}",
            "collections": " / ".join(map(formats.count, row["collections"])),
        }
        for row in workers["workers"]
    ]
    return _table(WORKERS, rows) if len(rows) > 1 else ""


def _profiles(data: Mapping[str, Any]) -> Iterable[str]:
    for columns, part in ((SLOW, "slow"), (RECORDED, "recorded")):
        if data[part]:
            yield _table(columns, data[part][:SHOWN])
    yield _table(PROFILES, data["latest"][:SHOWN])


def profile_page(found: CPUReport | SlowRun) -> str:
    """Return the page of one CPU profile or slow run: a flame graph, and as text what it shows."""
    name = escape(f"{found.operation}: {'slow run' if isinstance(found, SlowRun) else 'CPU profile'}")
    stacks = slow_stacks(found) if isinstance(found, SlowRun) else found.stacks
    notes = list(found.overlapped) if isinstance(found, SlowRun) else []
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="../static/icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="../static/dashboard.css"></head><body>'
        f'<main><section><h1>{name}</h1><p><a href="../">Dashboard</a></p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Flame graph">'
        f"{stacks.svg(found.operation)}</div></section>"
        f"<section><h2>Functions</h2>{_table(FUNCTIONS, stacks.methods())}</section>"
        f"{f'<section><h2>Meanwhile</h2>{_table(MEANWHILE, notes)}</section>' if notes else ''}</main></body></html>"
    )


def _table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> str:
    listed = list(rows)
    if not listed:
        return f'<p class="empty">No {escape(columns[0][1].lower())} yet.</p>'
    head = "".join(f'<th scope="col"{_side(column)}>{escape(column[1])}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(_cell(row, column) for column in columns)}</tr>" for row in listed)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(columns[0][1])}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _side(column: Column) -> str:
    """Return the class of text, which stands left and may wrap, and of times of day; numbers stand right."""
    return {formats.text: ' class="text"', formats.moment: ' class="time"'}.get(column[2], "")


def _cell(row: Mapping[str, Any], column: Column) -> str:
    key, _, form = column
    shown = escape(form(row.get(key)))
    if key == "id":
        shown = f'<a href="profiles/{shown}">{shown}</a>'
    elif key in ("state", "status"):
        shown = f'<span class="pill {TONES.get(str(row.get(key)), "wary")}">{shown}</span>'
    return f"<td{_side(column)}>{shown}</td>"
