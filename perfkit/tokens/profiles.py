"""What is known of a model before it was ever called, beside its price: how fast it is as a rule, and how good.

A dated table of models by the beginnings of their names, from the guides perfkit is a port of, with the application's
own rows (the setting `models`) over it. It is a prior: what was measured and what feedback says goes over both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from perfkit.errors import ConfigError, nearest
from perfkit.values import finite

__all__ = ["TABLE_FILE", "Profile", "Profiles"]

TABLE_FILE: Final = Path(__file__).with_name("profiles.json")


@dataclass(frozen=True, slots=True)
class Profile:
    """One model; None: not known.

    Attributes:
        quality: 0 to 1.
        first_token: seconds until the first text of a stream.
        tokens_per_second: of the answer.
        latency: seconds a call takes, as a rule.
        provider: whose it is; empty if that is not known.
    """

    quality: float | None = None
    first_token: float | None = None
    tokens_per_second: float | None = None
    latency: float | None = None
    provider: str = ""

    def seconds(self, tokens: int) -> float | None:
        """Return how long an answer of `tokens` takes."""
        if self.first_token is None or not self.tokens_per_second:
            return self.latency
        return self.first_token + tokens / self.tokens_per_second


NUMBERS: Final = tuple(name for name in Profile.__dataclass_fields__ if name != "provider")
UNKNOWN: Final = Profile()


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE_FILE.read_bytes())
    return table


@cache
def _shipped() -> dict[str, Profile]:
    return {name: Profile(**row) for name, row in _table()["models"].items()}


class Profiles:
    """The shipped table with an application's rows over it.

    Args:
        own: name to {"quality", "first_token", "tokens_per_second", "latency"}; a row replaces the shipped one.

    Raises:
        ConfigError: a row has an unknown key or a value that is no number of at least 0.
    """

    def __init__(self, own: Mapping[str, Any]) -> None:
        for model, row in own.items():
            _check(f"tokens.models[{model!r}]", row)
        self._own = {model: Profile(**row) for model, row in own.items()}
        self._found: dict[str, Profile] = {}  # by model; one that two threads look up is found twice, and is the same

    @property
    def usual(self) -> list[str]:
        """The models to choose among where nobody says which: the application's rows, else RAAF's."""
        return list(self._own or _table()["usual"])

    def find(self, model: str) -> Profile:
        """Return the profile whose name is the longest beginning of `model`'s; a vendor before a slash is passed over.

        An empty one is returned for a model that nothing is known of.
        """
        found = self._found.get(model)
        if found is None:
            found = self._own.get(model)
            if found is None:
                bare = model.rpartition("/")[2].lower()
                known = {**_shipped(), **self._own}
                name = max((name for name in known if bare.startswith(name)), key=len, default=None)
                found = known[name] if name is not None else UNKNOWN
            if len(self._found) < 1000:  # noqa: PLR2004 - names may come from outside
                self._found[model] = found
        return found


def _check(where: str, row: Any) -> None:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{where} must be a table of {', '.join(NUMBERS)}, not {row!r}", key=where)
    for key, value in row.items():
        if key not in NUMBERS:
            raise ConfigError(f"unknown {where}.{key}; known: {', '.join(NUMBERS)}{nearest(key, NUMBERS)}", key=where)
        try:
            finite(f"{where}.{key}", value, least=0)
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error), key=where) from None
