"""Providers: from a ChatRequest to a wire format, and from what comes back to a ChatResponse or the right error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit._registry import Registry
from perfkit.providers.base import Provider
from perfkit.providers.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfkit.metrics import PerformanceTracker
    from perfkit.transport import ConnectionPool

__all__ = ["PROVIDERS", "Provider", "create_provider"]

PROVIDERS = Registry("provider kind", {kind: preset.provider for kind, preset in PRESETS.items()})


def create_provider(  # noqa: PLR0913 - the settings of [providers.<name>], all but the first by keyword
    kind: str,
    *,
    name: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    models: Iterable[str] | None = None,
    connections: ConnectionPool | None = None,
    tracker: PerformanceTracker | None = None,
    **options: Any,
) -> Provider:
    """Return a new provider of a kind; nothing is sent before its first call.

    Args:
        kind: "openai", "anthropic", a preset such as "groq", or what was registered in `PROVIDERS`: a class or function
            that takes `name` and, by keyword, `base_url`, `api_key`, `models`, `connections`, `tracker` and options.
        name: what the router, metrics and errors call it; the kind if None.
        base_url: address with the version prefix; the preset's if None.
        api_key: key; None takes it from the provider's usual environment variable.
        models: models it offers, None for any.
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
        required = {"key_required": base_url is None and not preset.is_local}
        options = {"key_variable": preset.key_variable, **required, **preset.options, **options}
        base_url = preset.base_url if base_url is None else base_url
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
