"""RecoAgent's configuration of several providers, read field by field into a router's own terms.

The classes are there so that its documentation's code runs with another import; a mapping with the same fields does as
well. Each provider's model is offered under its own name and as "default", so that `model="default"` means the like
model of whoever is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from perfkit.errors import ConfigError, nearest
from perfkit.routing.profiles import DEFAULT

__all__ = [
    "AnthropicConfig",
    "GoogleConfig",
    "GroqConfig",
    "MultiLLMConfig",
    "OpenAIConfig",
    "Plan",
    "ProviderConfig",
    "plan_of",
]

KINDS = {"google": "gemini"}  # RecoAgent's names of providers, where ours differ
# Each vendor's model for everyday use in November 2026, for providers of which no model is told.
MODELS = {
    "openai": "gpt-6-luna",
    "openai_responses": "gpt-6-luna",
    "anthropic": "claude-sonnet-5-5",
    "gemini": "gemini-2.5-flash",
    "groq": "llama-3.3-70b-versatile",
    "deepseek": "deepseek-chat",
    "mistral": "mistral-large-latest",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """One provider.

    Attributes:
        api_key: None takes it from the provider's usual environment variable.
        model: asked for; None means the vendor's everyday one.
        temperature: of requests that give none.
        max_tokens: of requests that give none.
        base_url: None means the vendor's own address.
    """

    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    base_url: str | None = None


class OpenAIConfig(ProviderConfig):
    """RecoAgent's name for the settings of OpenAI."""

    __slots__ = ()


class AnthropicConfig(ProviderConfig):
    """RecoAgent's name for the settings of Anthropic."""

    __slots__ = ()


class GoogleConfig(ProviderConfig):
    """RecoAgent's name for the settings of Gemini."""

    __slots__ = ()


class GroqConfig(ProviderConfig):
    """RecoAgent's name for the settings of Groq."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLLMConfig:
    """Several providers and how to choose among them.

    Attributes:
        primary_provider: asked first, and the one of the strategy "manual".
        routing_strategy: "cost", "latency", "quality", "manual" or one of perfkit's own; None asks the primary first
            and then the fallbacks in their order.
        enable_fallback: ask another one when one fails.
        fallback_providers: in their order.
        cost_limit_per_provider: dollars a request may cost at most, by provider.
        daily_cost_limit_per_provider: dollars a day may cost at most, by provider.
        timeout_seconds: of a call with all its attempts.
        max_retries: attempts on any provider, the first included.
        openai, anthropic, google, groq: settings of these providers.
        providers: settings of further ones, by name.
    """

    primary_provider: str | None = None
    routing_strategy: str | None = None
    enable_fallback: bool = True
    fallback_providers: Sequence[str] = ()
    cost_limit_per_provider: Mapping[str, float] = field(default_factory=dict)
    daily_cost_limit_per_provider: Mapping[str, float] = field(default_factory=dict)
    timeout_seconds: float = 30.0
    max_retries: int = 3
    openai: ProviderConfig | None = None
    anthropic: ProviderConfig | None = None
    google: ProviderConfig | None = None
    groq: ProviderConfig | None = None
    providers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a configuration means to a router.

    Attributes:
        settings: of the `[router]` table.
        providers: by name, keyword arguments of `create_provider`, `kind` among them, in order.
        terms: by name, keyword arguments of `register_provider`.
    """

    settings: dict[str, Any]
    providers: dict[str, dict[str, Any]]
    terms: dict[str, dict[str, Any]]


def plan_of(config: Any) -> Plan:
    """Return what `config` means.

    Args:
        config: a MultiLLMConfig, or a mapping with its fields, of which those of a provider may be mappings too.

    Raises:
        ConfigError: a field is unknown (the nearest is named), or names no provider at all.
    """
    read = config if isinstance(config, MultiLLMConfig) else MultiLLMConfig(**_known(config, MultiLLMConfig, "config"))
    sections = {name: getattr(read, name) for name in ("openai", "anthropic", "google", "groq")} | dict(read.providers)
    given = {name: section for name, section in sections.items() if section is not None}
    named = [read.primary_provider, *read.fallback_providers, *given, *read.cost_limit_per_provider]
    order = list(dict.fromkeys(name for name in named if name is not None))
    if not order:
        raise ConfigError("config names no provider: give primary_provider, or a section such as openai=", key="config")
    made = {name: _provider(name, given.get(name)) for name in order}
    return Plan(settings=_settings(read), providers=made, terms=_terms(read, order))


def _known(config: Any, cls: type[Any], where: str) -> dict[str, Any]:
    if not isinstance(config, Mapping):
        raise ConfigError(f"{where} must be a {cls.__name__} or a mapping with its fields, not {config!r}", key=where)
    names = [one.name for one in fields(cls)]
    for name in config:
        if name not in names:
            raise ConfigError(f"unknown {where}.{name}; known: {', '.join(names)}{nearest(name, names)}", key=where)
    return dict(config)


def _settings(read: MultiLLMConfig) -> dict[str, Any]:
    strategy = read.routing_strategy if read.routing_strategy is not None else "priority"
    settings: dict[str, Any] = {
        "strategy": strategy,
        "timeout": read.timeout_seconds,
        "max_attempts": read.max_retries if read.enable_fallback else 1,
    }
    if read.primary_provider is not None:
        settings["primary"] = read.primary_provider
    return settings


def _provider(name: str, section: Any) -> dict[str, Any]:
    kind = KINDS.get(name, name)
    if section is None:
        section = {}
    is_own = isinstance(section, ProviderConfig)
    told: ProviderConfig = section if is_own else _Section(**_known(section, _Section, f"config.{name}"))
    kind = getattr(told, "kind", None) or kind
    model = told.model if told.model is not None else MODELS.get(kind)
    models = None if model is None else {model: model, DEFAULT: model}
    settings = {"kind": kind, "api_key": told.api_key, "base_url": told.base_url, "models": models}
    own = {"temperature": told.temperature, "max_tokens": told.max_tokens}
    return settings | {option: value for option, value in own.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section(ProviderConfig):
    kind: str | None = None


def _terms(read: MultiLLMConfig, order: Sequence[str]) -> dict[str, dict[str, Any]]:
    terms: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(order, 1):
        limits = {
            "cost_limit_per_request": read.cost_limit_per_provider.get(name),
            "cost_limit_per_day": read.daily_cost_limit_per_provider.get(name),
        }
        terms[name] = {"priority": place} | {limit: value for limit, value in limits.items() if value is not None}
    return terms
