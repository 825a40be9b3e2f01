"""Build the shipped price table from LiteLLM's: `python -m perfkit.tokens.build_prices LITELLM_JSON [--date D]`.

The chat models of the vendors that sell their own are taken over, with their prices turned to nano-dollars a token.
Models the new file lacks are kept from the table before, marked "retired", so that old usage can still be priced. Rows
that cost nothing at all are left out: in the source 0 stands for "free" and for "not known" alike.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit.clock import SYSTEM_CLOCK
from perfkit.tokens.pricing import TABLE_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["build", "main"]

# LiteLLM's provider to ours.
VENDORS = {name: name for name in ("openai", "anthropic", "gemini", "mistral", "deepseek", "groq", "xai", "cohere")}
VENDORS |= {"moonshot": "moonshot", "zai": "zai", "cohere_chat": "cohere"}
MODES = ("chat", "responses", "completion")
FIELDS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
}
TIER = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")
DATED = re.compile(r"(.+)-(\d{4}-\d{2}-\d{2}|20\d{6})")
ATTRIBUTION = {
    "source": "model_prices_and_context_window of LiteLLM, https://github.com/BerriAI/litellm",
    "licence": "MIT License, Copyright (c) 2023 Berri AI",
    "unit": "nano-dollars per token; context and max_output in tokens",
}


def _nano(dollars: Decimal) -> float:
    amount = Decimal(dollars) * 10**9
    return int(amount) if amount == amount.to_integral_value() else float(amount)


def _rates(entry: Mapping[str, Any], suffix: str = "") -> dict[str, float] | None:
    """Return the rates of one service or tier, None when it has no prices of its own."""
    rates = {
        ours: _nano(entry[field + suffix]) for ours, field in FIELDS.items() if entry.get(field + suffix) is not None
    }
    if "input" not in rates or "output" not in rates or not any(rates.values()):
        return None
    if rates.get("cache_write", rates["input"]) < rates["input"]:
        del rates["cache_write"]  # 0 for "nothing on top", and slips: nobody sells a written token below a plain one
    return rates


def _row(entry: Mapping[str, Any], date: str) -> dict[str, Any] | None:
    """Return our row of a LiteLLM entry, None when it has no price a token; retired, if that day is past at `date`."""
    rates = _rates(entry)
    if rates is None:
        return None
    row: dict[str, Any] = {"provider": VENDORS[entry["litellm_provider"]], **rates}
    tiers = {int(match[1]) * 1000: f"_above_{match[1]}k_tokens" for key in entry if (match := TIER.fullmatch(key))}
    priced = {str(above): _rates(entry, suffix) for above, suffix in sorted(tiers.items())}
    if found := {above: rates for above, rates in priced.items() if rates is not None}:
        row["tiers"] = found
    for ours, suffix in (("batch", "_batches"), ("priority", "_priority")):
        if (rates := _rates(entry, suffix)) is not None:
            row[ours] = rates
    if (ended := entry.get("deprecation_date")) and ended <= date:
        row["retired"] = ended
    limits = (("context", "max_input_tokens"), ("max_output", "max_output_tokens"))
    return row | {ours: int(entry[field]) for ours, field in limits if entry.get(field)}


def _models(source: Mapping[str, Any], date: str) -> dict[str, dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for key, entry in source.items():
        vendor = entry.get("litellm_provider")
        if vendor not in VENDORS or entry.get("mode") not in MODES:
            continue
        row, name = _row(entry, date), key.removeprefix(f"{vendor}/").lower()
        if row is not None and row["input"] >= models.get(name, row)["input"]:  # listed twice: the dearer one stays
            models[name] = row
    return models


def _aliases(models: Mapping[str, Any]) -> dict[str, str]:
    """Return undated names that have no row of their own, each with its newest dated one."""
    dated = [(match[1], name) for name in sorted(models) if (match := DATED.fullmatch(name))]
    return {family: name for family, name in dated if family not in models}


def build(source: Mapping[str, Any], *, date: str, previous: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the new table.

    Args:
        source: LiteLLM's file, numbers as Decimal or int.
        date: day the prices were taken, as YYYY-MM-DD.
        previous: the table before; its models stay when `source` has dropped them.
    """
    models = _models(source, date)
    for name, row in (previous["models"] if previous is not None else {}).items():
        models.setdefault(name, {**row, "retired": row.get("retired", date)})
    return {"date": date, **ATTRIBUTION, "aliases": _aliases(models), "models": dict(sorted(models.items()))}


def written(table: Mapping[str, Any]) -> str:
    """Return the table as JSON with one line a model, so that changes of prices read well in a diff."""
    head = [f"{json.dumps(key)}: {json.dumps(table[key])}" for key in table if key != "models"]
    rows = [f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in table["models"].items()]
    return "{\n" + ",\n".join(head) + ',\n"models": {\n' + ",\n".join(rows) + "\n}}\n"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    today = datetime.fromtimestamp(SYSTEM_CLOCK.wall(), UTC).date().isoformat()
    parser = argparse.ArgumentParser(prog="python -m perfkit.tokens.build_prices", description="Build the price table.")
    parser.add_argument("litellm_json", type=Path, help="LiteLLM's model_prices_and_context_window.json")
    parser.add_argument("--date", default=today, help="day the prices were taken (default: today)")
    parser.add_argument("--previous", type=Path, default=TABLE_FILE, help="table whose retired models are kept")
    parser.add_argument("--output", type=Path, default=TABLE_FILE, help="file to write (default: the shipped table)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Build the table and write it; say how many models are new, changed and retired."""
    arguments = _arguments(argv)
    source = json.loads(arguments.litellm_json.read_bytes(), parse_float=Decimal)
    previous = json.loads(arguments.previous.read_bytes()) if arguments.previous.exists() else None
    table = build(source, date=arguments.date, previous=previous)
    arguments.output.write_text(written(table), encoding="utf-8")
    before, after = (previous["models"] if previous is not None else {}), table["models"]
    changed = sum(1 for name, row in after.items() if name in before and before[name] != row)
    retired = sum(1 for row in after.values() if "retired" in row)
    sys.stdout.write(
        f"{len(after)} models, {len(after.keys() - before.keys())} new, {changed} changed, {retired} retired\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
