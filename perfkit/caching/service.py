"""Caching for what is not a chat call: an agent's runs, and plain functions.

RAAF's CachedAgentService (guide 3.6) made safe: the user is the scope of an answer instead of being dropped, nothing in
a message is rewritten, and tools are in the key with their whole schemas.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from perfkit.caching.freshness import Decision, decide, read_traits
from perfkit.caching.keys import IGNORED_CONTEXT, plain_key, scope_of
from perfkit.caching.policy import CachePolicy
from perfkit.caching.response import ResponseCache
from perfkit.values import AgentResult, ChatRequest

if TYPE_CHECKING:
    from perfkit.caching.policy import PolicyOf

__all__ = ["CachedAgent", "cached"]

RESULT = "perfkit.AgentResult"  # the one key of such a result as it is kept
P = ParamSpec("P")
R = TypeVar("R")


class CachedAgent:
    """Runs an agent, or returns what it returned for the same message, context and agent before.

    What it returns must be an AgentResult, a ChatResponse or a JSON value; anything else is returned but not kept,
    and counted in `cache_unstorable`. Threads that ask the same at once share one run.

    Args:
        agent: any object with `run(message, context)`, and `name`, `instructions`, `model` and `tools` where it has
            them: they are part of the key, tools with their whole schemas.
        strategy: "smart", "always", "never", a CachePolicy, or a function of the ChatRequest the run would be. Under
            "smart" an agent with tools is not cached, as tools may have effects; temperature is the agent's own, and
            taken for 0 where it has none.
        cache: None means the shared one.
        ignored: names of the context that do not change the answer.

    Raises:
        TypeError: `agent` has no `run`.
        ValueError: there is no such strategy.
    """

    def __init__(
        self,
        agent: Any,
        strategy: CachePolicy | str | PolicyOf = "smart",
        *,
        cache: ResponseCache | None = None,
        ignored: Iterable[str] = IGNORED_CONTEXT,
    ) -> None:
        if not callable(getattr(agent, "run", None)):
            raise TypeError(f"{type(agent).__name__} has no run(message, context)")
        self.agent = agent
        self._strategy = strategy if callable(strategy) else CachePolicy.of(strategy)
        self._cache = cache if cache is not None else ResponseCache.instance()
        self._ignored = frozenset(ignored)

    def run(self, message: str, context: Mapping[str, Any] | None = None) -> Any:
        """Return the agent's answer to a message.

        Args:
            message: the question.
            context: what else the answer depends on; `user_id` is whose answer it is.

        Raises:
            TypeError, ValueError: the context holds what JSON cannot express; the message names it, and `ignored` may.
            Exception: what the agent raises.
        """
        given = context if context is not None else {}
        decision = self.decide(message, given)
        if not decision.keep:
            return self.agent.run(message, context)
        found = self._cache.fetch(
            self._key(message, given, decision),
            lambda: _written(self.agent.run(message, context)),
            ttl=decision.ttl,
            stale_ttl=decision.stale_ttl,
        ).value
        return AgentResult.from_dict(found[RESULT]) if isinstance(found, dict) and RESULT in found else found

    def decide(self, message: str, context: Mapping[str, Any] | None = None) -> Decision:
        """Return whether a run would be kept, for how long, whose it is, and why."""
        given = context if context is not None else {}
        request = self._request(message, given)
        policy = self._strategy if isinstance(self._strategy, CachePolicy) else CachePolicy.of(self._strategy(request))
        return decide(request, read_traits(request), policy, ttls=self._cache.settings.ttls)

    def _request(self, message: str, context: Mapping[str, Any]) -> ChatRequest:
        user, temperature = context.get("user_id"), getattr(self.agent, "temperature", None)
        return ChatRequest(
            ({"role": "user", "content": message},),
            str(getattr(self.agent, "model", None) or "agent"),
            0.0 if temperature is None else temperature,
            tools=tuple(_schema(tool) for tool in getattr(self.agent, "tools", None) or ()) or None,
            user=None if user is None else str(user),
            metadata=dict(context),
        )

    def _key(self, message: str, context: Mapping[str, Any], decision: Decision) -> str:
        own = {"user_id"} if decision.user is not None else set()
        asked = {
            "agent": [getattr(self.agent, name, None) for name in ("name", "instructions", "model")],
            "tools": [_schema(tool) for tool in getattr(self.agent, "tools", None) or ()],
            "message": message,
            "context": {name: value for name, value in context.items() if name not in self._ignored | own},
        }
        return plain_key({"perfkit.agent": asked}, scope_of(decision.user, decision.tenant))

    def __repr__(self) -> str:
        return f"CachedAgent({getattr(self.agent, 'name', self.agent)!r}, {self._strategy!r})"


def _written(value: Any) -> Any:
    return {RESULT: value.to_dict()} if isinstance(value, AgentResult) else value


def _schema(tool: Any) -> Any:
    """Return what tells a tool from another: itself if it is data, what it says of itself, or how it is called."""
    if isinstance(tool, Mapping):
        return dict(tool)
    for name in ("to_dict", "schema", "model_dump"):
        method = getattr(tool, name, None)
        if callable(method):
            return method()
    called = getattr(tool, "name", None) or getattr(tool, "__qualname__", None)
    if called is None:
        raise TypeError(f"a tool must be a mapping, a function, or have a name and a schema, not {tool!r}")
    described = getattr(tool, "parameters", None) or (str(inspect.signature(tool)) if callable(tool) else None)
    return {"name": called, "description": getattr(tool, "description", None) or inspect.getdoc(tool), "of": described}


@overload
def cached(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def cached(
    *,
    ttl: float | None = None,
    tags: Iterable[str] = (),
    scope: Callable[..., str] | str | None = None,
    stale_ttl: float | None = None,
    key: Callable[..., Any] | None = None,
    cache: ResponseCache | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def cached(  # noqa: PLR0913 - the options of a decorator, each with a default
    function: Callable[..., Any] | None = None,
    /,
    *,
    ttl: float | None = None,
    tags: Iterable[str] = (),
    scope: Callable[..., str] | str | None = None,
    stale_ttl: float | None = None,
    key: Callable[..., Any] | None = None,
    cache: ResponseCache | None = None,
) -> Any:
    """Keep what a function returns, by its module, name and arguments.

    Arguments and results must be JSON values (results may be ChatResponses too). Threads that call it alike at once
    share one call; an exception is raised in all of them and not kept. Arguments given by position, by name or left to
    their defaults make the same key.

    Args:
        function: what is decorated, without arguments: `@cached`.
        ttl: seconds; None means the cache's own.
        tags: names for `cache.invalidate`.
        scope: whose result it is: a name, or a function of the arguments that returns one.
        stale_ttl: seconds after `ttl` during which the old result is returned while a new one is computed.
        key: a function of the arguments that returns what makes the result, where they are not JSON themselves.
        cache: None means the shared one.

    Raises:
        TypeError: at the call: arguments or the result are not JSON, or the function is a coroutine.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        asked_by = _asked_by(function, key)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            asked = asked_by(*args, **kwargs)
            owner = scope(*args, **kwargs) if callable(scope) else scope
            kept = cache if cache is not None else ResponseCache.instance()
            result: R = kept.get(
                asked, lambda: function(*args, **kwargs), ttl=ttl, tags=tags, scope=owner, stale_ttl=stale_ttl
            )
            return result

        return wrapper

    return decorate if function is None else decorate(function)


def _asked_by(function: Callable[P, Any], key: Callable[..., Any] | None) -> Callable[P, dict[str, Any]]:
    """Return what makes a function's arguments the key of its result."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{function.__qualname__} returns no JSON value: only plain functions can be cached")
    signature = inspect.signature(function)
    where = f"{function.__module__}.{function.__qualname__}"

    def asked(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return {"perfkit.function": where, "of": key(*args, **kwargs) if key is not None else dict(bound.arguments)}

    return asked
