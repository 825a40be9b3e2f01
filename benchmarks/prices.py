"""Count how many prices agree with LiteLLM's table and with genai-prices, and name those that do not.

    python benchmarks/prices.py [--litellm model_prices_and_context_window.json] [--sources price_sources.json] [--json]

Both are looked at for 200 current chat models of the direct vendors, four usages each: plain, 6,000 of 8,000 prompt
tokens cached, 4,000 of them written to the cache, and 300,000 prompt tokens. LiteLLM's costs are computed from its file
by plain arithmetic in dollars; genai-prices by its own `calc_price`, where it is installed. With --sources, 50 prices
that both agree on are written down with the vendor's page and today's date.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from timeit import repeat
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.build_prices import MODES, VENDORS
from perfkit.tokens.pricing import TABLE_FILE, shipped
from perfkit.values import Usage

USAGES = {
    "plain": Usage(8_000, 500),
    "cached": Usage(8_000, 500, cached_tokens=6_000),
    "cache write": Usage(8_000, 500, cache_write_tokens=4_000),
    "long": Usage(300_000, 500),
}
NAMES = {"gemini": "google", "xai": "x-ai", "moonshot": "moonshotai"}
CHECKED, CURRENT = 50, 200
LONG = (100, 128, 200, 256, 272)


def current() -> list[str]:
    """Return models that are sold, newest names first within their vendor, all vendors in turn."""
    rows = {name: row for name, row in shipped()["models"].items() if "retired" not in row}
    return sorted(rows, key=lambda name: (name.count("-"), name))[:CURRENT]


def dollars(entry: dict[str, Any], usage: Usage) -> float:
    """Return what a call costs by an entry of LiteLLM's file."""
    above = [k for k in LONG if f"input_cost_per_token_above_{k}k_tokens" in entry and usage.prompt_tokens > k * 1000]
    suffix = f"_above_{max(above)}k_tokens" if above else ""

    def rate(field: str) -> float | None:
        found = entry.get(field + suffix)
        return found if found is not None or not suffix else (None if "cache" in field else entry.get(field))

    plain, output = rate("input_cost_per_token") or 0.0, rate("output_cost_per_token") or 0.0
    read, write = rate("cache_read_input_token_cost"), rate("cache_creation_input_token_cost")
    rest = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
    cost = rest * plain + usage.completion_tokens * output
    cost += usage.cached_tokens * (read if read is not None else plain)
    return cost + usage.cache_write_tokens * (write if write is not None else plain)


def with_litellm(path: Path, models: list[str]) -> dict[str, Any]:
    source = json.loads(path.read_bytes())
    theirs = {
        key.removeprefix(f"{entry['litellm_provider']}/").lower(): entry
        for key, entry in source.items()
        if entry.get("litellm_provider") in VENDORS and entry.get("mode") in MODES
    }
    return compared(models, lambda model, usage: dollars(theirs[model], usage) if model in theirs else None)


def with_genai_prices(models: list[str]) -> dict[str, Any] | None:
    try:
        from genai_prices import Usage as Theirs  # type: ignore[import-not-found, unused-ignore]
        from genai_prices import calc_price
    except ImportError:
        return None

    def cost(model: str, usage: Usage) -> float | None:
        vendor = shipped()["models"][model]["provider"]
        asked = Theirs(
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.completion_tokens,
        )
        try:
            return float(calc_price(asked, model, provider_id=NAMES.get(vendor, vendor)).total_price)
        except LookupError:
            return None

    return compared(models, cost)


def compared(models: list[str], cost: Any) -> dict[str, Any]:
    """Return the number of models known to the other side and of equal ones, and the differences."""
    optimizer = TokenOptimizer(tracker=PerformanceTracker())
    known, equal, apart = 0, [], {}
    for model in models:
        theirs = {name: cost(model, usage) for name, usage in USAGES.items()}
        if theirs["plain"] is None:
            continue
        known += 1
        ours = {name: optimizer.calculate_cost(usage, model) for name, usage in USAGES.items()}
        off = {
            name: [ours[name], theirs[name]]
            for name in USAGES
            if theirs[name] is None or abs((ours[name] or 0) - theirs[name]) > 2e-9 + 1e-6 * theirs[name]
        }
        if off:
            apart[model] = off
        else:
            equal.append(model)
    cells, cells_apart = known * len(USAGES), sum(map(len, apart.values()))
    shares = {"percent_of_costs": 100 * (1 - cells_apart / max(1, cells)), "percent": 100 * len(equal) / max(1, known)}
    return {"known": known, "equal": len(equal), **shares, "apart": apart, "_": equal}


def speed() -> dict[str, float]:
    optimizer, usage = TokenOptimizer(tracker=PerformanceTracker()), Usage(1000, 200, cached_tokens=500)
    optimizer.calculate_cost(usage, "gpt-4o")
    best = min(repeat(lambda: optimizer.calculate_cost(usage, "gpt-4o"), number=500, repeat=200)) / 500
    load = min(repeat(lambda: json.loads(TABLE_FILE.read_bytes()), number=1, repeat=100))
    return {"calculate_cost_us": best * 1e6, "load_ms": load * 1e3, "models": len(shipped()["models"])}


def write_sources(path: Path, agreed: list[str]) -> None:
    """Write the vendor's page and the date of 50 prices that two tables agree on, taken from all vendors in turn."""
    from genai_prices.data_snapshot import get_snapshot  # type: ignore[import-not-found, unused-ignore]

    pages = {provider.id: (provider.pricing_urls or [""])[0] for provider in get_snapshot().providers}
    by_vendor: dict[str, list[str]] = {}
    for model in agreed:
        by_vendor.setdefault(shipped()["models"][model]["provider"], []).append(model)
    chosen: list[str] = []
    while len(chosen) < CHECKED and any(by_vendor.values()):
        for models in by_vendor.values():
            if models and len(chosen) < CHECKED:
                chosen.append(models.pop(0))
    day = time.strftime("%Y-%m-%d")
    rows = {}
    for model in sorted(chosen):
        vendor = shipped()["models"][model]["provider"]
        rows[model] = {"source": pages[NAMES.get(vendor, vendor)], "date": day}
    head = {"what": "prices on which LiteLLM's table and genai-prices agree, with the vendor's page", "models": rows}
    path.write_text(json.dumps(head, indent=0) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--litellm", type=Path, help="LiteLLM's model_prices_and_context_window.json")
    parser.add_argument("--sources", type=Path, help="file to write 50 prices' sources and dates to")
    parser.add_argument("--quick", action="store_true", help="the same")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    models = current()
    found: dict[str, Any] = {"speed": speed(), "looked_at": len(models)}
    if options.litellm is not None:
        found["litellm"] = with_litellm(options.litellm, models)
    if (second := with_genai_prices(models)) is not None:
        found["genai-prices"] = second
    if options.sources is not None:
        both = [set(found[name]["_"]) for name in ("litellm", "genai-prices")]
        write_sources(options.sources, [model for model in models if all(model in one for one in both)])
    for table in ("litellm", "genai-prices"):
        found.get(table, {}).pop("_", None)
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    print(found["speed"])
    shown(found)


def shown(found: dict[str, Any]) -> None:
    for table in ("litellm", "genai-prices"):
        if table not in found:
            continue
        row = found[table]
        whole = f"{row['equal']} of {row['known']} models equal ({row['percent']:.1f} %)"
        print(f"{table}: {whole}, {row['percent_of_costs']:.1f} % of the costs; apart (ours, theirs):")
        for model, off in row["apart"].items():
            print(f"  {model:40}", {name: [f"{v:.6g}" for v in pair if v is not None] for name, pair in off.items()})


if __name__ == "__main__":
    main()
