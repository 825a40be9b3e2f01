"""What is known of a model before it was ever called: how long it takes, how good it is, and what it costs.

Speed and quality are the token optimizer's, and so is the price: the router lays over them what it has measured, and
the quality from whoever registered the provider.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perfkit.tokens import TokenOptimizer
    from perfkit.tokens.constraints import Choice

__all__ = ["DEFAULT", "ModelProfile", "profile_of", "together"]

DEFAULT = "default"  # model name that means whatever the chosen provider is there for
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

    def choice(self) -> Choice:
        """Return it as something to choose by constraints."""
        from perfkit.tokens.constraints import Choice

        return Choice(
            self.model,
            seconds=self.latency,
            quality=self.quality,
            cost_per_1k=self.cost_per_1k,
            provider=self.provider,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def profile_of(model: str, provider: str = "", optimizer: TokenOptimizer | None = None) -> ModelProfile:
    """Return the profile of a model, with its price.

    Args:
        model: its name.
        provider: whose; empty for the vendor's own.
        optimizer: knows profiles and prices; None means the shared one.
    """
    if optimizer is None:
        from perfkit.tokens import TokenOptimizer

        optimizer = TokenOptimizer.instance()
    known = optimizer.profile(model)
    return ModelProfile(
        provider or known.provider,
        model,
        known.latency,
        known.first_token,
        known.tokens_per_second,
        known.quality,
        optimizer.calculate_cost(THOUSAND, model),
    )


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
