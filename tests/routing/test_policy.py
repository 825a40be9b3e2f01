from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

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
    NoAvailableProviderError,
    PerfkitError,
    PoolTimeout,
    ProviderError,
    RateLimitError,
    ResponseFormatError,
    ServerError,
    StreamInterruptedError,
    TransportError,
)
from perfkit.metrics import PerformanceTracker
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.routing.policy import Verdict, backoff, judge
from perfkit.testing import faults
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from perfkit.testing import FaultServer

HELLO: Any = "hello"  # one user message


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
        (ServerError(should_retry=False), Verdict("failure", elsewhere=True)),
        (ProviderError(should_retry=True), Verdict("failure", elsewhere=True, again=True)),
        (BadRequestError(should_retry=True), Verdict("success", elsewhere=False)),
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


def one(fault: FaultServer, kind: str = "openai") -> ProviderRouter:
    router = ProviderRouter(tracker=PerformanceTracker())
    router.register_provider("only", create_provider(kind, name="only", base_url=fault.base_url, api_key="k"))
    return router


def test_who_says_that_asking_again_is_useless_is_not_asked_again(fault: FaultServer) -> None:
    router = one(fault)
    fault.behave(faults.status(503, headers={"x-should-retry": "false", "retry-after": "0"}), faults.ok())
    with pytest.raises(ServerError):
        router.execute_with_fallback(ChatRequest(HELLO, "m", timeout=10))
    assert fault.stats()["requests"] == 1
    fault.behave(faults.status(503, headers={"x-should-retry": "true", "retry-after": "0"}), faults.ok())
    assert len(router.execute_with_fallback(ChatRequest(HELLO, "m", timeout=10)).attempts) == 2


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_an_account_without_money_is_in_quarantine_and_health_says_why(fault: FaultServer, kind: str) -> None:
    router = one(fault, kind)
    fault.behave(faults.quota_exhausted())
    with pytest.raises(AuthenticationError, match="may not spend more: add credit or raise the limit"):
        router.execute_with_fallback(ChatRequest(HELLO, "m", timeout=10))
    health = router.health()["only"]
    code = "insufficient_quota" if kind == "openai" else "enforced_spend_limit_reached"
    assert (health["state"], health["last_error"]["error"]) == ("open", "AuthenticationError")
    assert health["reason"].endswith(f"after AuthenticationError ({code})")
    with pytest.raises(NoAvailableProviderError, match=code):
        router.execute_with_fallback(ChatRequest(HELLO, "m", timeout=10))
    assert fault.stats()["requests"] == 1
