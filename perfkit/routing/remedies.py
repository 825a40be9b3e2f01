"""Another model instead of an error: a larger one, a cheaper one, a better one, or one with another policy.

`[router] fallbacks` says which: {"context_window": {"small": ["large"]}, "content_filter": {...}, "cost": {...},
"quality": {...}}, with "*" for any model. Only for a prompt that is too long is there an answer without it: the model
with the smallest known window that holds the prompt, of those the providers offer by name. What a content filter has
refused is never sent to anybody who is not named for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfkit.routing.fitness import tokens_of
from perfkit.routing.prices import window_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfkit.routing.course import Setup
    from perfkit.values import ChatRequest

__all__ = ["KINDS", "models_for"]

KINDS = ("context_window", "content_filter", "cost", "quality")


def models_for(kind: str, request: ChatRequest, first: str, setup: Setup) -> Iterable[str]:
    """Return the models to ask instead, the first one first; `first` is the model that was asked in the beginning."""
    table = setup.settings.fallbacks.get(kind, {})
    listed = table.get(request.model, table.get(first, table.get("*")))
    if listed is not None:
        return (listed,) if isinstance(listed, str) else tuple(listed)
    return _larger(request, setup) if kind == "context_window" else ()


def _larger(request: ChatRequest, setup: Setup) -> list[str]:
    own = _window(request.model, setup)
    wanted = max(tokens_of(request), (own or 0) + 1)
    windows = {model: _window(model, setup) for model in setup.models() if model != request.model}
    return sorted(
        (model for model, window in windows.items() if window is not None and window >= wanted),
        key=lambda model: (windows[model] or 0, model),
    )


def _window(model: str, setup: Setup) -> int | None:
    known = [window for one in setup.offers(model) if (window := window_of(one, model)) is not None]
    return max(known, default=None)
