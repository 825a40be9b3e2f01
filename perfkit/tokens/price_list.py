"""`perfkit prices`: list the price table, search it, compare models, and say what in it is old."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perfkit._shared import current_config
from perfkit.charts import aligned
from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import UnknownModelError, nearest
from perfkit.tokens.pricing import RATES, PriceTable, from_nano, shipped
from perfkit.values import Usage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from perfkit.tokens.pricing import Price

__all__ = ["add_arguments", "run", "stale"]

SOURCES_FILE = Path(__file__).with_name("price_sources.json")
MONTHLY: Final = 45  # days after which prices should be looked at again
MILLION: Final = 1000  # nano-dollars a token are this many times less dollars a million


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `perfkit prices`."""
    parser.add_argument(
        "action", nargs="?", default="list", help="list (default), search, compare, or a word to search"
    )
    parser.add_argument("names", nargs="*", help="words to search for, or models to compare")
    parser.add_argument("--provider", help="of this vendor only")
    parser.add_argument("--retired", action="store_true", help="with models that are no longer sold")
    parser.add_argument(
        "--stale", nargs="?", type=int, const=MONTHLY, metavar="DAYS", help="exit 1 if prices are older"
    )
    for name, default in (("prompt", 1000), ("completion", 1000), ("cached", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="TOKENS", help=f"compare: {default}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Print what was asked for; return 1 if prices are older than --stale allows."""
    if options.action not in ("list", "search", "compare"):
        options.action, options.names = "search", [options.action, *options.names]
    rows = _compared(options) if options.action == "compare" else _listed(options)
    old = stale(options.stale, today()) if options.stale is not None else []
    if options.json:
        document: dict[str, Any] = {"date": shipped()["date"], "source": shipped()["source"], "prices": rows}
        _out(json.dumps(document if options.stale is None else document | {"stale": old}, indent=1))
    else:
        for line in _table(rows):
            _out(line)
        for line in old:
            _out(f"stale: {line}")
    return 1 if old else 0


def _out(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def today() -> date:
    """Return the day it is, in UTC."""
    return datetime.fromtimestamp(SYSTEM_CLOCK.wall(), UTC).date()


@cache
def sources() -> dict[str, dict[str, str]]:
    """Return source and date of the prices that were checked one by one."""
    found: dict[str, dict[str, str]] = json.loads(SOURCES_FILE.read_bytes())["models"]
    return found


def stale(days: int, now: date) -> list[str]:
    """Return what is older than `days`, of the table and the checked prices, and configured models that are retired."""
    found = []
    if (age := (now - date.fromisoformat(shipped()["date"])).days) > days:
        found.append(f"the table is of {shipped()['date']}, {age} days ago")
    for model, told in sources().items():
        if (age := (now - date.fromisoformat(told["date"])).days) > days:
            found.append(f"{model} was checked {told['date']}, {age} days ago, at {told['source']}")
    prices = _prices()
    for where, model in _configured():
        price = prices.find(model)
        if price is not None and price.retired is not None:
            found.append(f"{where} names {model}, which is retired since {price.retired}")
    return found


def _configured() -> Iterable[tuple[str, str]]:
    config = current_config()
    if (default := config.table("client").default_model) is not None:
        yield "client.default_model", default
    for name, route in config.named("routes").items():
        yield f"routes.{name}", route.model


def _prices() -> PriceTable:
    settings = current_config().table("tokens")
    return PriceTable(settings.prices, settings.fallback_price)


def _row(price: Price) -> dict[str, Any]:
    """Return a price in US dollars a million tokens."""
    rates = {name: getattr(price, name) for name in RATES}
    told = sources().get(price.model, {})
    return {
        "model": price.model,
        "provider": price.provider,
        **{name: rate / MILLION if rate is not None else None for name, rate in rates.items()},
        "context": price.context,
        "retired": price.retired,
        "source": told.get("source"),
        "checked": told.get("date"),
    }


def _listed(options: argparse.Namespace) -> list[dict[str, Any]]:
    words = [word.lower() for word in options.names]
    prices, rows = _prices(), []
    for name in sorted({*shipped()["models"], *current_config().table("tokens").prices}):
        price = prices.find(name)
        if price is None or (price.retired is not None and not options.retired):
            continue
        if options.provider in (None, price.provider) and all(word in name for word in words):
            rows.append(_row(price))
    return rows


def _compared(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the models with the cost of one call each, cheapest first.

    Raises:
        UnknownModelError: one has no price.
    """
    usage, prices, rows = Usage(options.prompt, options.completion, cached_tokens=options.cached), _prices(), []
    for name in options.names:
        price = prices.find(name)
        if price is None:
            raise UnknownModelError(f"no price for {name!r}{nearest(name, shipped()['models'])}", model=name)
        rows.append(_row(price) | {"model": name, "cost": from_nano(price.cost(usage))})
    least = min((row["cost"] for row in rows if row["cost"]), default=None)
    return [
        {**row, "times": row["cost"] / least if least is not None else None}
        for row in sorted(rows, key=lambda row: row["cost"])
    ]


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["nothing found"]
    extra = ("cost", "times") if "cost" in rows[0] else ()
    every = ("model", "provider", *RATES, *extra, "context", "retired", "checked")
    columns = [name for name in every if any(row[name] is not None for row in rows)]
    cells = [columns, *([_cell(row[name]) for name in columns] for row in rows)]
    return aligned(cells, names=2)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
