"""Every error perfkit raises: what failed, where, how much, and what to do, with the data as attributes.

Each class also inherits the standard library's nearest kin, so that `except TimeoutError` and `except ValueError` work,
and survives pickling, so that it crosses process borders (Celery results, multiprocessing) whole.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from perfkit.values import AgentResult, Attempt

__all__ = [
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "ConfigError",
    "ContentFilterError",
    "ContextWindowExceededError",
    "DeadlineExceeded",
    "MaxRetriesExceededError",
    "MaxRoundsExceededError",
    "ModelNotFoundError",
    "NetworkError",
    "NoAvailableProviderError",
    "NoModelFitsError",
    "OverloadedError",
    "PerfkitError",
    "PoolTimeout",
    "ProviderError",
    "RateLimitError",
    "RecursiveCallError",
    "ResponseFormatError",
    "ServerError",
    "StateUnavailableError",
    "StreamInterruptedError",
    "TransportError",
    "UnknownModelError",
    "UnknownNameError",
]


def _rebuild(cls: type[PerfkitError], args: tuple[Any, ...], data: dict[str, Any]) -> PerfkitError:
    error = cls(*args)
    error.__dict__.update(data)
    return error


class PerfkitError(Exception):
    """Base of all perfkit errors: a message for people, keyword data as attributes for programs.

    Attributes:
        attempts: each `Attempt` of the call that ended with this error, in order; empty when no provider was asked.
    """

    attempts: tuple[Attempt, ...] = ()

    def __init__(self, message: str = "", **data: Any) -> None:
        super().__init__(message)
        self.__dict__.update(data)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class ConfigError(PerfkitError, ValueError):
    """A setting is unknown or has a value that cannot be used; raised before anything changes."""

    key: str = ""


class UnknownNameError(PerfkitError, KeyError):
    """A registry, provider or agent type has nothing by that name."""

    name: str = ""
    known: tuple[str, ...] = ()

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
        """Build the usual message: no <kind> <name>; known: ...; plus the nearest known name."""
        names = tuple(sorted(known))
        return cls(
            f"no {kind} {name!r}; known: {', '.join(names) or 'none'}{nearest(name, names)}", name=name, known=names
        )


class UnknownModelError(PerfkitError, ValueError):
    """No registered provider offers the model."""

    model: str | None = None


class TransportError(PerfkitError):
    """The request did not come back whole.

    Attributes:
        host: host and port asked.
        attempt: 1 for the first try.
        elapsed: seconds since the call began.
        sent: False when it is certain that the server never started the request.
    """

    host: str = ""
    attempt: int = 1
    elapsed: float = 0.0
    sent: bool = True


class NetworkError(TransportError, ConnectionError):
    """Refused, reset, unreachable, cut off, or a failed TLS handshake."""


class PoolTimeout(TransportError, TimeoutError):  # noqa: N818 - the name is the field's own
    """No pooled object became free in time."""

    sent = False


class DeadlineExceeded(TransportError, TimeoutError):  # noqa: N818 - the name is the field's own
    """The time given to the whole call, or to one wait on the network, ran out."""


class ProviderError(PerfkitError):
    """A provider answered, and the answer is an error.

    Attributes:
        provider: registered name of the provider.
        model: model asked for.
        status: HTTP status.
        code: the provider's own error code or type.
        retry_after: seconds the provider asked to wait, None when it did not say.
        should_retry: the provider's own word on asking it again (`x-should-retry`), None when it did not say.
        request_id: the provider's id of the request.
    """

    provider: str = ""
    model: str | None = None
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    should_retry: bool | None = None
    request_id: str | None = None


class BadRequestError(ProviderError, ValueError):
    """The request itself is wrong (400, 413, 422): no other provider would take it either."""


class ContextWindowExceededError(BadRequestError):
    """The prompt and the wanted answer do not fit the model's context window."""


class ContentFilterError(BadRequestError):
    """The provider's content policy refused the request."""


class AuthenticationError(ProviderError, PermissionError):
    """The key is missing, wrong or not allowed to (401, 402, 403), or its account may not spend more (402, 429)."""


class ModelNotFoundError(ProviderError, LookupError):
    """The provider does not have the model (404)."""


class RateLimitError(ProviderError):
    """Too many requests or tokens (429); `retry_after` says how long to wait if the provider told."""


class ServerError(ProviderError):
    """The provider failed (5xx, 529)."""


class ResponseFormatError(ProviderError, ValueError):
    """The reply is not what the wire format promises: not JSON, cut off, or without an answer."""


class StreamInterruptedError(ProviderError, ConnectionError):
    """A stream broke after output had been shown.

    Attributes:
        partial: the text received before.
    """

    partial: str = ""


class NoAvailableProviderError(PerfkitError):
    """Providers for the model are known, but none may be used now.

    Attributes:
        reasons: why not, by provider name.
    """

    reasons: Mapping[str, str] = {}


class NoModelFitsError(NoAvailableProviderError, ValueError):
    """No model keeps to the constraints; the message names those that bind and who is nearest.

    Attributes:
        binding: the constraints that keep the models out.
    """

    binding: Sequence[str] = ()


class OverloadedError(NoAvailableProviderError):
    """The limits set for the providers are used up, and the queue is full or was too slow: the call was shed."""


class MaxRetriesExceededError(PerfkitError):
    """Every allowed attempt failed; `attempts` has them."""


class BudgetExceededError(PerfkitError):
    """A budget has too little left for the call; nothing was sent.

    Attributes:
        scope: which budget, for example `("user", "42")`; `("request", id)` is that of a request of the application.
        period: "request", "minute", "day", "month" or "total".
        limit: US dollars allowed in the period.
        spent: US dollars spent or held now.
        held: the part of `spent` that calls under way may give back.
        needed: US dollars the call may cost.
        until: epoch seconds when the period ends, None when it never does.
    """

    scope: tuple[str, str] = ("", "")
    period: str = "request"
    limit: float = 0.0
    spent: float = 0.0
    held: float = 0.0
    needed: float = 0.0
    until: float | None = None


class StateUnavailableError(PerfkitError, ConnectionError):
    """The store that processes share is away or refuses a command; perfkit's rooms go on without it."""


class MaxRoundsExceededError(PerfkitError, RuntimeError):
    """A model went on calling tools for as many rounds as its agent may have.

    Attributes:
        result: what was said and done until then.
    """

    result: AgentResult | None = None


class RecursiveCallError(PerfkitError, RuntimeError):
    """A computation asked the cache for the very key it is computing; waiting would never end."""


def unread_settings() -> str:
    """Return a hint where Django or Flask has settings for perfkit that nothing has read, or an empty string."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    read = "perfkit.integrations.django.apps" in sys.modules
    given = settings is not None and settings.configured and getattr(settings, "PERFKIT", None) is not None
    if given and not read:
        return "; settings.PERFKIT is not read: add 'perfkit.integrations.django' to INSTALLED_APPS"
    if read and not given:
        return "; Django's settings have no PERFKIT"
    app = getattr(sys.modules.get("flask"), "current_app", None)  # false outside of a request
    if app and app.config.get("PERFKIT") is not app.extensions.get("perfkit.settings"):
        return "; app.config['PERFKIT'] is not read: set it before Perfkit(app)"
    if app and "perfkit" in app.extensions and app.config.get("PERFKIT") is None:
        return "; app.config has no 'PERFKIT'"
    return ""


def nearest(name: object, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name closest to `name`, or an empty string."""
    from difflib import get_close_matches

    by_lower = {one.lower(): one for one in known}
    close = get_close_matches(str(name).lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""
