"""What a call becomes before anything is sent: checked input, its route, its provider, and whether it may be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from perfkit.caching import NOT_ASKED, TTLS, CachePolicy, Decision, decide, read_traits, request_digest, scoped_key
from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import unread_settings
from perfkit.pipeline.call import Call, Ways, routed
from perfkit.pipeline.known import meaning_of
from perfkit.tokens.complexity import classify
from perfkit.values import ChatRequest, finite

if TYPE_CHECKING:
    from perfkit._settings import CacheSettings, ClientSettings, RouteSettings
    from perfkit.caching.policy import PolicyOf
    from perfkit.clock import Clock

__all__ = ["Planner", "model_for"]

REMEMBERED_DECISIONS = 4096  # requests whose text need not be read again for personal data; a few hundred KB


class Planner:
    """Plans calls; what it decided about earlier requests it remembers.

    Args:
        routes: names to use as `model=`.
        clock: tells the time buckets of policies; None means the system's.
    """

    def __init__(self, routes: Mapping[str, RouteSettings], *, clock: Clock | None = None) -> None:
        self.routes = dict(routes)
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._ttls: Mapping[str, float] = TTLS
        self._decisions: dict[tuple[bytes, CachePolicy, str | None], Decision] = {}

    def forget(self) -> None:
        """Forget what was decided about earlier requests."""
        self._decisions.clear()

    def plan(  # noqa: PLR0913 - what a call is told
        self,
        request: ChatRequest,
        started: float,
        *,
        provider: str | None,
        policy: CachePolicy | str | PolicyOf | None,
        cache: CacheSettings,
        budget: float | None,
        ways: Ways | None = None,
    ) -> Call:
        """Return the call that answers `request`.

        Args:
            request: what was asked; its model may be a route.
            started: monotonic seconds.
            provider: pinned by the caller.
            policy: the caller's cache policy, None for the route's or the configured one.
            cache: the cache's settings.
            budget: US dollars for all attempts together.
            ways: what the caller says of the ways to an answer; the route says the rest.

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
        provider = route.provider if provider is None and route is not None else provider
        if callable(policy):
            policy = CachePolicy.of(policy(request))
        chosen = _policy(policy, route, cache.policy)
        if cache.ttls is not self._ttls:
            self._ttls = cache.ttls
            self.forget()
        decision, key = self._decide(request, target, provider, chosen)
        told = ways if ways is not None else Ways()
        meaning = None
        if chosen.semantic is not False and key is not None:
            asked, other = self._asked(request, chosen), None if target is request else target.model
            meaning = meaning_of(asked, decision, provider=provider, target=other)
        return Call(
            request, target, provider, decision, key, started, budget, chosen, meaning,
            ways=told if route is None else _routed_ways(told, route),
        )  # fmt: skip

    def _decide(
        self, request: ChatRequest, target: ChatRequest, provider: str | None, policy: CachePolicy
    ) -> tuple[Decision, str | None]:
        if not policy.exact:
            return NOT_ASKED, None
        asked = self._asked(request, policy)
        digest = request_digest(asked, provider=provider, target=None if target is request else target.model)
        memo = (digest, policy, request.user)
        decision = self._decisions.get(memo) if asked is request else None
        if decision is None:
            decision = decide(request, read_traits(request), policy, ttls=self._ttls)
            if len(self._decisions) >= REMEMBERED_DECISIONS:
                self._decisions.clear()
            if asked is request:  # else what is left out of the key may still have decided
                self._decisions[memo] = decision
        return decision, scoped_key(digest, decision.user, decision.tenant) if decision.keep else None

    def _asked(self, request: ChatRequest, policy: CachePolicy) -> ChatRequest:
        """Return the request with that context only that makes another question (RAAF guide 3.3)."""
        if not policy.by_context:
            return request
        context = dict(request.metadata)
        if policy.context is not None:
            context = {name: context[name] for name in policy.context if name in context}
        bucket = None if policy.time_bucket is None else int(self._clock.wall() // policy.time_bucket)
        return request.evolve(metadata={"context": context, "time_bucket": [bucket, policy.time_bucket]})


def _routed_ways(told: Ways, route: RouteSettings) -> Ways:
    given = {name: getattr(route, name) for name in ("fallback_response", "hedge", "resume", "compress")}
    return replace(told, **{name: value for name, value in given.items() if getattr(told, name) is None})


def _policy(given: CachePolicy | str | None, route: RouteSettings | None, default: str) -> CachePolicy:
    policy = CachePolicy.of(default if given is None else given)
    if route is None or isinstance(given, CachePolicy):
        return policy
    if route.cacheable is False and given is None:
        return CachePolicy.of("never")
    return replace(policy, ttl=route.ttl, cacheable=route.cacheable, semantic=route.semantic and policy.exact)


def model_for(messages: Any, model: str | None, settings: ClientSettings) -> str:
    """Return the model a call asks for, or the one configured for calls that ask for none.

    Raises:
        ValueError: none is configured.
    """
    if model is not None:
        return model
    if settings.prefer_fast_models and settings.fast_model is not None and _is_simple(messages):
        return settings.fast_model
    if settings.default_model is None:
        raise ValueError(f"no model given; pass model= or set [client] default_model{unread_settings()}")
    return settings.default_model


def _is_simple(messages: Any) -> bool:
    """Tell whether a single question is simple (RecoAgent's rule); a conversation is not."""
    if isinstance(messages, list | tuple) and len(messages) == 1 and isinstance(messages[0], Mapping):
        messages = messages[0].get("content")
    return isinstance(messages, str) and classify(messages)[0] == "simple"
