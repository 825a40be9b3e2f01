"""One measured call: the provider is asked directly, as a stream, and what came of it is a Sample.

Neither cache nor router stand between, and nothing is retried: what is measured is the provider and the way to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfkit.errors import (
    AuthenticationError,
    NetworkError,
    ProviderError,
    RateLimitError,
    ResponseFormatError,
    StreamInterruptedError,
    TransportError,
)
from perfkit.tokens import TokenOptimizer

if TYPE_CHECKING:
    from perfkit.clock import Clock
    from perfkit.values import ChatRequest, Usage

__all__ = ["ERROR_KINDS", "Sample", "ask"]

ERROR_KINDS = ("connect", "timeout", "429", "5xx", "4xx", "stream_cut", "bad_json", "no_key", "other")
_SERVER_ERROR = 500
_KINDS: tuple[tuple[type[Exception], str], ...] = (  # the first that fits
    (TimeoutError, "timeout"),
    (StreamInterruptedError, "stream_cut"),
    (ResponseFormatError, "bad_json"),
    (RateLimitError, "429"),
    (TransportError, "connect"),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    Attributes:
        due: seconds since its case began, when it was to be sent.
        waited: seconds it was sent late, because all places were taken (open loop).
        seconds: from `due` to the end of the answer.
        first_token: seconds from `due` to the first text; None without any.
        usage: tokens; None when it failed.
        cost: US dollars; None when the price is unknown or it failed.
        error: one of ERROR_KINDS, None when it was answered.
        message: what the error said.
    """

    due: float
    waited: float
    seconds: float
    first_token: float | None = None
    usage: Usage | None = None
    cost: float | None = None
    error: str | None = None
    message: str = ""

    @property
    def per_token(self) -> float | None:
        """Seconds for each token after the first; None where there are fewer than two."""
        if self.first_token is None or self.usage is None or self.usage.completion_tokens < 2:  # noqa: PLR2004 - n - 1
            return None
        return (self.seconds - self.first_token) / (self.usage.completion_tokens - 1)


def ask(provider: Any, request: ChatRequest, *, clock: Clock, began: float, due: float) -> Sample:
    """Send one request to a provider and read its answer to the end; an error becomes part of the sample."""
    at = began + due
    waited, first = max(0.0, clock.now() - at), None
    deltas = provider.stream(request) if hasattr(provider, "stream") else _whole(provider, request)
    try:
        while True:
            try:
                next(deltas)
            except StopIteration as end:
                response = end.value
                break
            first = first if first is not None else clock.now() - at
    except Exception as error:
        return Sample(due, waited, clock.now() - at, first, error=kind_of(error), message=str(error))
    seconds = clock.now() - at
    cost = TokenOptimizer.instance().calculate_cost(response.usage, response.model)
    return Sample(due, waited, seconds, first, response.usage, cost)


def _whole(provider: Any, request: ChatRequest) -> Any:
    response = provider.chat_completion(request)
    yield response.text
    return response


def kind_of(error: Exception) -> str:
    """Return the one of ERROR_KINDS that an error is."""
    if isinstance(error, NetworkError) and error.sent:
        return "stream_cut"
    found = next((name for kind, name in _KINDS if isinstance(error, kind)), "other")
    if found == "other" and isinstance(error, ProviderError):
        return "no_key" if isinstance(error, AuthenticationError) and error.status is None else _by_status(error.status)
    return found


def _by_status(status: int | None) -> str:
    if status is None:
        return "other"
    return "5xx" if status >= _SERVER_ERROR else "4xx"
