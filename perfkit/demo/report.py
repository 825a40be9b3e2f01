"""What is shown: progress on stderr, and at the end the table, or one JSON document, on stdout."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from perfkit.demo.servers import CONNECT_LATENCY, PRICE, PROVIDERS, REPLY_LATENCY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perfkit.demo.race import Row, Stage

__all__ = ["Report", "progress"]

_WIDTH = 100  # columns at most: longer lines of prose read badly

_READING = (
    "Percentiles are of answered calls only: a call that fails at once makes nothing look faster.",
    (
        "Answers at temperature 0 are shared from the cache (default policy 'smart', kept for an hour). Where the"
        " temperature is left to the provider (the default; here fresh questions and streams), every caller gets an"
        " answer of their own, unless the call's route says cacheable=True."
    ),
)
_LOCAL = (
    (
        f"Latencies rest on what is injected: {CONNECT_LATENCY * 1000:.0f} ms for a new connection (TCP and TLS, two"
        f" round trips of 30 ms) and {REPLY_LATENCY * 1000:.0f} ms before each reply (one round trip, and 60 ms of a"
        " provider's work), the same for every column, as are calls, order, TLS, providers and the kill. Connections"
        " and handshakes are counted by the servers."
    ),
    (
        "The bundled model only strings words together; nothing about the quality of answers rests on it. It is free:"
        f" cost is at a stand-in price of ${PRICE['input']:.2f} a million tokens in and ${PRICE['output']:.2f} out."
    ),
    (
        "No stream is under way when the provider dies: one that is cut behind its first words cannot be replaced"
        " unseen, by anybody (perfkit then raises StreamInterruptedError with the text so far)."
    ),
)
_REAL = ("Nothing was killed. Connections are those this process opened; handshakes cannot be counted from here.",)


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


class Report:
    """The rows and how they came about."""

    def __init__(self, rows: Sequence[Row], stage: Stage, threads: int, seed: int) -> None:
        self._rows = rows
        self._setting = stage.setting
        self._killed = stage.kill_first is not None
        self._threads, self._seed = threads, seed
        self._notes = (*(_LOCAL if self._killed else _REAL), *_READING)

    def print_json(self) -> None:
        """Print everything as one JSON document."""
        about: dict[str, Any] = {
            "calls": self._rows[0].calls,
            "threads": self._threads,
            "seed": self._seed,
            "model": self._setting.model,
            "providers": {endpoint.name: endpoint.kind for endpoint in self._setting.endpoints},
            "killed_at_call": self._rows[0].calls // 2 if self._killed else None,
        }
        if self._killed:
            about |= {"injected_ms": {"connect": CONNECT_LATENCY * 1000, "reply": REPLY_LATENCY * 1000}, "price": PRICE}
        rows = [
            {**asdict(row), "failed": row.failed, "cost_per_1000_answers": row.cost_per_thousand} for row in self._rows
        ]
        print(json.dumps({**about, "rows": rows, "notes": self._notes}, indent=2))

    def print_table(self) -> None:
        """Print the table, what it comes to, and how to read it."""
        console = Console(highlight=False)
        console.width = min(console.width, _WIDTH)
        console.print()
        console.print(self._table())
        console.print(Padding(f"[bold]In short:[/] {_in_short(self._rows)}", (0, 1, 1, 1)))
        for note in self._notes:
            console.print(Padding(escape(note), (0, 1, 0, 1)), style="dim")

    def _title(self) -> str:
        what = f"{self._rows[0].calls:,} calls, {self._threads} at a time, seed {self._seed}"
        if not self._killed:
            return f"{what}, model {escape(self._setting.model)} at {escape(self._setting.endpoints[0].name)}"
        return f"{what}; one of {len(PROVIDERS)} providers killed as call {self._rows[0].calls // 2 + 1:,} begins"

    def _table(self) -> Table:
        table = Table(title=self._title(), title_style="bold", box=box.ROUNDED, header_style="bold")
        table.add_column()
        for row in self._rows:
            table.add_column(
                row.name.replace(", ", "\n"), justify="right", style="bold" if row.name == "perfkit" else None
            )
        for section in _SECTIONS:
            for label, cell in section.items():
                cells = [cell(row) for row in self._rows]
                if any(text != _UNKNOWN for text in cells):
                    table.add_row(label, *cells)
            table.add_section()
        return table


_UNKNOWN = "[dim]-[/]"


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


def _ms(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004 - 3 digits


def _dollars(value: float | None) -> str:
    return _UNKNOWN if value is None else f"${value:.4f}"


def _failures(row: Row) -> str:
    if not row.failures:
        return "[green]none[/]"
    kinds = "\n".join(f"{count:,} x {escape(kind)}" for kind, count in row.failures.items())
    return f"[red]{row.failed:,}[/]\n[dim]{kinds}[/]"


# Sections of the table: label to what a row says there.
_SECTIONS: tuple[dict[str, Callable[[Row], str]], ...] = (
    {
        "calls answered": lambda row: f"{row.answered:,} of {row.calls:,}",
        "failures seen by the caller": _failures,
    },
    {
        "latency p50, ms": lambda row: _ms(row.p50_ms),
        "latency p95, ms": lambda row: _ms(row.p95_ms),
        "latency p99, ms": lambda row: _ms(row.p99_ms),
        "first words of a stream p50, ms": lambda row: _ms(row.first_token_p50_ms),
        "answered calls a second": lambda row: f"{row.per_second:,.1f}",
    },
    {
        "connections opened": lambda row: _count(row.connections),
        "TLS handshakes": lambda row: _count(row.tls_handshakes),
        "requests that reached a provider": lambda row: _count(row.requests),
        "answered from the cache": lambda row: _count(row.cache_hits),
    },
    {
        "tokens sent": lambda row: _count(row.tokens_in),
        "tokens received": lambda row: _count(row.tokens_out),
        "cost": lambda row: _dollars(row.cost),
        "cost of 1,000 answers": lambda row: _dollars(row.cost_per_thousand),
    },
)


def _in_short(rows: Sequence[Row]) -> str:
    today, perfkit = rows[0], rows[1]
    parts = [f"{today.failed:,} failed calls today, {perfkit.failed:,} through perfkit"]
    if today.connections and perfkit.connections:
        parts.append(f"{today.connections:,} connections, now {perfkit.connections:,}")
    if today.p50_ms and perfkit.p50_ms:
        parts.append(f"a median wait of {_ms(today.p50_ms)} ms, now {_ms(perfkit.p50_ms)}")
    if today.cost_per_thousand and perfkit.cost_per_thousand:
        parts.append(
            f"{_dollars(today.cost_per_thousand)} for 1,000 answers, now {_dollars(perfkit.cost_per_thousand)}"
        )
    return "; ".join(parts) + "."
