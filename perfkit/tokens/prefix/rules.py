"""How each vendor caches the beginning of prompts: read from rules.json, dated and with the page each rule is from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CacheRule", "Life", "rule_of", "rules"]

RULES_FILE = Path(__file__).with_name("rules.json")


@dataclass(frozen=True, slots=True)
class Life:
    """One time to live: seconds since the last use, and what writing costs, in input tokens a token."""

    seconds: float
    write: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRule:
    """One vendor's way of caching prefixes.

    Attributes:
        name: of the rule.
        models: regular expression that finds it in a model's name.
        minimum: tokens below which nothing is cached, without a word.
        step: tokens that what is read from the cache is a multiple of.
        read: price of a cached token, in input tokens; the price table knows the model's own.
        ttls: times to live by their names, the default first.
        mark: key that marks a breakpoint on a content block; None: the vendor finds the prefix itself.
        breakpoints: that may be set in one request.
        lookback: blocks before a breakpoint in which an older breakpoint is found.
        implicit: the end of the prompt is a breakpoint without being marked.
        units: only a whole earlier prompt, or a prefix seen twice, is found (DeepSeek).
        system_first: the vendor puts the system prompt before the tools.
        key: parameter that keeps requests with one prefix together.
        source: where it is documented.
    """

    name: str
    models: str
    minimum: int
    read: float
    ttls: Mapping[str, Life]
    step: int = 1
    mark: str | None = None
    breakpoints: int = 0
    lookback: int = 0
    implicit: bool = False
    units: bool = False
    system_first: bool = False
    key: str | None = None
    source: str = field(default="", repr=False)

    @property
    def ttl(self) -> str:
        """The name of the default time to live."""
        return next(iter(self.ttls))


@cache
def rules() -> tuple[CacheRule, ...]:
    """Return all rules, the most particular first."""
    rows: list[dict[str, Any]] = json.loads(RULES_FILE.read_bytes())["rules"]
    return tuple(
        CacheRule(**{**row, "ttls": {name: Life(*life) for name, life in row["ttls"].items()}}) for row in rows
    )


@lru_cache(maxsize=1024)
def rule_of(model: str) -> CacheRule | None:
    """Return the rule that a model falls under, None for a vendor without one, or a server of one's own."""
    name = model.lower()
    return next((rule for rule in rules() if re.search(rule.models, name)), None)
