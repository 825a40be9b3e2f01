"""Providers: from a ChatRequest to a wire format, and from what comes back to a ChatResponse or the right error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit._registry import Registry
from perfkit.providers.base import Provider
from perfkit.providers.kept import ProviderCache
from perfkit.providers.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perfkit.metrics import PerformanceTracker
    from perfkit.transport import ConnectionPool

__all__ = ["PROVIDERS", "Provider", "ProviderCache", "cached_provider", "create_provider"]

PROVIDERS = Registry("provider kind", {kind: preset.provider for kind, preset in PRESETS.items()})


def create_provider(  # noqa: PLR0913 - the settings of [providers.<name>], all but the first by keyword
    kind: str,
    *,
    name: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    models: Iterable[str] | Mapping[str, str] | None = None,
    connections: ConnectionPool | None = None,
    tracker: PerformanceTracker | None = None,
    **options: Any,
) -> Provider:
    """Return a new provider of a kind; nothing is sent before its first call.

    Args:
        kind: "openai", "openai_responses", "anthropic", "gemini", "ollama", a preset such as "groq", or what was
            registered in `PROVIDERS`: a class or function that takes `name` and, by keyword, `base_url`, `api_key`,
            `models`, `connections`, `tracker` and options.
        name: what the router, metrics and errors call it; the kind if None.
        base_url: address with the version prefix; None takes OPENAI_BASE_URL, GROQ_BASE_URL and so on from the
            environment, else the vendor's own.
        api_key: key; None takes it from the provider's usual environment variable.
        models: models it offers, or a mapping from what callers say to its own names; None for those whose names begin
            as the vendor's do, and for any at another address.
        connections: pool to use, None for the shared one.
        tracker: gets the metrics, None for the shared one.
        **options: of the kind, for example `timeout`, `headers`, `max_tokens_field`, `key_variable`.

    Raises:
        UnknownNameError: no such kind; the known ones are named.
        ConfigError: a setting cannot be used.
    """
    part = PROVIDERS.get(kind)
    preset = PRESETS.get(kind)
    if preset is not None:
        base_url = preset.elsewhere() if base_url is None else base_url
        options = {**preset.settings(at_home=base_url is None), **options}
        base_url = preset.base_url or None if base_url is None else base_url
    provider: Provider = part(
        kind if name is None else name,
        base_url=base_url,
        api_key=api_key,
        models=models,
        connections=connections,
        tracker=tracker,
        **options,
    )
    return provider


_cache = ProviderCache(create_provider)


def cached_provider(kind: str, **settings: Any) -> Provider:
    """Return the provider of these settings, the same one for the same settings; arguments as of `create_provider`.

    The five used last are kept, by kind, address, models, options and a digest of the key.

    Raises:
        UnknownNameError, ConfigError: see `create_provider`.
    """
    return _cache.get(kind, **settings)
