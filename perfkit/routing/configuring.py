"""Where a router gets its providers from by hand: a configuration with RecoAgent's fields, or perfkit's own tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from perfkit.config import Config, from_file
from perfkit.routing.catalogue import DEFAULT, Catalogue
from perfkit.routing.multi import plan_of
from perfkit.routing.profiles import profile_of

__all__ = ["Configuring"]


class Configuring(Catalogue):
    """A router that is made from a configuration."""

    _planned: frozenset[str] = frozenset()  # names that came by from_config

    def from_config(self, config: Any) -> Self:
        """Take providers and settings from a configuration, in the place of those an earlier one gave.

        Args:
            config: a `perfkit.routing.MultiLLMConfig` or a mapping with its fields (RecoAgent's); or a mapping, or the
                path of a TOML file, with perfkit's own tables `router` and `providers`.

        Returns:
            The router itself, so that `ProviderRouter().from_config(...)` is one.

        Raises:
            ConfigError, UnknownNameError: something in it is unknown or cannot be used.
        """
        if isinstance(config, str | Path):
            config = from_file(Path(config))
        if isinstance(config, Mapping) and "router" in config:
            tables = Config(config, file={}, environ={})
            self.configure(**tables.given("router"))
            self._configured(tables)
            return self
        self._take(config)
        return self

    def _take(self, config: Any) -> None:
        from perfkit.providers import cached_provider

        plan = plan_of(config)
        made = {name: cached_provider(name=name, **settings) for name, settings in plan.providers.items()}
        self.configure(**plan.settings)
        for name in self._planned & set(self.list_providers()) - made.keys():
            self.unregister_provider(name)
        for name, provider in made.items():
            quality = profile_of(provider.own_name(DEFAULT)).quality  # as a rule, until its answers are judged
            self.register_provider(name, provider, quality=quality, **plan.terms[name])
        self._planned = frozenset(made)
