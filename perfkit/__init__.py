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

# What is loaded from where; public names that stand nowhere here are errors.
_HOMES = {
    "_shared": ("configure", "reset"),
    "agents": ("Agent", "AgentPool"),
    "caching": ("CachePolicy", "CachedAgent", "ResponseCache", "cached"),
    "caching.semantic": ("SemanticCache",),
    "clock": ("Clock", "FakeClock"),
    "memory": ("GCOptimizer",),
    "metrics": ("PerformanceTracker",),
    "pipeline": ("ChatStream", "Client", "scope"),
    "profiling": ("Profiler",),
    "routing": ("ProviderRouter", "Quality"),
    "startup": ("prepare",),
    "tokens": ("TokenOptimizer",),
    "transport": ("ConnectionPool", "HTTPClient"),
    "values": ("AgentResult", "Attempt", "ChatRequest", "ChatResponse", "Usage"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}
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
_PACKAGES = ("agents", "alerts", "bench", "integrations", "providers", "testing")  # reached as attributes
_METHODS = {"chat": "client", "stream": "client", "batch": "client", "profile": "profiler"}


if not TYPE_CHECKING:  # type checkers see the imports above, and no other name

    def __getattr__(name: str) -> Any:
        """Load a public name on first use and keep it (PEP 562)."""
        if name in _METHODS:
            value = getattr(__getattr__(_METHODS[name]), name)
        elif name in _INSTANCES:
            value = __getattr__(_INSTANCES[name]).instance()
        elif name in _PACKAGES or name in __all__:
            from perfkit._registry import load

            value = load(f"perfkit.{name}" if name in _PACKAGES else f"perfkit.{_MODULES.get(name, 'errors')}:{name}")
        else:
            raise AttributeError(f"module 'perfkit' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
