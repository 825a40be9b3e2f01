"""What is answered when every provider failed: a text, what a callable makes of the request and the error, or STALE.

STALE is the answer that the cache gave last, which only the pipeline can look up: to a router alone it means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perfkit.errors import (
    BadRequestError,
    MaxRetriesExceededError,
    NoAvailableProviderError,
    ProviderError,
    TransportError,
)
from perfkit.values import ChatResponse, Usage

if TYPE_CHECKING:
    from perfkit.metrics import PerformanceTracker
    from perfkit.values import ChatRequest

__all__ = ["FALLBACK", "STALE", "FallbackResponse", "answer_instead", "hopeless"]

FALLBACK = "fallback"  # the provider's name in such an answer
STALE = "stale"  # in the place of a text: the kept answer, though its time is over
FallbackResponse = str | Callable[["ChatRequest", BaseException], Any]
_HOPELESS = (NoAvailableProviderError, MaxRetriesExceededError, ProviderError, TransportError)


def hopeless(error: BaseException) -> bool:
    """Whether an error means that the providers failed, rather than that the request or a budget is wrong."""
    return isinstance(error, _HOPELESS) and not isinstance(error, BadRequestError)


def answer_instead(
    fallback: FallbackResponse, request: ChatRequest, error: BaseException, tracker: PerformanceTracker
) -> ChatResponse:
    """Return the answer in the place of an error: from provider "fallback", at cost 0, with the attempts made.

    Args:
        fallback: the text, or what is called with the request and the error and returns a text or a ChatResponse.
        request: what was asked.
        error: why there is no answer.
        tracker: counts it as `fallback_response`.

    Raises:
        TypeError: the callable returned neither.
    """
    made = fallback(request, error) if callable(fallback) else fallback
    if isinstance(made, str):
        made = ChatResponse(made, Usage(0, 0), request.model, FALLBACK, finish_reason="stop")
    if not isinstance(made, ChatResponse):
        raise TypeError(f"fallback_response must be or return a text or a ChatResponse, not {made!r}") from error
    tracker.increment("fallback_response", tags={"model": request.model, "error": type(error).__name__})
    return made.evolve(provider=FALLBACK, cost=0.0, attempts=getattr(error, "attempts", ()))
