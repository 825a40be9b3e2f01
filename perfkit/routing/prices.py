"""What a model costs and how much it can hold, as far as the price table knows."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfkit.routing.health import Candidate
    from perfkit.tokens import TokenOptimizer

__all__ = ["cost_per_1k", "window_of"]

PROMPT_SHARE = 0.75  # of the tokens of a usual call


def cost_per_1k(candidate: Candidate, model: str | None) -> float | None:
    """Return dollars for 1,000 tokens, three quarters of them prompt, of `model` at this provider; None if unknown."""
    own = getattr(candidate.provider, "cost_per_1k", None)
    if isinstance(own, int | float):
        return float(own)
    price = _price(candidate, model)
    return None if price is None else (PROMPT_SHARE * price.input + (1 - PROMPT_SHARE) * price.output) / 1e6


def window_of(candidate: Candidate, model: str) -> int | None:
    """Return the tokens that a prompt and its answer may have together, None if unknown."""
    if candidate.terms.context_window is not None:
        return int(candidate.terms.context_window)
    price = _price(candidate, model)
    return None if price is None else price.context


def _price(candidate: Candidate, model: str | None) -> Any:
    """Look a price up once for the settings there are: an unknown one is counted at every look-up."""
    optimizer = _optimizers().instance()
    settings, known = optimizer.settings, candidate.prices.get(model)
    if known is None or known[0] is not settings:
        known = candidate.prices[model] = settings, _looked_up(candidate, model, optimizer)
    return known[1]


def _looked_up(candidate: Candidate, model: str | None, optimizer: TokenOptimizer) -> Any:
    if model is None:
        model = min(candidate.models, default=None) if candidate.models else None
        if model is None:
            return None
    own_name = getattr(candidate.provider, "own_name", None)
    names = dict.fromkeys([own_name(model) if own_name is not None else model, model])
    return next((price for name in names if (price := optimizer.price(name)) is not None), None)


@cache
def _optimizers() -> type[TokenOptimizer]:
    from perfkit.tokens import TokenOptimizer

    return TokenOptimizer
