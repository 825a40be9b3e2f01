"""LLM calls from sync, threaded Python web apps: pooled, cached, routed, priced and measured in process.

Import the shared instances and use them: `perfkit.chat(...)`, `perfkit.tracker`, `@perfkit.profile`. Everything is
loaded on first use, so `import perfkit` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit._version import __version__

__all__ = [
    "Agent",
    "AgentPool",
    "AgentResult",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceededError",
    "CachePolicy",
    "CachedAgent",
    "ChatRequest",
    "ChatResponse",
    "ChatStream",
    "Client",
    "Clock",
    "ConfigError",
    "ConnectionPool",
    "ContentFilterError",
    "ContextWindowExceededError",
    "DeadlineExceeded",
    "FakeClock",
    "GCOptimizer",
    "HTTPClient",
    "MaxRetriesExceededError",
    "MaxRoundsExceededError",
    "ModelNotFoundError",
    "NetworkError",
    "NoAvailableProviderError",
    "NoModelFitsError",
    "OverloadedError",
    "PerfkitError",
    "PerformanceTracker",
    "PoolTimeout",
    "Profiler",
    "ProviderError",
    "ProviderRouter",
    "Quality",
    "RateLimitError",
    "RecursiveCallError",
    "ResponseCache",
    "ResponseFormatError",
    "SemanticCache",
    "ServerError",
    "StateUnavailableError",
    "StreamInterruptedError",
    "TokenOptimizer",
    "TransportError",
    "UnknownModelError",
    "UnknownNameError",
    "Usage",
    "__version__",
    "agent_pool",
    "alerts",
    "batch",
    "cache",
    "cached",
    "chat",
    "client",
    "configure",
    "connections",
    "gc_optimizer",
    "optimizer",
    "prepare",
    "profile",
    "profiler",
    "reset",
    "router",
    "scope",
    "stream",
    "tracker",
]

if TYPE_CHECKING:
    from perfkit import alerts
    from perfkit._shared import configure, reset
    from perfkit.agents import Agent, AgentPool
    from perfkit.caching import CachedAgent, CachePolicy, ResponseCache, cached
    from perfkit.caching.semantic import SemanticCache
    from perfkit.clock import Clock, FakeClock
    from perfkit.errors import (
        AuthenticationError,
        BadRequestError,
        BudgetExceededError,
        ConfigError,
        ContentFilterError,
        ContextWindowExceededError,
        DeadlineExceeded,
        MaxRetriesExceededError,
        MaxRoundsExceededError,
        ModelNotFoundError,
        NetworkError,
        NoAvailableProviderError,
        NoModelFitsError,
        OverloadedError,
        PerfkitError,
        PoolTimeout,
        ProviderError,
        RateLimitError,
        RecursiveCallError,
        ResponseFormatError,
        ServerError,
        StateUnavailableError,
        StreamInterruptedError,
        TransportError,
        UnknownModelError,
        UnknownNameError,
    )
    from perfkit.memory import GCOptimizer
    from perfkit.metrics import PerformanceTracker
    from perfkit.pipeline import ChatStream, Client, scope
    from perfkit.profiling import Profiler
    from perfkit.routing import ProviderRouter, Quality
    from perfkit.startup import prepare
    from perfkit.tokens import TokenOptimizer
    from perfkit.transport import ConnectionPool, HTTPClient
    from perfkit.values import AgentResult, Attempt, ChatRequest, ChatResponse, Usage

    tracker = PerformanceTracker.instance()
    connections = ConnectionPool.instance()
    cache = ResponseCache.instance()
    router = ProviderRouter.instance()
    optimizer = TokenOptimizer.instance()
    agent_pool = AgentPool.instance()
    profiler = Profiler.instance()
    gc_optimizer = GCOptimizer.instance()
    client = Client.instance()
    chat, stream, batch, profile = client.chat, client.stream, client.batch, profiler.profile

_MODULES = {
    "PerformanceTracker": "perfkit.metrics",
    "ConnectionPool": "perfkit.transport",
    "HTTPClient": "perfkit.transport",
    "ResponseCache": "perfkit.caching",
    "CachePolicy": "perfkit.caching",
    "CachedAgent": "perfkit.caching",
    "cached": "perfkit.caching",
    "SemanticCache": "perfkit.caching.semantic",
    "ProviderRouter": "perfkit.routing",
    "Quality": "perfkit.routing",
    "TokenOptimizer": "perfkit.tokens",
    "Agent": "perfkit.agents",
    "AgentPool": "perfkit.agents",
    "Profiler": "perfkit.profiling",
    "GCOptimizer": "perfkit.memory",
    "Client": "perfkit.pipeline",
    "ChatStream": "perfkit.pipeline",
    "scope": "perfkit.pipeline",
    "prepare": "perfkit.startup",
    "ChatRequest": "perfkit.values",
    "ChatResponse": "perfkit.values",
    "Usage": "perfkit.values",
    "Attempt": "perfkit.values",
    "AgentResult": "perfkit.values",
    "Clock": "perfkit.clock",
    "FakeClock": "perfkit.clock",
    "configure": "perfkit._shared",
    "reset": "perfkit._shared",
    "AuthenticationError": "perfkit.errors",
    "BadRequestError": "perfkit.errors",
    "BudgetExceededError": "perfkit.errors",
    "ConfigError": "perfkit.errors",
    "ContentFilterError": "perfkit.errors",
    "ContextWindowExceededError": "perfkit.errors",
    "DeadlineExceeded": "perfkit.errors",
    "MaxRetriesExceededError": "perfkit.errors",
    "MaxRoundsExceededError": "perfkit.errors",
    "ModelNotFoundError": "perfkit.errors",
    "NetworkError": "perfkit.errors",
    "NoAvailableProviderError": "perfkit.errors",
    "NoModelFitsError": "perfkit.errors",
    "OverloadedError": "perfkit.errors",
    "PerfkitError": "perfkit.errors",
    "PoolTimeout": "perfkit.errors",
    "ProviderError": "perfkit.errors",
    "RateLimitError": "perfkit.errors",
    "RecursiveCallError": "perfkit.errors",
    "ResponseFormatError": "perfkit.errors",
    "ServerError": "perfkit.errors",
    "StateUnavailableError": "perfkit.errors",
    "StreamInterruptedError": "perfkit.errors",
    "TransportError": "perfkit.errors",
    "UnknownModelError": "perfkit.errors",
    "UnknownNameError": "perfkit.errors",
}
_INSTANCES = {
    "tracker": "PerformanceTracker",
    "connections": "ConnectionPool",
    "cache": "ResponseCache",
    "router": "ProviderRouter",
    "optimizer": "TokenOptimizer",
    "agent_pool": "AgentPool",
    "profiler": "Profiler",
    "gc_optimizer": "GCOptimizer",
    "client": "Client",
}
_PACKAGES = (
    "agents",
    "alerts",
    "bench",
    "integrations",
    "providers",
    "testing",
)  # reached as attributes, `perfkit.providers.create_provider`
_METHODS = {"chat": "client", "stream": "client", "batch": "client", "profile": "profiler"}


if not TYPE_CHECKING:  # type checkers see the imports above, and no other name

    def __getattr__(name: str) -> Any:
        """Load a public name on first use and keep it (PEP 562)."""
        if name in _METHODS:
            value = getattr(__getattr__(_METHODS[name]), name)
        elif name in _INSTANCES:
            value = __getattr__(_INSTANCES[name]).instance()
        elif name in _MODULES or name in _PACKAGES:
            from perfkit._registry import load

            value = load(f"{_MODULES[name]}:{name}" if name in _MODULES else f"perfkit.{name}")
        else:
            raise AttributeError(f"module 'perfkit' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
