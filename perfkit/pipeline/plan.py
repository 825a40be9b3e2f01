"""What a call becomes before anything is sent: checked input, its route, its provider, and whether it may be kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from perfkit.caching import NOT_ASKED, CachePolicy, Decision, decide, read_traits, request_digest, scoped_key
from perfkit.pipeline.call import Call, routed
from perfkit.values import ChatRequest, finite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit._settings import RouteSettings

__all__ = ["Planner"]

REMEMBERED_DECISIONS = 4096  # requests whose text need not be read again for personal data; a few hundred KB


class Planner:
    """Plans calls; what it decided about earlier requests it remembers.

    Args:
        routes: names to use as `model=`.
    """

    def __init__(self, routes: Mapping[str, RouteSettings]) -> None:
        self.routes = dict(routes)
        self._decisions: dict[tuple[bytes, CachePolicy, str | None], Decision] = {}

    def forget(self) -> None:
        """Forget what was decided about earlier requests."""
        self._decisions.clear()

    def plan(
        self,
        request: ChatRequest,
        started: float,
        *,
        provider: str | None,
        policy: CachePolicy | str | None,
        default_policy: str,
        budget: float | None,
    ) -> Call:
        """Return the call that answers `request`.

        Args:
            request: what was asked; its model may be a route.
            started: monotonic seconds.
            provider: pinned by the caller.
            policy: the caller's cache policy, None for the route's or `default_policy`.
            default_policy: the configured one.
            budget: US dollars for all attempts together.

        Raises:
            TypeError, ValueError: one of them is not what it has to be.
        """
        if provider is not None and not isinstance(provider, str):
            raise TypeError(f"provider must be the name of one, not {provider!r}")
        if budget is not None:
            finite("budget", budget, least=0)
        if request.user is None and request.metadata.get("user_id") is not None:
            request = request.evolve(user=str(request.metadata["user_id"]))
        route = self.routes.get(request.model)
        target = request if route is None else routed(request, route)
        if provider is None and route is not None:
            provider = route.provider
        chosen = _policy(policy, route, default_policy)
        decision, key = self._decide(request, target, provider, chosen)
        return Call(request, target, provider, decision, key, started, budget)

    def _decide(
        self, request: ChatRequest, target: ChatRequest, provider: str | None, policy: CachePolicy
    ) -> tuple[Decision, str | None]:
        if not policy.exact:
            return NOT_ASKED, None
        digest = request_digest(request, provider=provider, target=None if target is request else target.model)
        memo = (digest, policy, request.user)
        decision = self._decisions.get(memo)
        if decision is None:
            decision = decide(request, read_traits(request), policy)
            if len(self._decisions) >= REMEMBERED_DECISIONS:
                self._decisions.clear()
            self._decisions[memo] = decision
        return decision, scoped_key(digest, decision.user) if decision.keep else None


def _policy(given: CachePolicy | str | None, route: RouteSettings | None, default: str) -> CachePolicy:
    policy = CachePolicy.of(default if given is None else given)
    if route is None or isinstance(given, CachePolicy):
        return policy
    if route.cacheable is False and given is None:
        return CachePolicy.of("never")
    return replace(policy, ttl=route.ttl, cacheable=route.cacheable)
