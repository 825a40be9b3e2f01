"""The table of a router's providers: who is registered, from the configuration or by hand, and how each one fares.

The table is never changed, it is replaced: calls read it without a lock.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import UnknownModelError, UnknownNameError, nearest
from perfkit.resilience.breaker import Rules
from perfkit.routing.configured import close_all, provider_of
from perfkit.routing.health import Candidate
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perfkit._settings import ProviderSettings
    from perfkit.config import Config
    from perfkit.metrics import PerformanceTracker

__all__ = ["Roster"]


class Roster(Shared):
    """Providers by name, those of the configuration among them.

    Args:
        clock: None means the system's.
        tracker: handed to the providers that are made here.
        settings: of the `[router]` table.
    """

    _table = "router"

    def __init__(self, *, clock: Clock | None, tracker: PerformanceTracker | None, settings: Mapping[str, Any]) -> None:
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker = tracker
        self._candidates: Mapping[str, Candidate] = {}  # never changed, replaced: read without a lock
        self._rows: dict[str, ProviderSettings] = {}  # of the candidates that come from the configuration
        self._lock = threading.Lock()  # guards the replacement of _candidates and _rows
        super().__init__(settings)

    def _rules(self) -> Rules:
        return Rules(self.settings.failure_threshold, self.settings.open_seconds)

    def _forget(self) -> None:
        with self._lock:
            self._candidates, self._rows = {}, {}

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for candidate in self._candidates.values():
            candidate._after_fork()  # noqa: SLF001 - its owner

    def close(self) -> None:
        """Let the configured providers go of what they hold; they may be used again."""
        close_all([self._candidates[name] for name in tuple(self._rows) if name in self._candidates])

    # --- who is there

    def register_provider(
        self,
        name: str,
        provider: Any,
        *,
        weight: float = 1,
        priority: int = 1,
        models: Iterable[str] | None = None,
    ) -> None:
        """Add a provider, or put another one, with a clean record, in the place of the one called `name`.

        Args:
            name: unique; a tag of metrics and part of errors.
            provider: any object with `chat_completion(request) -> ChatResponse`; `stream` is used if there.
            weight: share of the traffic for the strategy "weighted".
            priority: 1 is first for the strategy "priority".
            models: names it offers; None means its `supported_models`, and any model if that is None too.

        Raises:
            TypeError: it is no provider, or an argument has the wrong type.
            ValueError: the name is empty or the weight is not above 0.
        """
        candidate = self._candidate(name, provider, weight, priority, models)
        with self._lock:
            replaced = self._candidates.get(name) if self._rows.pop(name, None) is not None else None
            self._candidates = {**self._candidates, name: candidate}
        close_all([replaced] if replaced is not None else [])

    def _candidate(
        self, name: str, provider: Any, weight: float, priority: int, models: Iterable[str] | None
    ) -> Candidate:
        if not isinstance(name, str) or not name:
            raise ValueError(f"a provider's name must be a string that is not empty, not {name!r}")
        if not callable(getattr(provider, "chat_completion", None)):
            raise TypeError(f"provider {name!r} has no method chat_completion(request): {provider!r}")
        if models is None:
            models = getattr(provider, "supported_models", None)
        if isinstance(models, str):
            raise TypeError(f"models of provider {name!r} must be a list of names, not the string {models!r}")
        return Candidate(
            name,
            provider,
            weight=finite("weight", weight, above=0),
            priority=int(finite("priority", priority)),
            models=frozenset(models) if models is not None else None,
            rules=self._rules(),
            clock=self._clock,
        )

    def unregister_provider(self, name: str) -> None:
        """Take a provider out; calls that are at it end normally.

        Raises:
            UnknownNameError: there is none called `name`.
        """
        with self._lock:
            removed = self._candidates.get(name)
            if removed is None:
                raise UnknownNameError.of("provider", name, self._candidates)
            self._candidates = {key: one for key, one in self._candidates.items() if key != name}
            ours = self._rows.pop(name, None) is not None
        close_all([removed] if ours else [])

    def _configured(self, config: Config) -> None:
        """Make the configured providers those of `config`; those registered by hand stay."""
        rows = {
            name: row
            for name, row in config.named("providers").items()
            if name in self._rows or name not in self._candidates
        }
        made = {name: self._made(name, row) for name, row in rows.items() if self._rows.get(name) != row}
        with self._lock:
            gone = [self._candidates[name] for name in self._rows if name not in rows or name in made]
            kept = {name: one for name, one in self._candidates.items() if one not in gone}
            self._candidates = {**kept, **made}
            self._rows = rows
        close_all(gone)

    def _made(self, name: str, row: ProviderSettings) -> Candidate:
        provider = provider_of(name, row, self._tracker)
        return self._candidate(name, provider, row.weight, row.priority, row.models)

    def list_providers(self) -> tuple[str, ...]:
        """Return the names of the registered providers."""
        return tuple(self._candidates)

    def models(self) -> frozenset[str]:
        """Return the models that are offered by name; a provider that takes any model adds none."""
        return frozenset().union(*(one.models for one in self._candidates.values() if one.models is not None))

    def _named(self, name: str) -> Candidate:
        found = self._candidates.get(name)
        if found is None:
            raise UnknownNameError.of("provider", name, self._candidates)
        return found

    def health(self) -> dict[str, dict[str, Any]]:
        """Return the health of every provider, by name, in JSON types.

        Each has `status` ("healthy", "degraded": one of the last five attempts failed, "unavailable"), `state` of its
        circuit ("closed", "open", "half-open"), `reason` it is unavailable, `avg_latency` (moving average of
        successful attempts, seconds), `success_rate` (percent of the last 100 attempts; None before the first),
        `in_flight`, `last_error` ({"error": class name, "at": epoch seconds} or None), `cooldown` (seconds until it may
        be used again) and `missing_models`.
        """
        return {name: candidate.health() for name, candidate in self._candidates.items()}

    def _offers(self, model: str | None, provider: str | None) -> list[Candidate]:
        asked = self._candidates.values() if provider is None else (self._named(provider),)
        offers = [candidate for candidate in asked if candidate.offers(model)]
        if not offers:
            raise self._unknown(model, provider)
        return offers

    def _unknown(self, model: str | None, provider: str | None) -> UnknownModelError:
        if provider is not None:
            return UnknownModelError(f"provider {provider!r} does not offer {model!r}", model=model)
        if not self._candidates:
            return UnknownModelError(
                f"no provider is registered to ask for {model!r}; configure [providers.<name>] or register_provider()",
                model=model,
            )
        known = sorted(self.models())
        return UnknownModelError(
            f"no provider offers {model!r}; offered: {', '.join(known) or 'none'}{nearest(model, known)}", model=model
        )
