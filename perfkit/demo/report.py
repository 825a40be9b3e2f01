"""What is shown: progress on stderr, and at the end the table, or one JSON document, on stdout."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from perfkit.demo.race import MS
from perfkit.demo.servers import CONNECT_LATENCY, PIECE_LATENCY, PRICE, PROVIDERS, REPLY_LATENCY, ROUND_TRIP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perfkit.demo.inside import Inside
    from perfkit.demo.meaning import Told
    from perfkit.demo.race import Row, Stage
    from perfkit.demo.web import Web

__all__ = ["Beside", "Report", "progress"]

_WIDTH = 100  # columns at most: longer lines of prose read badly

_GARBAGE = (
    "Stops for garbage are those of this process, which holds little; each way has Python's own settings. [gc] workload"
    " and [web] collect_garbage move them between the requests of a web app; benchmarks/garbage.py measures that."
)
_DEFAULTS = (
    "By default only answers at a temperature of 0 (at most 0.1) are shared from the cache, for hours. Where the"
    " temperature is left to the provider, as in the fresh questions and streams here, an answer is its caller's own"
    " unless a route says cacheable=True."
)
_LOCAL = (
    (
        "Percentiles are of answered calls. They rest on injected latency, the same for all:"
        f" {CONNECT_LATENCY * MS:.0f} ms for a new connection (TCP and TLS, two round trips of {ROUND_TRIP * MS:.0f}"
        f" ms), {REPLY_LATENCY * MS:.0f} ms before each reply (a round trip, and the provider's work), and"
        f" {PIECE_LATENCY * MS:.0f} ms before each further piece of a stream. The servers count connections and"
        " handshakes."
    ),
    (
        "The bundled model only strings words together; nothing about the quality of answers rests on it. It is free:"
        f" cost is at a stand-in price of ${PRICE['input']:.2f} a million tokens in, ${PRICE['output']:.2f} out."
    ),
    _DEFAULTS,
    _GARBAGE,
    (
        "The provider dies while it streams. With resume=True, the one thing here that is no default, a stream that is"
        " cut behind its first words goes on at another provider. Tokens and cost are those of whoever ended an answer;"
        " what was said before a cut is counted for nobody."
    ),
    (
        "The web app is plain WSGI on a threaded server, asked over HTTP. Its dashboard is a page, too: the apps of"
        " docs/getting-started.md have it at /perfkit/ with Flask, and in the admin with Django."
    ),
)
_REAL = (
    "Percentiles are of answered calls. Nothing was killed. Connections are those this process opened.",
    _DEFAULTS,
    _GARBAGE,
)


def _fate(one: Told) -> str:
    if one.served:
        return "got the answer of the same question in other words"
    return "was asked" if one.refused_by is None else f"was asked, since the {one.refused_by} differ"


@contextmanager
def progress(names: Sequence[str], calls: int) -> Iterator[Callable[[str, int], None]]:
    """Show a bar for each way on stderr; yields what to tell the way and how many of its calls are done."""
    columns = (
        TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn(), TextColumn("calls"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {name: bars.add_task(name, total=calls, start=False) for name in names}

        def advance(name: str, done: int) -> None:
            if done == 1:
                bars.start_task(tasks[name])
            bars.update(tasks[name], completed=done)

        yield advance


@dataclass(frozen=True, slots=True)
class Beside:
    """What is shown beside the race; `told` and `web` only where calls cost nothing."""

    inside: Sequence[Inside]
    told: Sequence[Told]
    web: Web | None


class Report:
    """The rows and how they came about."""

    def __init__(self, rows: Sequence[Row], beside: Beside, stage: Stage, threads: int, seed: int) -> None:
        self._rows, self._beside = rows, beside
        self._setting = stage.setting
        self._killed = stage.kill_first is not None
        self._threads, self._seed = threads, seed
        self._notes = _LOCAL if self._killed else _REAL

    def print_json(self) -> None:
        """Print everything as one JSON document."""
        about: dict[str, Any] = {
            "calls": self._rows[0].calls,
            "threads": self._threads,
            "seed": self._seed,
            "model": self._setting.model,
            "providers": {endpoint.name: endpoint.kind for endpoint in self._setting.endpoints},
            "killed_as_call_begins": self._rows[0].calls // 2 if self._killed else None,
        }
        if self._killed:
            seconds = {"connect": CONNECT_LATENCY, "reply": REPLY_LATENCY, "piece": PIECE_LATENCY}
            about |= {"injected_ms": {name: latency * MS for name, latency in seconds.items()}, "price": PRICE}
        rows = [
            {**asdict(row), "failed": row.failed, "cost_per_1000_answers": row.cost_per_thousand} for row in self._rows
        ]
        inside, told, web = self._beside.inside, self._beside.told, self._beside.web
        beside = {
            "inside": [asdict(one) for one in inside],
            "by_meaning": [asdict(one) for one in told],
            "web": None if web is None else {**asdict(web), "wrong": web.wrong},
        }
        print(json.dumps({**about, "rows": rows, **beside, "notes": self._notes}, indent=2))

    def print_table(self) -> None:
        """Print the table, what it comes to, and how to read it."""
        console = Console(highlight=False)
        console.width = min(console.width, _WIDTH)
        console.print(Padding(self._title(), (1, 1, 0, 1)))
        console.print(self._table())
        console.print(self._within())
        web = self._beside.web
        if web is not None:
            console.print(_app(web))
        failures = [f"[bold]Failures[/] {row.name}: {_kinds(row)}." for row in self._rows if row.failures]
        shorts = [f"[bold]In short:[/] {_in_short(self._rows)}"] if all(row.answered for row in self._rows) else []
        meant = [f"[bold]By meaning:[/] {one.question} [dim]{_fate(one)}[/]" for one in self._beside.told]
        visits = [f"[bold]In a web app:[/] {_visits(web)}"] if web is not None else []
        console.print(Padding("\n".join(shorts + failures + meant + visits), (0, 1, 1, 1)))
        notes = Table.grid(padding=(0, 1))
        for note in self._notes:
            notes.add_row("[dim]•[/]", f"[dim]{escape(note)}[/]")
        console.print(Padding(notes, (0, 1)))

    def _title(self) -> str:
        what = f"[bold]{self._rows[0].calls:,} calls each way, {self._threads} at a time, seed {self._seed}[/]\n"
        if not self._killed:
            return f"{what}Model {escape(self._setting.model)} at {escape(self._setting.endpoints[0].base_url)}."
        return f"{what}One of {len(PROVIDERS)} providers is killed as call {self._rows[0].calls // 2:,} begins."

    def _table(self) -> Table:
        table = Table(box=box.ROUNDED, header_style="bold")
        table.add_column(no_wrap=True)
        for row in self._rows:
            table.add_column(_HEADERS[row.name], justify="right", overflow="fold")
        for section in _SECTIONS:
            for label, cell in section.items():
                cells = [cell(row) for row in self._rows]
                if any(text != _UNKNOWN for text in cells):
                    table.add_row(label, *cells)
            table.add_section()
        return table

    def _within(self) -> Table:
        table = Table("inside the process", box=box.ROUNDED, header_style="bold")
        for header in ("today\n[dim]queue, executor", "[cyan]perfkit"):
            table.add_column(header, justify="right")
        for one in self._beside.inside:
            table.add_row(one.what, _UNKNOWN if one.today is None else one.today, one.perfkit)
        return table


def _app(web: Web) -> Table:
    table = Table("in a web app", box=box.ROUNDED, header_style="bold")
    for header in ("its visitors\n[dim]counted", "[cyan]its dashboard[/]\n[dim]says"):
        table.add_column(header, justify="right")
    for what, counted in web.counted.items():
        cells = (f"{value:.4f}" if what == "dollars" else f"{value:,.0f}" for value in (counted, web.dashboard[what]))
        table.add_row(what.replace("_", " "), *cells)
    return table


def _visits(web: Web) -> str:
    refused = ", ".join(f"{name}, refused {times} times" for name, times in web.refused.items()) or "nobody"
    return (
        f"{web.visitors} visitors at a time asked the same questions, each thrice; /ask took"
        f" {_ms(web.p95_ms['/ask'])} ms (p95). Answers that somebody else got, too: {web.mixed_up or 'none'}. Beyond a"
        f" budget of ${web.limit:.4f}: {refused}. The dashboard answered {' and '.join(map(str, web.without_token))} to"
        " those without its token."
    )


_HEADERS = {
    "today": "today\n[dim]requests.post",
    "perfkit": "[cyan]perfkit[/]\n[dim]defaults",
    "perfkit, cache off": "[cyan]perfkit[/]\n[dim]cache off",
}
_UNKNOWN = "[dim]-[/]"


def _count(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


def _some(value: int) -> str:
    return f"{value:,}" if value else _UNKNOWN


def _ms(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004 - 3 digits


def _dollars(value: float | None) -> str:
    return _UNKNOWN if value is None else f"${value:.4f}"


def _failed(row: Row) -> str:
    return f"[bold red]{row.failed:,}[/]" if row.failed else "[green]none[/]"


def _kinds(row: Row) -> str:
    return ", ".join(f"{count:,} {escape(kind)}" for kind, count in row.failures.items())


# Sections of the table: label to what a row says there.
_SECTIONS: tuple[dict[str, Callable[[Row], str]], ...] = (
    {
        "calls answered": lambda row: f"{row.answered:,} of {row.calls:,}",
        "failures the caller saw": _failed,
        "streams resumed": lambda row: _some(row.resumed),
    },
    {
        "latency p50, ms": lambda row: _ms(row.p50_ms),
        "latency p95, ms": lambda row: _ms(row.p95_ms),
        "latency p99, ms": lambda row: _ms(row.p99_ms),
        "p95 by its own metrics, ms": lambda row: _ms(row.recorded_p95_ms),
        "first token p50, ms": lambda row: _ms(row.first_token_p50_ms),
        "stopped for garbage, ms": lambda row: _ms(row.garbage_ms),
        "longest stop, ms": lambda row: _ms(row.garbage_longest_ms),
        "answered calls a second": lambda row: f"{row.per_second:,.1f}",
    },
    {
        "connections opened": lambda row: _count(row.connections),
        "TLS handshakes": lambda row: _count(row.tls_handshakes),
        "answered from the cache": lambda row: _count(row.cache_hits),
    },
    {
        "tokens sent": lambda row: _count(row.tokens_in),
        "tokens received": lambda row: _count(row.tokens_out),
        "cost": lambda row: _dollars(row.cost),
        "cost of 1,000 answers": lambda row: _dollars(row.cost_per_thousand),
        "saved by the cache": lambda row: _dollars(row.saved or None),
    },
)


def _in_short(rows: Sequence[Row]) -> str:
    today, perfkit = rows[0], rows[1]
    compared = (
        ("{} connections against {}", _count, today.connections, perfkit.connections),
        ("a median wait of {} ms against {}", _ms, today.p50_ms, perfkit.p50_ms),
        ("{} against {} for 1,000 answers", _dollars, today.cost_per_thousand, perfkit.cost_per_thousand),
    )
    parts = [text.format(show(one), show(other)) for text, show, one, other in compared if one and other]
    return "; ".join([f"{today.failed:,} failed calls today, {perfkit.failed:,} through perfkit", *parts]) + "."
