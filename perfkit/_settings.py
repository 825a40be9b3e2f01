"""The settings of every table: names, types, defaults and bounds, in one place.

Constructors, files and the environment are all checked against these dataclasses, by perfkit.config.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - the checks read the annotations
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NAMED_TABLES", "TABLES"]


def number(default: float | None, *, above: float | None = None, least: float | None = None) -> Any:
    """Declare a numeric setting with its bound."""
    return field(default=default, metadata={"above": above, "least": least})


def choice(default: str, *names: str) -> Any:
    """Declare a setting that is one of a few words."""
    return field(default=default, metadata={"choices": (default, *names)})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """`[metrics]`: what PerformanceTracker keeps and where it sends."""

    max_series: int = number(2000, least=1)
    max_bytes: int = number(64 * 2**20, least=2**20)
    prefix: str = "perfkit"
    statsd: str | None = None  # "host:port" or "unix:///path": send StatsD lines there
    statsd_options: Mapping[str, Any] = field(default_factory=dict)  # more arguments of StatsdSink: flavor, pack, ...
    otel: bool = False  # hand metrics, and a span for each call, to the application's OpenTelemetry
    store: str | None = None  # where workers share their metrics: a directory, or "redis" for that of [state]
    host: str | None = None  # this machine's name among those that share; None: its own, alike in some containers
    flush_interval: float = number(10.0, above=0)
    detailed_logging: bool = False  # a line for each call, logger perfkit.calls; see perfkit.metrics.sinks.logging


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionsSettings:
    """`[connections]`: one pool a host; seconds and connections."""

    maxsize: int = number(20, least=1)
    timeout: float = number(30.0, above=0)  # waiting for a free connection
    max_idle: int | None = number(None, least=0)  # idle connections that stay when traffic ebbs; None: all
    keep_alive: float = number(300.0, above=0)  # idle seconds, less when the server announces less
    max_lifetime: float = number(3600.0, above=0)
    connect_timeout: float = number(10.0, above=0)
    read_timeout: float = number(60.0, above=0)
    write_timeout: float = number(60.0, above=0)
    ca_file: str | None = None  # a private CA beside the system's trust store
    proxy: str | None = field(default=None, repr=False)  # None: HTTPS_PROXY and NO_PROXY of the environment; "": none
    max_body: int = number(256 * 2**20, least=1)  # decoded bytes of one reply
    hosts: Mapping[str, Any] = field(default_factory=dict, repr=False)  # "host[:port]" to any of the settings above


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings:
    """`[state]`: where processes share what they know; None keeps it in each of them."""

    url: str | None = field(default=None, repr=False)  # "redis://...", "rediss://...", "unix://..." or "sqlite:///path"
    prefix: str = "perfkit"  # of keys and channels
    timeout: float = number(0.1, above=0)  # seconds a request may lose to it, once


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """`[cache]`: what ResponseCache may hold and what is cacheable."""

    backend: str = choice("memory", "redis", "sqlite", "django", "flask")
    url: str | None = field(default=None, repr=False)  # of its Redis or SQLite file; None: that of `[state]`
    alias: str = "default"  # which of Django's caches
    max_bytes: int = number(100 * 2**20, least=1)
    max_entries: int | None = number(None, least=1)
    ttl: float = number(3600.0, above=0)  # seconds, as all that follow
    stale_ttl: float = number(0.0, least=0)  # after that, serve the old answer while one thread gets a new one
    stale_if_error: float = number(0.0, least=0)  # after that, serve it where the provider fails
    error_ttl: float = number(0.0, least=0)  # remember that a request is wrong, or that a model does not exist
    early_refresh: float = number(0.0, least=0)  # 1: refresh ahead of the end, at random (XFetch); 0: do not
    generation: str = ""  # entries of another generation are not seen: change it with prompts or answers' form
    compression: str = choice("none", "zlib", "zstd")  # of what leaves this process
    compress_above: int = number(1024, least=0)  # bytes
    encryption_key: str | None = field(default=None, repr=False)  # Fernet keys, comma between; the first one encrypts
    policy: str = choice("smart", "always", "never")
    ttls: Mapping[str, float] = field(default_factory=dict)  # of smart, by kind: perfkit.caching.TTLS where not given


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticSettings:
    """`[semantic]`: when SemanticCache takes two questions for the same; it is used where a route or policy says so."""

    embedder: str = "hashed"
    embedder_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # arguments of the embedder
    threshold: float = number(0.95, above=0)  # cosine from which an answer is served, without a max_error_rate
    max_error_rate: float | None = number(None, above=0)  # share of what is served that may be wrong
    explore: float = number(0.7, above=0)  # cosine from which matches are learned from, with a max_error_rate
    verify: float = number(0.05, least=0)  # share of what could be served that is asked again and compared
    window: int = number(4000, least=1)  # verified matches that are remembered
    shadow: bool = False  # serve nothing, but count what would have been served, and how much of it wrong
    max_entries: int = number(100_000, least=1)  # questions; more than 100,000 in one partition need usearch
    name: str = ""  # who has the same shares what is learned over [state] url; another one begins without


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """`[router]`: how a provider is chosen and when it is left."""

    strategy: str = "least_latency"
    primary: str | None = None  # provider of the strategy "manual"
    max_attempts: int = number(3, least=1)
    timeout: float = number(30.0, above=0)  # of a whole call that gives none
    attempt_timeout: float | None = number(
        None, above=0
    )  # of one try; None: two thirds of what is left, all for the last
    # When a provider is left, and looked at again:
    failure_threshold: int = number(5, least=1)  # in a row
    failure_rate: float = number(0.5, above=0)  # of the calls of 30 s; 1: only a row counts
    slow_seconds: float | None = number(None, above=0)  # an answer that takes longer is a slow one
    slow_rate: float = number(0.8, above=0)  # of the calls of 30 s
    minimum_calls: int = number(20, least=1)  # in those 30 s, before a rate says anything
    open_seconds: float = number(60.0, above=0)
    warm_up: int = number(0, least=0)  # connections to each provider that `perfkit.prepare()` opens
    probe_interval: float | None = number(5.0, above=0)  # between looks at what is out of use; None: no looks
    outlier_factor: float | None = number(5.0, above=1)  # slower than the others' median; None: nobody is ejected
    # What is tried beyond the first attempt:
    retry_share: float = number(0.2, least=0)  # extra attempts for each call, and
    retries_per_second: float = number(10.0, least=0)
    hedge: bool = False  # ask a second provider when the first takes longer than usual
    hedge_delay: float | None = number(None, above=0)  # None: the 95th percentile of the first one's latency
    hedge_share: float = number(0.02, above=0)  # of the calls
    fallbacks: Mapping[str, Any] = field(default_factory=dict)  # trouble to {model: [models]}; see perfkit.routing
    fallback_response: str | None = None  # answers when nobody else does
    resume: bool = False  # go on elsewhere with a stream that broke after output
    min_tokens_per_second: float | None = number(None, above=0)  # a stream that is slower for 5 s is cut
    # Who may be chosen:
    max_waiting: int = number(64, least=0)  # calls that wait for one provider's limits
    queue_timeout: float = number(10.0, above=0)  # seconds they wait
    max_latency: float | None = number(None, above=0)  # seconds
    min_quality: float | None = number(None, least=0)  # 0..1
    max_cost: float | None = number(None, least=0)  # dollars per 1,000 tokens
    tasks: Mapping[str, Any] = field(default_factory=dict)  # task to the names of providers, for the strategy "task"
    reward: Mapping[str, Any] = field(default_factory=dict)  # weights of quality, latency, cost for "adaptive"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensSettings:
    """`[tokens]`: prices and budgets of TokenOptimizer; US dollars."""

    prices: Mapping[str, Any] = field(default_factory=dict)  # model to {"input": $/M, "output": $/M, "cache_read": $/M}
    fallback_price: Mapping[str, float] | None = None  # for models without a price: {"input": $/M, "output": $/M}
    # {"scope": ["user", "*"], "limit": 1.0, "period": "day"}, and perhaps "exhausted": "refuse", "queue" or [models]
    budgets: tuple[Mapping[str, Any], ...] = ()
    models: Mapping[str, Any] = field(default_factory=dict)  # model to {"quality", "first_token", "tokens_per_second"}
    default_model: str | None = None  # what select_optimal_model returns where there is nothing to choose by
    answer_tokens: int = number(4096, least=2)  # bound of answers under a budget, where the caller gives none
    queue_size: int = number(100, least=0)  # calls that may wait for a budget at the same time, and
    queue_timeout: float = number(30.0, above=0)  # seconds for those without a timeout
    timezone: str = "UTC"  # where days and months begin
    layout: bool = False  # lay every request out for prefix caching
    compress: bool = False  # results of tools and JSON of users, with short names for UUIDs
    volatile: tuple[str, ...] = ()  # patterns of texts in system prompts that change with every request: they go last
    detect: bool = True  # look for what breaks the prefixes of routes


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsSettings:
    """`[agents]`: upkeep of AgentPool; seconds."""

    types: Mapping[str, Any] = field(default_factory=dict, repr=False)  # agent type to its Agent; see perfkit.agents
    types_from: str | None = None  # a .toml or .json file of types, or "module:function" that returns one by its name
    warm_up: Mapping[str, Any] = field(default_factory=dict)  # agent type to the number made by `perfkit.prepare()`
    reap_interval: float = number(300.0, above=0)
    validate_after: float = number(0.5, least=0)  # idle time after which an agent is validated before it is lent


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilerSettings:
    """`[profiler]`: what `@profile` keeps, and which runs are caught in the act."""

    history: int = number(1000, least=1)  # latest runs of each operation, and
    slowest: int = number(10, least=1)  # slowest ones
    slow_capture: str = choice("auto", "on", "off")  # "auto": from Python 3.12 on; never on free-threaded builds
    slow_threshold: float = number(0.3, above=0)  # seconds a run takes at least to be caught, and
    slow_factor: float = number(3.0, above=0)  # times the 95th percentile of its operation


@dataclass(frozen=True, slots=True, kw_only=True)
class GCSettings:
    """`[gc]`: how GCOptimizer collects between requests."""

    workload: str | None = field(default=None, metadata={"none": True})  # what `perfkit.prepare()` sets it for
    compaction: bool = False  # and whether it gives memory back when idle
    immortal: bool = True  # "fork_server": nothing counts references to what lives then, on Python 3.12 and 3.13
    pause: float = number(0.002, above=0)  # seconds that one collection should take
    deep_age: float = number(600.0, above=0)  # seconds until all that is frozen is looked at again, or
    deep_growth: float = number(0.6, above=0)  # this part of the resident memory added
    much_garbage: int = number(20_000, least=0)  # objects found then that end freezing what survives


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """`[client]`: defaults of `perfkit.chat`."""

    default_model: str | None = None
    fast_model: str | None = None  # answers simple questions that ask for no model, where
    prefer_fast_models: bool = False  # this is set
    budget_per_request: float | None = number(None, least=0)  # US dollars a call that says nothing may cost at most
    max_concurrent: int = number(5, least=1)

    @property
    def idle(self) -> str | None:
        """What does nothing as it is set, in words."""
        if self.prefer_fast_models and self.fast_model is None:
            return "client.prefer_fast_models does nothing: client.fast_model names no model for simple questions"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """`[app]`: what kind of process this is."""

    preset: str | None = None  # "production", "development" or "testing": defaults below all that is set elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """`[web]`: what is done around each request of a web app, or task of Celery."""

    request_timeout: float | None = number(None, above=0)  # seconds that all calls made for one request have together
    request_budget: float | None = number(None, least=0)  # US dollars they may cost together
    collect_garbage: bool = False  # between requests, see GCOptimizer.collect_between_requests


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardSettings:
    """`[dashboard]`: who may read it beside those whom the framework admits, and whether these may read prompts."""

    token: str | None = field(default=None, repr=False)  # of machines: "Authorization: Bearer <token>"
    prompts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsSettings:
    """`[alerts]`: what is watched and who is told."""

    interval: float = number(10.0, above=0)  # seconds between two evaluations
    defaults: bool = True  # whether the four rules of the RecoAgent guide are there
    daily_limit: float | None = number(None, above=0)  # US dollars; None: the budget of all calls for a day
    webhook: str | None = field(default=None, repr=False)
    rules: Mapping[str, Any] = field(default_factory=dict)  # name to condition, duration, severity, by, min_count


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """`[providers.<name>]`: one provider of the router; `kind` defaults to the name."""

    kind: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    models: tuple[str, ...] | Mapping[str, str] | None = None  # names, or what callers say to the provider's own name
    weight: float = number(1.0, above=0)
    priority: int = 1  # 1 is first
    quality: float | None = number(None, least=0)  # 0..1
    max_concurrency: int | str | None = None  # calls at a time; "adaptive" learns it from latency
    rpm: float | None = number(None, above=0)  # requests a minute
    tpm: float | None = number(None, above=0)  # tokens a minute
    cost_limit_per_request: float | None = number(None, least=0)  # dollars
    cost_limit_per_day: float | None = number(None, least=0)  # dollars
    context_window: int | None = number(None, least=1)  # tokens
    capabilities: tuple[str, ...] | None = None  # of "tools", "vision", "audio", "json", "streaming"; None: unknown
    prefill: bool = False  # goes on with an assistant's message that is the last one
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """`[routes.<name>]`: a name to use as `model=`, with how its answers may be shared."""

    model: str
    provider: str | None = None
    cacheable: bool | None = None  # True: share answers whatever the temperature
    ttl: float | None = number(None, above=0)
    timeout: float | None = number(None, above=0)
    semantic: bool = False  # serve answers of questions that mean the same
    fallback_response: str | None = None  # what is answered when every provider failed
    hedge: bool | None = None  # as in [router]
    resume: bool | None = None
    compress: bool | None = None  # as in [tokens]


TABLES: dict[str, type[Any]] = {
    "app": AppSettings,
    "metrics": MetricsSettings,
    "connections": ConnectionsSettings,
    "state": StateSettings,
    "cache": CacheSettings,
    "semantic": SemanticSettings,
    "router": RouterSettings,
    "tokens": TokensSettings,
    "agents": AgentsSettings,
    "profiler": ProfilerSettings,
    "gc": GCSettings,
    "client": ClientSettings,
    "web": WebSettings,
    "dashboard": DashboardSettings,
    "alerts": AlertsSettings,
}
NAMED_TABLES: dict[str, type[Any]] = {"providers": ProviderSettings, "routes": RouteSettings}
