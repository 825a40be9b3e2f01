"""Who is fit for a request at all, before any strategy chooses: capabilities, size, and the limits the caller sets.

What is not known of a provider is not held against it, except where the caller sets a limit: an unknown price is not
below one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.routing.prices import cost_per_1k, window_of
from perfkit.values import ChatRequest, finite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit._settings import RouterSettings
    from perfkit.routing.health import Candidate

__all__ = ["NO_LIMITS", "Limits", "holds", "needs", "unfit"]

_PARTS = {"image_url": "vision", "image": "vision", "input_audio": "audio", "audio": "audio"}


class Limits(NamedTuple):
    """What the caller demands of whoever answers (AgentiCraft's select_optimal_model).

    Attributes:
        max_latency: expected seconds of an attempt.
        min_quality: 0..1.
        max_cost: dollars per 1,000 tokens.
    """

    max_latency: float | None = None
    min_quality: float | None = None
    max_cost: float | None = None

    @classmethod
    def of(cls, settings: RouterSettings, given: Mapping[str, Any] | None) -> Limits:
        """Return the settings' limits with those of `given` over them.

        Raises:
            TypeError, ValueError: one of them is no number.
        """
        known = {name: getattr(settings, name) for name in cls._fields}
        for name, value in (given or {}).items():
            if name in known and value is not None:
                known[name] = finite(name, value, least=0)
        return cls(**known)

    def broken_by(self, candidate: Candidate, model: str | None) -> str | None:
        """Return the limit that `candidate` does not keep, None if it keeps all."""
        latency = candidate.latency
        if self.max_latency is not None and latency is not None and latency > self.max_latency:
            return f"max_latency {self.max_latency:g} s: it takes {latency:.2f} s"
        if self.min_quality is not None and candidate.quality < self.min_quality:
            return f"min_quality {self.min_quality:g}: it has {candidate.quality:.2f}"
        if self.max_cost is not None:
            cost = cost_per_1k(candidate, model)
            if cost is None or cost > self.max_cost:
                told = "its price is unknown" if cost is None else f"it costs ${cost:.6f}"
                return f"max_cost ${self.max_cost:g} per 1,000 tokens: {told}"
        return None


NO_LIMITS = Limits()


def needs(request: Any, *, streaming: bool = False) -> frozenset[str]:
    """Return the capabilities that a request asks for."""
    if not isinstance(request, ChatRequest):
        return frozenset()
    found = {"streaming"} if streaming else set()
    if request.tools:
        found.add("tools")
    if request.response_format is not None:
        found.add("json")
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, list | tuple):
            found.update(_PARTS[part["type"]] for part in content if part.get("type") in _PARTS)
    return frozenset(found)


def unfit(candidate: Candidate, request: Any, limits: Limits, *, streaming: bool = False) -> str | None:
    """Return why `candidate` cannot serve a request, None if it can as far as is known."""
    able = candidate.terms.capabilities
    if able is not None and (missing := needs(request, streaming=streaming) - able):
        return f"cannot do {', '.join(sorted(missing))}"
    if (
        candidate.terms.context_window is not None
        and isinstance(request, ChatRequest)
        and not holds(candidate, request)
    ):
        return f"its context window of {candidate.terms.context_window} tokens is too small"
    if limits is NO_LIMITS or limits == NO_LIMITS:
        return None
    model = request.model if isinstance(request, ChatRequest) else None
    return limits.broken_by(candidate, model)


def holds(candidate: Candidate, request: ChatRequest) -> bool:
    """Whether the model's context window at `candidate`, if known, has room for the prompt and the wanted answer."""
    window = window_of(candidate, request.model)
    return window is None or tokens_of(request) <= window


def tokens_of(request: ChatRequest) -> int:
    """Return the tokens of the prompt and the bound of the answer."""
    from perfkit.tokens import TokenOptimizer

    prompt = TokenOptimizer.instance().count_tokens(request.messages, request.model)
    return prompt + (request.max_tokens or 0)
