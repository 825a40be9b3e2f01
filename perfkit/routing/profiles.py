"""What is known of a model before it was ever called: how long it takes, how good it is, and what it costs.

A dated table of models by the beginnings of their names, from the guides perfkit is a port of. It is a prior: what the
router has measured goes over it, prices come from the price table, and quality from whoever registered the provider.
Choosing under constraints never ends in a model that does not meet them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit.errors import NoAvailableProviderError
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perfkit.tokens import TokenOptimizer

__all__ = ["TABLE_FILE", "ModelProfile", "choose_model", "profile_of"]

TABLE_FILE = Path(__file__).with_name("profiles.json")
THOUSAND = Usage(750, 250)  # 1,000 tokens as chats have them: three of the prompt to one of the answer


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """One model at one provider; None where nothing is known.

    Attributes:
        latency: seconds a call takes, as a rule.
        first_token: seconds until the first text of a stream.
        tokens_per_second: of the answer.
        quality: 0..1.
        cost_per_1k: dollars for 1,000 tokens, a quarter of them in the answer.
        measured: the latency is what was measured here.
    """

    provider: str
    model: str
    latency: float | None = None
    first_token: float | None = None
    tokens_per_second: float | None = None
    quality: float | None = None
    cost_per_1k: float | None = None
    measured: bool = False

    def overlaid(self, **known: float | None) -> ModelProfile:
        """Return a copy with what is known, where it is known."""
        told = {name: value for name, value in known.items() if value is not None}
        return replace(self, **told, measured="latency" in told) if told else self  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@cache
def _table() -> dict[str, dict[str, Any]]:
    models: dict[str, dict[str, Any]] = json.loads(TABLE_FILE.read_bytes())["models"]
    return models


def profile_of(model: str, provider: str = "", optimizer: TokenOptimizer | None = None) -> ModelProfile:
    """Return the profile in the table whose name is the longest beginning of `model`'s, with today's price.

    Args:
        model: name; a vendor before a slash is passed over.
        provider: whose; empty for the vendor's own.
        optimizer: knows prices; None means the shared one.
    """
    if optimizer is None:
        from perfkit.tokens import TokenOptimizer

        optimizer = TokenOptimizer.instance()
    bare = model.rpartition("/")[2].lower()
    known = max((name for name in _table() if bare.startswith(name)), key=len, default=None)
    row = dict(_table()[known]) if known is not None else {}
    vendor = row.pop("provider", "")
    return ModelProfile(provider or vendor, model, cost_per_1k=optimizer.calculate_cost(THOUSAND, model), **row)


def choose_model(
    profiles: Iterable[ModelProfile],
    *,
    max_latency: float | None = None,
    min_quality: float | None = None,
    max_cost_per_1k: float | None = None,
) -> ModelProfile:
    """Return the fastest of the profiles that meet all constraints (AgentiCraft 4); what is not known meets none.

    Args:
        profiles: to choose from.
        max_latency: seconds.
        min_quality: 0..1.
        max_cost_per_1k: dollars for 1,000 tokens.

    Raises:
        NoAvailableProviderError: none does; the message names the constraint that stands in the way and who is nearest,
            and `reasons` says for each model what it lacks.
    """
    offered = list(profiles)
    limits = {"max_latency": max_latency, "min_quality": min_quality, "max_cost_per_1k": max_cost_per_1k}
    wanted = {name: limit for name, limit in limits.items() if limit is not None}
    meeting = [profile for profile in offered if not _broken(profile, wanted)]
    if not meeting:
        raise _nobody(offered, wanted)
    return min(meeting, key=_speed)


def _speed(profile: ModelProfile) -> tuple[float, float, float]:
    unknown = float("inf")
    latency, cost = profile.latency, profile.cost_per_1k
    return (
        unknown if latency is None else latency,
        -(profile.quality or 0.0),
        unknown if cost is None else cost,
    )


def _value(profile: ModelProfile, name: str) -> float | None:
    value: float | None = getattr(profile, name.partition("_")[2])
    return value


def _broken(profile: ModelProfile, wanted: Mapping[str, float]) -> list[str]:
    """Return the constraints that a profile does not meet."""
    return [name for name, limit in wanted.items() if not _meets(_value(profile, name), name, limit)]


def _meets(value: float | None, name: str, limit: float) -> bool:
    return value is not None and (value >= limit if name.startswith("min_") else value <= limit)


def _nobody(offered: list[ModelProfile], wanted: Mapping[str, float]) -> NoAvailableProviderError:
    broken = {profile: _broken(profile, wanted) for profile in offered}
    reasons = {
        f"{profile.provider}/{profile.model}": ", ".join(_lack(profile, name) for name in names)
        for profile, names in broken.items()
    }
    if not offered:
        return NoAvailableProviderError("no model to choose from: no provider names its models", reasons=reasons)
    # What binds is what alone keeps a model out; if nothing does, those that keep out the model with the fewest.
    fewest = min(len(names) for names in broken.values())
    binding = sorted({name for names in broken.values() if len(names) == fewest for name in names})
    told = "; ".join(f"{name}={wanted[name]:g} keeps them out, {_nearest(offered, name)}" for name in binding)
    return NoAvailableProviderError(f"no model meets the constraints: {told}", reasons=reasons, binding=binding)


def _lack(profile: ModelProfile, name: str) -> str:
    value, word = _value(profile, name), name.partition("_")[2]
    return f"{word} is unknown" if value is None else f"{word} is {value:g}"


def _nearest(offered: list[ModelProfile], name: str) -> str:
    known = {profile: value for profile in offered if (value := _value(profile, name)) is not None}
    if not known:
        return f"{name.partition('_')[2]} is unknown of all"
    best = (max if name.startswith("min_") else min)(known, key=known.__getitem__)
    return f"nearest is {best.provider}/{best.model} with {known[best]:g}"


def together(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what several rows of `tracker.get_performance_summary()` say together."""
    listed = list(rows)
    requests = sum(row["requests"] for row in listed)
    well = sum(row["requests"] * row["success_rate"] for row in listed)
    seconds = sum(row["avg_latency_ms"] / 1000 * row["requests"] * row["success_rate"] for row in listed)
    costs = [row["total_cost"] for row in listed if row["total_cost"] is not None]
    return {
        "requests": requests,
        "avg_latency": seconds / well if well else None,
        "success_rate": well / requests if requests else None,
        "total_cost": sum(costs) if costs else None,
    }
