"""What tokens cost: a dated table of vendors' prices shipped with the package, and the arithmetic on it.

Money is counted in nano-dollars: a total is a whole number, so sums are exact, and a million tokens at $1 cost 1000
nano-dollars each. Models are found under the names people and vendors use for them, dated, prefixed or fine-tuned. A
model that is not found has no price, which is not the same as a price of 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit.errors import ConfigError, nearest
from perfkit.values import Usage, finite

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NANO", "Price", "PriceTable", "Rates", "as_usage", "from_nano", "to_nano"]

NANO = 10**9
TABLE_FILE = Path(__file__).with_name("prices.json")
RATES = ("input", "output", "cache_read", "cache_write")

# Names a vendor goes by before the slash of "vendor/model".
_VENDORS = {"google": "gemini", "models": "gemini", "x-ai": "xai", "mistralai": "mistral", "moonshotai": "moonshot"}
_VENDORS |= {"z-ai": "zai", "cohere_chat": "cohere"}
_FINE_TUNED = re.compile(r"(?<![^/])(ft:[^:]+):.*")  # the base model; what follows names the owner
# What may be cut from a name to find its undated family: a date, a revision number or "latest".
_DATE = re.compile(r"[-@](?:\d{4}-\d{2}-\d{2}|20\d{6}|00\d|latest)$")


def to_nano(dollars: float) -> int:
    """Return US dollars as whole nano-dollars."""
    return round(dollars * NANO)


def from_nano(amount: int) -> float:
    """Return nano-dollars as US dollars."""
    return amount / NANO


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Nano-dollars a token, whole but for the cheapest, which end in a half.

    Attributes:
        cache_read: of prompt tokens the vendor had cached; None: they cost as any other.
        cache_write: of prompt tokens the vendor now caches; None: they cost as any other.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None

    def cost(self, usage: Usage) -> int:
        """Return nano-dollars for the tokens of one call, rounded once."""
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        total = max(0, usage.prompt_tokens - cached - written) * self.input + usage.completion_tokens * self.output
        total += cached * (self.cache_read if self.cache_read is not None else self.input)
        total += written * (self.cache_write if self.cache_write is not None else self.input)
        return round(total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Rates):
    """All prices of a model.

    Attributes:
        model: name in the table.
        tiers: prompt tokens and the rates of the whole request above so many, highest first.
        batch: rates of the vendor's batch interface.
        priority: rates of its priority service.
        context: tokens a prompt may have.
        max_output: tokens an answer may have.
        retired: day the source dropped the model, as YYYY-MM-DD; None while it is sold.
    """

    model: str
    provider: str = ""
    tiers: tuple[tuple[int, Rates], ...] = ()
    batch: Rates | None = None
    priority: Rates | None = None
    context: int | None = None
    max_output: int | None = None
    retired: str | None = None

    def cost(self, usage: Usage) -> int:
        """Return nano-dollars for the tokens of one call, at the long-context rates where they apply."""
        for above, rates in self.tiers:
            if usage.prompt_tokens > above:
                return rates.cost(usage)
        return Rates.cost(self, usage)


def as_usage(usage: Usage | Mapping[str, Any]) -> Usage:
    """Return `usage` as Usage.

    Raises:
        ValueError: a mapping has neither "prompt_tokens" nor "completion_tokens", so that its cost cannot be told.
    """
    if isinstance(usage, Usage):
        return usage
    if "prompt_tokens" not in usage and "completion_tokens" not in usage:
        raise ValueError(f"usage needs 'prompt_tokens' and 'completion_tokens'; it has {', '.join(usage) or 'nothing'}")
    return Usage.from_dict({"prompt_tokens": 0, "completion_tokens": 0, **usage})


@cache
def shipped() -> dict[str, Any]:
    """Return the shipped table, read on first use: "date", "models" and "aliases"."""
    table: dict[str, Any] = json.loads(TABLE_FILE.read_bytes())
    return table


def _price(model: str, row: Mapping[str, Any]) -> Price:
    values = {name: row[name] for name in (*RATES, "provider", "context", "max_output", "retired") if name in row}
    values |= {name: Rates(**row[name]) for name in ("batch", "priority") if name in row}
    tiers = [(int(above), Rates(**rates)) for above, rates in row.get("tiers", {}).items()]
    return Price(model=model, tiers=tuple(sorted(tiers, key=lambda tier: -tier[0])), **values)


def own_price(model: str, row: Any, *, where: str) -> Price:
    """Return the price in a settings row: US dollars a million tokens.

    Raises:
        ConfigError: "input" or "output" is missing, another key is unknown or a value is not a number of at least 0.
    """
    if not isinstance(row, Mapping):
        raise ConfigError(f'{where} must be a table such as {{"input": 0.5, "output": 1.5}}, not {row!r}', key=where)
    for key in row:
        if key not in RATES:
            raise ConfigError(f"unknown {where}.{key}; known: {', '.join(RATES)}{nearest(key, RATES)}", key=where)
    for key in ("input", "output"):
        if key not in row:
            raise ConfigError(f"{where} needs {key!r}, in US dollars a million tokens", key=where)
    try:
        rates: dict[str, Any] = {
            key: round(finite(f"{where}.{key}", value, least=0) * 1000, 6) for key, value in row.items()
        }  # a dollar a million is 1000 nano-dollars each; 0.28 * 1000 is a little more than 280
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error), key=where) from None
    return Price(model=model, **rates)


class PriceTable:
    """The shipped prices with a user's own laid over them; found prices are remembered.

    Args:
        own: model to {"input", "output", "cache_read", "cache_write"} in US dollars a million tokens.
        fallback: the same for every model that is not found.

    Raises:
        ConfigError: a row of `own` or `fallback` is wrong.
    """

    def __init__(self, own: Mapping[str, Any], fallback: Mapping[str, Any] | None = None) -> None:
        self._own = {name.lower(): own_price(name, row, where=f"tokens.prices[{name!r}]") for name, row in own.items()}
        self.fallback = own_price("fallback", fallback, where="tokens.fallback_price") if fallback is not None else None
        self.find = lru_cache(maxsize=1024)(self._find)  # written in C: 0.1 us, and needs no lock

    def _find(self, model: str) -> Price | None:
        """Return the price of `model`, or None; the fallback is the caller's business."""
        names = list(candidates(model.lower()))
        models = shipped()["models"]
        own = next((self._own[name] for name in names if name in self._own), None)
        return own if own is not None else next((_price(name, models[name]) for name in names if name in models), None)


def candidates(model: str) -> Iterator[str]:
    """Yield the names a model's price may stand under, most exact first.

    "ft:gpt-4o-2024-08-06:org::id" is looked up as "ft:gpt-4o-2024-08-06" and never as its base, which is cheaper.
    """
    yield model
    model = _FINE_TUNED.sub(r"\1", model)
    vendor, slash, rest = model.partition("/")
    table = shipped()
    if slash and _of_vendor(rest, _VENDORS.get(vendor, vendor)):
        model = rest
    family = _DATE.sub("", model)
    for name in (model, family, f"{family}-latest"):
        yield name
        if name in table["aliases"]:
            yield table["aliases"][name]


def _of_vendor(model: str, vendor: str) -> bool:
    """Tell whether the table has `model`, dated or not, from `vendor`."""
    table = shipped()
    names = (model, _DATE.sub("", model))
    rows = (table["models"].get(table["aliases"].get(name, name)) for name in names)
    return any(row is not None and row["provider"] == vendor for row in rows)
