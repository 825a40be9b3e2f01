"""The page: HTML made on the server from the panels' data, so that it works without JavaScript.

All that comes from outside (names of models, agents, tags, errors) is escaped here, in `_cell` and `_tile`, and nowhere
is markup put together in another way.
"""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from perfkit._version import __version__
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
ROWS = 50  # of any table
ANSWERS = {"miss": "Asked of a provider", "none": "Not to be cached"}  # other results are kinds of hits
CALM = {"inactive": "Quiet", "no-data": "Nothing to judge lately"}  # states that need no line of their own
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
        f'<link rel="stylesheet" href="static/uplot.css?{__version__}">'
        f'<link rel="stylesheet" href="static/dashboard.css?{__version__}">'
        f'<script src="static/uplot.js?{__version__}" defer></script>'
        f'<script src="static/dashboard.js?{__version__}" defer></script></head>'
        f'<body><a class="skip" href="#live">Skip to the figures</a>{_head(chosen)}'
        f'<main id="live" tabindex="-1">{live_part(data, chosen, words)}</main></body></html>'
    )


def _head(chosen: str) -> str:
    links = "".join(
        f'<a href="?range={name}"{" aria-current=page" if name == chosen else ""}>{name}</a>' for name in SPANS
    )
    return (
        f'<header><h1>perfkit</h1><nav aria-label="Time range">{links}</nav>'
        '<form id="live-form" hidden><label>Every <span id="every-shown">5 s</span> '
        '<input id="every" type="range" min="1" max="60" value="5"></label>'
        '<button id="pause" type="button">Pause</button></form><p id="told" role="status"></p></header>'
    )


def live_part(data: Mapping[str, Any], chosen: str, words: Sequence[Mapping[str, Any]] | None = None) -> str:
    """Return what changes: everything below the head."""
    shared = data["tokens"]["budgets_shared"] or not data["tokens"]["budgets"]
    section, worker = partial(_section, chosen), f"of worker {data['workers']['answered_by']}"
    sections = (
        _workers(data["workers"], chosen),
        section("Overview", "overview", f'<div class="tiles">{_overview(data["overview"])}</div>'),
        section("Alerts", "alerts", _alerts(data["alerts"])),
        section("Over time", "history", _charts(data["history"], chosen)),
        section("Providers", "providers", _providers(data["providers"]), f"states {worker}"),
        section("Tokens and cost", "tokens", _tokens(data["tokens"]), "" if shared else f"budgets {worker}"),
        section("Cache", "cache", f'<div class="tiles">{_cache(data["cache"])}</div>', f"contents {worker}"),
        section("Pools", "pools", _pools(data["pools"]), worker),
        section("Memory and garbage collection", "runtime", _runtime(data["runtime"])),
        section("Latest profiles", "profiles", "".join(_profiles(data["profiles"])), worker),
        _words(words),
    )
    return "".join(sections)


def _workers(workers: Mapping[str, Any], chosen: str) -> str:
    reporting, known = workers["reporting"], workers["known"]
    said = f"{reporting} of {known} workers reporting, data at most {formats.seconds(workers['age'])} old"
    if not workers["shared"]:
        said = "one worker reporting: set [metrics] store to see all workers of the application together"
    elif not known:
        said = "no worker has reported yet: that takes up to 10 s after the first call"
    late = " late" if reporting < known else ""
    by = f"answered by {workers['answered_by']} at {formats.moment(workers['now'])} UTC"
    whole = f'<a class="twin" href="data.json?range={chosen}">all as JSON</a>'
    return f'<p class="banner{late}">{escape(said)}; {escape(by)} {whole}</p>'


def _words(calls: Sequence[Mapping[str, Any]] | None) -> str:
    """Return the section that has no twin in JSON, where it is to be shown."""
    if calls is None:
        return ""
    shown = _table(CALLS, calls, "No call yet.")
    return f'<section aria-labelledby="words"><h2 id="words">Prompts and answers</h2>{shown}</section>'


def _section(chosen: str, title: str, name: str, body: str, note: str = "") -> str:
    label, small = escape(title), f" <small>{escape(note)}</small>" if note else ""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{label}{small} '
        f'<a class="twin" href="panels/{name}.json?range={chosen}" aria-label="{label} as JSON">JSON</a></h2>'
        f"{body}</section>"
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
    step = formats.seconds(moments[1] - moments[0])

    def chart(title: str, lines: Sequence[Line], value: Callable[[float], str], unit: str = "") -> str:
        drawn = line_chart(moments, lines, title=f"{title}, last {chosen}", value=value, moment=formats.minute)
        names = "".join(f'<span class="key-{place}">{escape(line.name)}</span>' for place, line in enumerate(lines))
        nothing = "" if any(map(any, (line.values for line in lines))) else f'<p class="empty">None in {chosen}.</p>'
        return f'<figure data-unit="{unit}"><figcaption>{escape(title)} {names}</figcaption>{drawn}{nothing}</figure>'

    charts = (
        chart(f"Calls per {step}", [Line("calls", data["calls"]), Line("errors", data["errors"])], formats.count),
        chart("Response time", [Line("p50", data["p50"]), Line("p95", data["p95"])], formats.seconds, "s"),
        chart(f"Cost per {step}", [Line("cost", data["cost"])], formats.dollars, "$"),
    )
    return f'<div class="charts">{"".join(charts)}</div>'


def _providers(data: Mapping[str, Any]) -> str:
    health = [{"name": name, **row, **data["traffic"][name]} for name, row in data["health"].items()]
    models = sorted(_models(data), key=lambda row: -row["requests"])
    return (
        _table(PROVIDERS, health, "No provider is configured: [providers.<name>] names them.")
        + _reasons(health)
        + _table(MODELS, models, "No provider was asked in this range.")
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


def _tokens(data: Mapping[str, Any]) -> str:
    """Return what the dearest agents and models used, and the budgets that have least left."""
    usage = sorted(data["usage"], key=lambda row: (-row["cost"], -row["tokens_input"]))
    budgets = sorted(map(_budget, data["budgets"]), key=lambda row: -row["used"])
    return _table(USAGE, usage, "No tokens were used in this range.") + _table(BUDGETS, budgets, "No budget is set.")


def _budget(row: Mapping[str, Any]) -> dict[str, Any]:
    used = 1 - row["remaining"] / row["limit"] if row["limit"] else 1.0
    return {**row, "scope": " ".join(part for part in row["scope"] if part), "used": used}


def _alerts(data: Mapping[str, Any]) -> str:
    told = [row for row in data["alerts"] if row["state"] not in CALM or (row["state"] == "no-data" and row["fired"])]
    rows = [{**row, "labels": _pairs(row["labels"]), "values": _pairs(row["values"])} for row in told]
    calm = {text: [name for name, state in data["rules"].items() if state == of] for of, text in CALM.items()}
    lines = (f'<p class="empty">{text}: {escape(", ".join(names))}</p>' for text, names in calm.items() if names)
    return _table(ALERTS, rows) + "".join(lines)


def _pairs(values: Mapping[str, Any]) -> str:
    """Return names with their values."""
    return ", ".join(f"{name} {formats.measure(name, value)}" for name, value in values.items())


def _cache(data: Mapping[str, Any]) -> str:
    kinds = [
        _tile(ANSWERS.get(kind, f"By {kind} hit"), formats.count(number)) for kind, number in data["results"].items()
    ]
    room = f"of {formats.size(data['max_bytes'])}, {formats.count(data['entries'])} entries"
    return "".join(
        (*kinds, _tile("Held", formats.size(data["bytes"]), room), _tile("Evicted", formats.count(data["evictions"])))
    )


def _pools(data: Mapping[str, Any]) -> str:
    hosts, agents = ([{"name": name, **row} for name, row in data[part].items()] for part in ("connections", "agents"))
    return _table(CONNECTIONS, hosts, "No connection was opened yet.") + _table(
        AGENTS, agents, "No type of agent is registered."
    )


def _runtime(data: Mapping[str, Any]) -> str:
    collections = " / ".join(formats.count(number) for number in data["collections"])
    tiles = (
        _tile("Resident memory", formats.size(data["rss"]), data["worker"]),
        _tile("Workload", formats.text(data["workload"]), "what the collector is set for"),
        _tile("Collections", collections, "by generation"),
    )
    return f'<div class="tiles">{"".join(tiles)}</div>{_each(data["workers"])}'


def _each(workers: Iterable[Mapping[str, Any]]) -> str:
    """Return the memory of each worker, where there are several."""
    rows = [
        {
            **row,
            "name": f"{row['host']}:{row['pid']}",
            "collections": " / ".join(map(formats.count, row["collections"])),
        }
        for row in workers
    ]
    return _table(WORKERS, rows) if len(rows) > 1 else ""


def _profiles(data: Mapping[str, Any]) -> Iterable[str]:
    for columns, part in ((SLOW, "slow"), (RECORDED, "recorded")):
        yield _table(columns, data[part][:SHOWN])
    yield _table(PROFILES, data["latest"][:SHOWN], "Nothing was timed yet: requests, calls and @profile are.")


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


def _table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], empty: str = "") -> str:
    """Return the first rows as a table; `empty` says why there are none."""
    listed = list(rows)
    if not listed:
        return f'<p class="empty">{escape(empty)}</p>' if empty else ""
    more = f'<p class="empty">{ROWS} of {formats.count(len(listed))}.</p>' if len(listed) > ROWS else ""
    head = "".join(f'<th scope="col"{_side(column)}>{escape(column[1])}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(_cell(row, column) for column in columns)}</tr>" for row in listed[:ROWS])
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(columns[0][1])}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )


def _side(column: Column) -> str:
    """Return the class of text, which stands left and may wrap, and of times of day; numbers stand right."""
    text = ' class="text"'
    return {formats.text: text, formats.name: text, formats.moment: ' class="time"'}.get(column[2], "")


def _cell(row: Mapping[str, Any], column: Column) -> str:
    key, _, form = column
    shown = escape(form(row.get(key)))
    if key == "id":
        shown = f'<a href="profiles/{shown}">{shown}</a>'
    elif key in ("state", "status"):
        shown = f'<span class="pill {TONES.get(str(row.get(key)), "wary")}">{shown}</span>'
    return f"<td{_side(column)}>{shown}</td>"
