"""What all calls of one request of the application share: whose it is, by when it is due, and what it may cost.

A scope follows the code, not the arguments: it is a context variable, so each thread (and each task of `perfkit.batch`
and `map_bounded`, which carry it over) sees that of its own request.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import DeadlineExceeded
from perfkit.tokens.wallet import Wallet
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perfkit.values import ChatRequest

__all__ = ["Scope", "current_scope", "entered", "left", "narrowed", "scope", "within"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Scope:
    """What calls take from the request they belong to, where they do not say it themselves.

    Attributes:
        user: the user, or what returns it; asked at most once a call.
        deadline: monotonic seconds by which every call has to end.
        tenant: becomes `context["tenant"]`: part of the cache key, and a scope of budgets.
        wallets: what the calls may spend together, that of each scope around them.
    """

    user: str | Callable[[], str | None] | None = None
    deadline: float | None = None
    tenant: str | None = None
    wallets: tuple[Wallet, ...] = ()

    def applied(self, request: ChatRequest, now: float, longest: float) -> ChatRequest:
        """Return `request` with what it does not say itself.

        Args:
            request: what a call asks.
            now: monotonic seconds.
            longest: seconds a request without a timeout has anyway.

        Raises:
            DeadlineExceeded: the deadline has passed.
            TypeError: what is asked for the user returns something else than text.
        """
        if request.user is None and "user_id" not in request.metadata:
            user = self.user() if callable(self.user) else self.user
            if user is not None and not isinstance(user, str):
                raise TypeError(f"user must be a string, not {user!r}: that is what the callable for it returned")
            request = request.evolve(user=user)
        if self.tenant is not None and "tenant" not in request.metadata:
            request = request.evolve(metadata={**request.metadata, "tenant": self.tenant})
        if self.deadline is None:
            return request
        left = self.deadline - now
        if left <= 0:
            raise DeadlineExceeded(f"the time of the whole request ran out {0 - left:.3f} s ago", sent=False)
        return request.evolve(timeout=min(left, longest if request.timeout is None else request.timeout))


_current: ContextVar[Scope | None] = ContextVar("perfkit_scope", default=None)
current_scope = _current.get


def narrowed(
    user: str | Callable[[], str | None] | None = None,
    timeout: float | None = None,
    clock: Clock | None = None,
    *,
    tenant: str | None = None,
    budget: float | None = None,
    request: str | None = None,
) -> Scope:
    """Return a scope inside the present one.

    A user and tenant given here are those of the calls, the nearer deadline is the deadline, and every budget holds.

    Args:
        user: the user, or what returns it.
        timeout: seconds from now.
        clock: None means the system's.
        tenant: the tenant.
        budget: US dollars for all calls inside together.
        request: an id for the error that says the budget is spent.

    Raises:
        TypeError, ValueError: one of them is not what it has to be.
    """
    if user is not None and not isinstance(user, str) and not callable(user):
        raise TypeError(f"user must be a string or a callable that returns one, not {user!r}")
    for name, given in (("tenant", tenant), ("request", request)):
        if given is not None and not isinstance(given, str):
            raise TypeError(f"{name} must be a string, not {given!r}")
    current = _current.get()
    outer = current if current is not None else Scope()
    deadlines = [outer.deadline] if outer.deadline is not None else []
    if timeout is not None:
        now = (clock if clock is not None else SYSTEM_CLOCK).now()
        deadlines.append(now + finite("timeout", timeout, above=0))
    wallets = outer.wallets if budget is None else (*outer.wallets, Wallet(budget, request))
    user, tenant = user if user is not None else outer.user, tenant if tenant is not None else outer.tenant
    return Scope(user, min(deadlines, default=None), tenant, wallets)


@contextmanager
def scope(
    *,
    user: str | Callable[[], str | None] | None = None,
    tenant: str | None = None,
    timeout: float | None = None,
    budget: float | None = None,
    request: str | None = None,
    clock: Clock | None = None,
) -> Iterator[Scope]:
    """Give all calls made inside a user, a tenant, a deadline and a budget; scopes nest.

    Args:
        user: for calls without `user=`: the user, or what returns it.
        tenant: for calls without one in their context: part of the cache key, and a scope of budgets, ("tenant", name).
        timeout: seconds for everything inside together; a call begun later gets what is left.
        budget: US dollars for everything inside together, in all threads that its context is carried to; a call that
            could cost more than is left raises BudgetExceededError with the scope ("request", id). The budget of a
            scope around this one holds too.
        request: that id; None means a random one.
        clock: None means the system's.

    Raises:
        TypeError, ValueError: one of them is not what it has to be.
    """
    inner = narrowed(user, timeout, clock, tenant=tenant, budget=budget, request=request)
    token = entered(inner)
    try:
        yield inner
    finally:
        left(token)


def entered(inner: Scope | None) -> Token[Scope | None]:
    """Make `inner` the present scope until `left` is called with what this returns."""
    return _current.set(inner)


def left(token: Token[Scope | None]) -> None:
    """Return to the scope before; a server that ends a request elsewhere than it began it leaves none."""
    try:
        _current.reset(token)
    except ValueError:
        _current.set(None)


def within(call: Callable[[Any], R], timeout: float | None, clock: Clock) -> Callable[[Any], R]:
    """Return `call` with a deadline `timeout` seconds from now for all that is done with it; None means none."""
    if timeout is None:
        return call
    inner = narrowed(timeout=timeout, clock=clock)

    def bounded(item: Any) -> R:
        token = entered(inner)
        try:
            return call(item)
        finally:
            left(token)

    return bounded
