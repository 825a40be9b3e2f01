"""ProviderFactory: RecoAgent's name for a router made from a configuration, with the names of its methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.routing.router import ProviderRouter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.routing.profiles import ModelProfile
    from perfkit.values import Usage

__all__ = ["ProviderFactory"]


class ProviderFactory:
    """A router under the names RecoAgent has for it; new code uses the router.

    Args:
        config: see `ProviderRouter.from_config`.
        router: takes the configuration; None makes a private one.

    Attributes:
        router: the router; calls go through it, so that they can fall back.
    """

    def __init__(self, config: Any, router: ProviderRouter | None = None) -> None:
        self.router = (router if router is not None else ProviderRouter()).from_config(config)

    def get_provider(self, name: str | None = None) -> Any:
        """Return the provider called `name`, or whom the strategy would ask now."""
        return self.router.get_provider(name)

    def list_providers(self) -> tuple[str, ...]:
        """Return the names of the providers."""
        return self.router.list_providers()

    def get_provider_info(self, name: str) -> dict[str, Any]:
        """Return what is known of a provider; see `ProviderRouter.get_provider_info`."""
        return self.router.get_provider_info(name)

    def get_request_cost(self, name: str, usage: Usage | Mapping[str, Any]) -> float | None:
        """Return the dollars of a call; see `ProviderRouter.get_request_cost`."""
        return self.router.get_request_cost(name, usage)

    def get_cheapest_provider(self) -> str:
        """Return the name of the cheapest provider."""
        return self.router.cheapest_provider()

    def get_fastest_provider(self) -> str:
        """Return the name of the fastest provider."""
        return self.router.fastest_provider()

    def get_best_quality_provider(self) -> str:
        """Return the name of the best provider."""
        return self.router.best_quality_provider()

    def health_check(self) -> dict[str, dict[str, Any]]:
        """Return the health of every provider; see `ProviderRouter.health`."""
        return self.router.health()

    def profiles(self) -> tuple[ModelProfile, ...]:
        """Return the profiles of the models on offer."""
        return self.router.profiles()
