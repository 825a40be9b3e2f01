"""What a model costs and how much it can hold, as far as the price table knows."""

from __future__ import annotations

from functools import lru_cache
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
    if model is None:
        model = min(candidate.models, default=None) if candidate.models else None
        if model is None:
            return None
    from perfkit.tokens import TokenOptimizer

    optimizer = TokenOptimizer.instance()
    own_name = getattr(candidate.provider, "own_name", None)
    names = dict.fromkeys([own_name(model) if own_name is not None else model, model])
    found = (_found(name, id(optimizer.settings), optimizer) for name in names)
    return next((price for price in found if price is not None), None)


@lru_cache(maxsize=1024)
def _found(model: str, version: int, optimizer: TokenOptimizer) -> Any:  # noqa: ARG001 - new settings, new prices
    """Look a price up once: an unknown one is counted at every look-up."""
    return optimizer.price(model)
