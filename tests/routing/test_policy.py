from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit import errors
from perfkit.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ContentFilterError,
    ContextWindowExceededError,
    DeadlineExceeded,
    ModelNotFoundError,
    NetworkError,
    PerfkitError,
    PoolTimeout,
    ProviderError,
    RateLimitError,
    ResponseFormatError,
    ServerError,
    StreamInterruptedError,
    TransportError,
)
from perfkit.routing.policy import Verdict, backoff, judge


class SoftTimeLimitExceeded(Exception):  # noqa: N818 - Celery's name
    """As billiard raises it inside the task's own code."""


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (BadRequestError(), Verdict("success", elsewhere=False)),
        (ContextWindowExceededError(), Verdict("success", elsewhere=False)),
        (ContentFilterError(), Verdict("success", elsewhere=False)),
        (AuthenticationError(), Verdict("fatal", elsewhere=True)),
        (ModelNotFoundError(), Verdict("success", elsewhere=True)),
        (RateLimitError(), Verdict("abandoned", elsewhere=True, again=True)),
        (ServerError(), Verdict("failure", elsewhere=True, again=True)),
        (ResponseFormatError(), Verdict("failure", elsewhere=True)),
        (StreamInterruptedError(), Verdict("failure", elsewhere=True)),
        (ProviderError(), Verdict("failure", elsewhere=True)),
        (NetworkError(sent=False), Verdict("failure", elsewhere=True, again=True)),
        (NetworkError(sent=True), Verdict("failure", elsewhere=True)),
        (NetworkError(), Verdict("failure", elsewhere=True)),
        (DeadlineExceeded(), Verdict("failure", elsewhere=True)),
        (PoolTimeout(), Verdict("abandoned", elsewhere=True)),
        (BudgetExceededError(), Verdict("abandoned", elsewhere=False)),
        (KeyError("bug of a custom provider"), Verdict("failure", elsewhere=True)),
        (ConnectionResetError(), Verdict("failure", elsewhere=True)),
        (TimeoutError(), Verdict("failure", elsewhere=True)),
        (KeyboardInterrupt(), Verdict("abandoned", elsewhere=False)),
        (SystemExit(), Verdict("abandoned", elsewhere=False)),
        (SoftTimeLimitExceeded(), Verdict("abandoned", elsewhere=False)),
    ],
    ids=repr,
)
def test_what_follows_from_an_error(error: BaseException, verdict: Verdict) -> None:
    assert judge(error) == verdict


def test_every_error_of_perfkit_has_a_verdict_and_only_the_callers_own_end_the_call() -> None:
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, PerfkitError)]
    ending = {cls for cls in classes if not judge(cls()).elsewhere}
    outside = {cls for cls in classes if not issubclass(cls, ProviderError | TransportError)}
    assert ending == outside | {BadRequestError, ContextWindowExceededError, ContentFilterError}


@given(attempt=st.integers(1, 10_000), luck=st.floats(0, 1))
def test_backoff_doubles_with_jitter_and_is_capped(attempt: int, luck: float) -> None:
    assert backoff(attempt, luck) == min(60.0, 2.0 ** min(attempt, 10) * (0.5 + luck))
    assert 1.0 <= backoff(1, luck) <= 3.0
    assert backoff(attempt, luck) <= 60.0
