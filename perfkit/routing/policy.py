"""What each error of a provider means: for its breaker, for other providers, and for asking it again.

The same request is never executed twice at one provider: it is asked again only after errors which tell that the
request was not served, or where the provider itself says so (`x-should-retry`, which the vendors' SDKs obey too).
Trying another provider after a timeout is a second request, counted as one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from perfkit.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ContentFilterError,
    ContextWindowExceededError,
    ModelNotFoundError,
    NetworkError,
    PerfkitError,
    PoolTimeout,
    ProviderError,
    RateLimitError,
    ServerError,
    TransportError,
)

if TYPE_CHECKING:
    from perfkit.resilience.breaker import Event

__all__ = ["TABLE", "Verdict", "backoff", "judge", "trouble"]


class Verdict(NamedTuple):
    """What follows from an error.

    Attributes:
        event: what the provider's breaker is told.
        elsewhere: another provider may be asked; False raises the error at once.
        again: the same provider may be asked again, after a wait.
    """

    event: Event
    elsewhere: bool
    again: bool = False


# The nearest base class listed here decides.
TABLE: dict[type[BaseException], Verdict] = {
    BadRequestError: Verdict("success", elsewhere=False),  # the caller's fault, told by a healthy provider
    AuthenticationError: Verdict("fatal", elsewhere=True),  # quarantine: no key gets better by asking five times
    ModelNotFoundError: Verdict("success", elsewhere=True),  # quarantine of that model only
    RateLimitError: Verdict("abandoned", elsewhere=True, again=True),  # cooldown, not ill health
    ServerError: Verdict("failure", elsewhere=True, again=True),
    ProviderError: Verdict("failure", elsewhere=True),  # an answer nobody can read was paid for all the same
    PoolTimeout: Verdict("abandoned", elsewhere=True),  # our own pool was full
    TransportError: Verdict("failure", elsewhere=True),  # it may have been executed
    PerfkitError: Verdict("abandoned", elsewhere=False),  # a budget, a setting: nobody else would help
    Exception: Verdict("failure", elsewhere=True),  # what custom providers raise
    BaseException: Verdict("abandoned", elsewhere=False),  # the thread is being torn away
}
_NOT_SENT = Verdict("failure", elsewhere=True, again=True)


def judge(error: BaseException) -> Verdict:
    """Return what follows from `error`."""
    if isinstance(error, NetworkError) and not error.sent:
        return _NOT_SENT
    if type(error).__name__ == "SoftTimeLimitExceeded":  # Celery ends the task; it is an Exception, yet not a failure
        return TABLE[BaseException]
    verdict = next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    told = error.should_retry if isinstance(error, ProviderError) else None
    return verdict if told is None or not verdict.elsewhere else verdict._replace(again=told)


_TROUBLE: dict[type[BaseException], str] = {
    ContextWindowExceededError: "context_window",  # a larger model
    ContentFilterError: "content_filter",  # those named for it, nobody else
    BudgetExceededError: "cost",  # a cheaper model
}


def trouble(error: BaseException) -> str | None:
    """Return the kind of trouble that another model may be asked for, None where the error is the answer."""
    return next((_TROUBLE[cls] for cls in type(error).__mro__ if cls in _TROUBLE), None)


def backoff(attempt: int, luck: float) -> float:
    """Return seconds to wait after try number `attempt`: 2**attempt times 0.5..1.5, at most 60 (RAAF 4.1).

    Args:
        attempt: 1 after the first try.
        luck: random number in 0..1.
    """
    return float(min(60.0, 2.0 ** min(attempt, 10) * (0.5 + luck)))
