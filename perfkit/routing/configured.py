"""The providers that come from the configuration: the router makes them, and lets go of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.errors import UnknownNameError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfkit._settings import ProviderSettings
    from perfkit.metrics import PerformanceTracker
    from perfkit.routing.health import Candidate

__all__ = ["close_all", "provider_of"]


def provider_of(name: str, row: ProviderSettings, tracker: PerformanceTracker | None) -> Any:
    """Return the provider that `[providers.<name>]` describes; nothing is sent."""
    from perfkit.providers import PROVIDERS, create_provider

    if row.kind is None and name not in PROVIDERS:
        raise UnknownNameError(
            f"the provider {name!r} needs a kind: 'openai' for whatever speaks as OpenAI does, or one of "
            f"{', '.join(PROVIDERS)}{nearest(name, PROVIDERS)}",
            name=name,
            known=tuple(PROVIDERS),
        )
    return create_provider(
        row.kind if row.kind is not None else name,
        name=name,
        base_url=row.base_url,
        api_key=row.api_key,
        models=row.models,
        tracker=tracker,
        **row.options,
    )


def close_all(candidates: Iterable[Candidate]) -> None:
    """Let the candidates' providers go of what they hold."""
    for candidate in candidates:
        candidate.provider.close()
