"""A run as a table, as CSV, and as one HTML file that needs nothing else.

Names and error texts come from providers and files: they are escaped here, for pages and for spreadsheets, which take a
cell that begins with = + - or @ for a formula, and for terminals.
"""

from __future__ import annotations

import csv
import io
import math
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from perfkit.bench.comparing import identity
from perfkit.bench.report import COLOURS, percentile
from perfkit.charts import Line, aligned, harmless, line_chart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["as_csv", "as_html", "as_table", "differences_table", "plain"]

COLUMNS = (
    ("requests", "requests", "{:.0f}"),
    ("errors", "errors", "{:.0f}"),
    ("avg_latency_ms", "avg ms", "{:.1f}"),
    ("p50_latency_ms", "p50 ms", "{:.1f}"),
    ("p95_latency_ms", "p95 ms", "{:.1f}"),
    ("p50_first_token_ms", "first token p50 ms", "{:.1f}"),
    ("p95_first_token_ms", "first token p95 ms", "{:.1f}"),
    ("p50_per_token_ms", "per token p50 ms", "{:.2f}"),
    ("output_tokens_per_second", "tokens/s", "{:.1f}"),
    ("requests_per_second", "req/s", "{:.2f}"),
    ("goodput", "goodput", "{:.2f}"),
    ("cost", "cost $", "{:.4g}"),
)
_COMPARED = ("before", "after", "ratio", "at least", "at most", "verdict")
PERCENTS = list(range(1, 101))
CURVES = (("latency_ms", "End to end, ms"), ("first_token_ms", "First token, ms"), ("per_token_ms", "Per token, ms"))
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #d8dee4}
th:first-child,td:first-child,td.text{text-align:left}td:first-child{min-width:14rem}
.scroll{overflow-x:auto}svg{width:100%;height:auto}text{font:11px sans-serif;fill:currentColor}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:1rem;margin:1.5rem 0 .5rem}
figure{margin:0}figcaption{font-weight:600}ul{list-style:none;padding:0}li::before{content:"\u25cf  "}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{font-weight:600}dd{margin:0}
@media(max-width:40rem){dl{display:block}}
.end{text-anchor:end}.middle{text-anchor:middle}.grid{stroke:#d8dee4}polyline{fill:none;stroke-width:1.5}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th,td{border-color:#30363d}.grid{stroke:#30363d}}
"""


def as_table(document: Mapping[str, Any], *, width: int | None = None) -> str:
    """Return the figures and what they mean as text: a column a case, as many beside each other as `width` holds."""
    parts = list(_blocks(document["rows"], width))
    errors = [[plain(identity(row)), *_errors(row)] for row in document["rows"] if row["errors"]]
    if errors:
        parts.append(_text_table(["errors of", "kinds", "the first one said"], errors, names=3))
    told = "\n".join(f"  {key}: {text}" for key, text in document["definitions"].items())
    return "\n\n".join([*parts, f"SLOs of goodput: {_slos(document)}\n{told}"])


def _blocks(rows: Sequence[Mapping[str, Any]], width: int | None) -> Iterator[str]:
    heads = [[plain(part) for part in identity(row).split(", ")] for row in rows]
    high = max(map(len, heads))
    titles = [*[""] * high, *(title for _, title, _ in COLUMNS)]
    columns = [[*head, *[""] * (high - len(head)), *_cells(row)] for head, row in zip(heads, rows, strict=True)]
    widths = [2 + max(map(len, column)) for column in columns]
    room = math.inf if width is None else width - max(map(len, titles))
    while columns:
        shown = max(1, sum(total <= room for total in accumulate(widths)))
        head, *body = zip(titles, *columns[:shown], strict=True)
        yield _text_table(head, body)
        del columns[:shown], widths[:shown]


def differences_table(differences: Sequence[Mapping[str, Any]]) -> str:
    """Return how two runs differ as text."""
    return _text_table(["medians, ms", *_COMPARED], [_compared(one, plain(one["case"])) for one in differences])


def _compared(one: Mapping[str, Any], case: str) -> list[str]:
    figures = (f"{one[key]:.3f}" for key in ("before", "after", "ratio", "low", "high"))
    return [f"{case}: {one['key']}", *figures, one["verdict"]]


def as_csv(document: Mapping[str, Any]) -> str:
    """Return the rows as CSV, one line a case; samples and error texts are in the JSON only."""
    out = io.StringIO()
    names = [name for name in document["rows"][0] if name not in ("samples", "first_errors", "error_kinds")]
    writer = csv.writer(out)
    writer.writerow([*names, "error_kinds"])
    for row in document["rows"]:
        kinds = " ".join(f"{kind}:{number}" for kind, number in row["error_kinds"].items())
        writer.writerow([*(harmless(row[name]) for name in names), harmless(kinds)])
    return out.getvalue()


def as_html(document: Mapping[str, Any]) -> str:
    """Return the run as a page of its own: no script, nothing from elsewhere."""
    rows = document["rows"]
    colours = [COLOURS[n % len(COLOURS)] for n in range(len(rows))]
    strokes = "".join(f".line-{n}{{stroke:{one}}}.key-{n}::before{{color:{one}}}" for n, one in enumerate(colours))
    names = "".join(f'<li class="key-{n}">{escape(identity(row))}</li>' for n, row in enumerate(rows))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>perfkit bench</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<style>{STYLE}{strokes}</style></head><body><h1>perfkit bench</h1>",
        f"<p>{_settings(document)}</p>",
        _html_table(["case", *(title for _, title, _ in COLUMNS)], [[identity(row), *_cells(row)] for row in rows]),
        f'<div class="charts">{"".join(_chart(rows, key, title) for key, title in CURVES)}</div><ul>{names}</ul>',
        _html_errors(rows),
        _html_differences(document.get("differences", ())),
        f"<h2>What the figures mean</h2><p>SLOs of goodput: {escape(_slos(document))}</p><dl>",
        *(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in document["definitions"].items()),
        "</dl></body></html>",
    ]
    return "".join(parts)


def _chart(rows: Sequence[Mapping[str, Any]], key: str, title: str) -> str:
    """Return a chart of how many percent of the answers took at most so long."""
    lines = []
    for row in rows:
        times = sorted(s[key] for s in row["samples"] if s["error"] is None and s[key] is not None)
        lines.append(Line(identity(row), [percentile(times, p) if times else None for p in PERCENTS]))
    number: Callable[[float], str] = "{:.4g}".format
    percent: Callable[[float], str] = "{:.0f} %".format
    drawn = line_chart(PERCENTS, lines, title=f"{title}, by percentile", value=number, moment=percent)
    return f"<figure><figcaption>{escape(title)}, by percentile</figcaption>{drawn}</figure>"


def _html_errors(rows: Sequence[Mapping[str, Any]]) -> str:
    failed = [[identity(row), *_errors(row)] for row in rows if row["errors"]]
    return f"<h2>Errors</h2>{_html_table(['case', 'kinds', 'the first one said'], failed)}" if failed else ""


def _html_differences(differences: Sequence[Mapping[str, Any]]) -> str:
    if not differences:
        return ""
    rows = [_compared(one, one["case"]) for one in differences]
    return f"<h2>Against the other run</h2>{_html_table(['medians, ms', *_COMPARED], rows)}"


def _text_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    return "\n".join(aligned([head, *rows], names=names))


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _settings(document: Mapping[str, Any]) -> str:
    told = {**document["machine"], **document["settings"]}
    return escape(", ".join(f"{key} {value}" for key, value in told.items() if not isinstance(value, dict)))


def _slos(document: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} <= {most:g}" for key, most in document["settings"]["slos"].items())


def _cells(row: Mapping[str, Any]) -> list[str]:
    unknown = {"cost": "unknown"} if row["requests"] > row["errors"] else {}
    return [unknown.get(key, "-") if row[key] is None else form.format(row[key]) for key, _, form in COLUMNS]


def _errors(row: Mapping[str, Any]) -> list[str]:
    kinds = ", ".join(f"{kind} {number}" for kind, number in row["error_kinds"].items())
    return [kinds, plain(next(iter(row["first_errors"]), ""))[:120]]


def plain(text: str) -> str:
    """Return a text without what moves a terminal's cursor or turns other text around."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
