"""Trying again after a transport error, where that can do no harm.

A request the server may have begun is sent again only if its method is idempotent: a second POST is a second bill.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeVar

from perfkit.errors import PoolTimeout, TransportError
from perfkit.transport.failures import is_permanent

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.clock import Clock
    from perfkit.transport.call import Call

__all__ = ["IDEMPOTENT", "persist", "worth_another_try"]

T = TypeVar("T")
IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))  # RFC 9110 section 9.2.2
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds


def worth_another_try(error: BaseException, method: str) -> bool:
    """Return whether sending again is harmless and may help."""
    if not isinstance(error, TransportError) or isinstance(error, PoolTimeout) or is_permanent(error):
        return False
    return not error.sent or method in IDEMPOTENT


def _pause(attempt: int) -> float:
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (attempt - 1))


def persist(send: Callable[[], T], first: TransportError, call: Call, retries: int, clock: Clock) -> T:
    """Send again after `first`, up to `retries` times and not beyond the deadline; return the reply.

    Raises:
        TransportError: the last one.
    """
    from tenacity import Retrying, retry_if_exception

    def give_up(state: Any) -> bool:
        attempt: int = state.attempt_number
        return attempt > retries or call.deadline - clock.now() <= _pause(attempt)

    failed: TransportError | None = first

    def again() -> T:
        nonlocal failed
        if failed is not None:  # what tenacity sees as the first try has been made already
            error, failed = failed, None
            raise error
        call.attempt += 1
        return send()

    return Retrying(
        stop=give_up,
        wait=lambda state: random.uniform(0.5, 1.0) * _pause(state.attempt_number),
        retry=retry_if_exception(lambda error: worth_another_try(error, call.method)),
        sleep=clock.sleep,
        reraise=True,
    )(again)
