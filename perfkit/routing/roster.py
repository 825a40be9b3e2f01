"""The table of a router's providers: who is registered, from the configuration or by hand, and how each one fares.

Who offers a model is remembered in the table; of providers that say so themselves (`offers(model)`) for ten seconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.config import Config, from_file
from perfkit.errors import UnknownModelError, UnknownNameError, nearest, unread_settings
from perfkit.resilience.breaker import Rules
from perfkit.routing.configured import close_all, provider_of
from perfkit.routing.gates import Gates
from perfkit.routing.health import Candidate
from perfkit.routing.multi import plan_of
from perfkit.routing.outliers import SWEEP, eject
from perfkit.routing.probes import Prober
from perfkit.routing.profiles import DEFAULT, profile_of
from perfkit.routing.sharing import Sharing
from perfkit.routing.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfkit._settings import ProviderSettings
    from perfkit.metrics import PerformanceTracker
    from perfkit.state import RedisLink

__all__ = ["Roster"]

log = logging.getLogger("perfkit.routing")
MOST_MODELS = 1000  # whose providers are remembered


class Table(dict[str, Candidate]):
    """Candidates by name, and who of them offers a model; never changed, replaced: read without a lock.

    Attributes:
        by_model: who offers what was asked for until now.
        fit_all: of nobody is anything known that a request could ask too much of.
    """

    def __init__(self, candidates: Mapping[str, Candidate] | None = None) -> None:
        super().__init__(candidates or {})
        self.fit_all = all(candidate.fits_all for candidate in self.values())
        self.by_model: dict[str | None, list[Candidate]] = {}

    def offers(self, model: str | None) -> list[Candidate]:
        """Return who offers `model`; the list is not to be changed."""
        found = self.by_model.get(model)
        if found is None:
            found = [candidate for candidate in self.values() if candidate.offers(model)]
            if found and len(self.by_model) < MOST_MODELS:
                self.by_model[model] = found
        return found


class Roster(Shared):
    """Providers by name, those of the configuration among them.

    Args:
        clock: None means the system's.
        tracker: handed to the providers that are made here.
        state: Redis that processes share health and limits through; None means that of the `[state]` table, if any.
        settings: of the `[router]` table.
    """

    _table = "router"
    _planned: frozenset[str] = frozenset()  # names that came by from_config

    def __init__(
        self,
        *,
        clock: Clock | None,
        tracker: PerformanceTracker | None,
        state: RedisLink | None,
        settings: Mapping[str, Any],
    ) -> None:
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker = tracker
        self._candidates = Table()
        self._rows: dict[str, ProviderSettings] = {}  # of the candidates that come from the configuration
        self._lock = threading.Lock()  # guards the replacement of _candidates and _rows, and _tend_at
        self._sharing = Sharing(state, self._find, self._all)
        self._prober = Prober(self._all, lambda: self.settings.probe_interval, self._clock)
        self._tend_at = 0.0
        super().__init__(settings)

    def _find(self, name: str) -> Candidate | None:
        return self._candidates.get(name)

    def _all(self) -> list[Candidate]:
        return list(self._candidates.values())

    def _rules(self) -> Rules:
        settings = self.settings
        return Rules(
            settings.failure_threshold,
            settings.open_seconds,
            failure_rate=settings.failure_rate,
            slow_rate=settings.slow_rate if settings.slow_seconds is not None else 1.0,
            minimum_calls=settings.minimum_calls,
        )

    def _news(self, name: str, kind: str, seconds: float, model: str | None) -> None:
        if kind == "open":
            self._prober.watch()
        self._sharing.tell(name, kind, seconds, model)

    def _tend(self) -> None:
        """Do what is due every ten seconds: hear siblings, look for outliers, ask providers anew what they offer."""
        self._sharing.listen()
        now, factor = self._clock.now(), self.settings.outlier_factor
        with self._lock:
            if now < self._tend_at:
                return
            self._tend_at = now + SWEEP
            self._candidates = Table(self._candidates)
        for candidate in eject(self._all(), now, factor) if factor is not None else ():
            log.warning("%s is an outlier and preferred last for %.0f s", candidate.name, candidate.ejected_until - now)

    def _forget(self) -> None:
        self._prober.stop()
        with self._lock:
            self._candidates, self._rows = Table(), {}

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._sharing._after_fork()
        for candidate in self._candidates.values():
            candidate._after_fork()

    def close(self) -> None:
        """Let the configured providers go of what they hold; they may be used again."""
        close_all([self._candidates[name] for name in tuple(self._rows) if name in self._candidates])

    # --- who is there

    def register_provider(  # noqa: PLR0913 - what is agreed about a provider
        self,
        name: str,
        provider: Any,
        *,
        weight: float = 1,
        priority: int = 1,
        models: Iterable[str] | None = None,
        quality: float | None = None,
        max_concurrency: int | str | None = None,
        rpm: float | None = None,
        tpm: float | None = None,
        cost_limit_per_request: float | None = None,
        cost_limit_per_day: float | None = None,
        context_window: int | None = None,
        capabilities: Iterable[str] | None = None,
        prefill: bool = False,
    ) -> None:
        """Add a provider, or put another one, with a clean record, in the place of the one called `name`.

        Args:
            name: unique; a tag of metrics and part of errors.
            provider: any object with `chat_completion(request) -> ChatResponse`; `stream` is used if there.
            weight: share of the traffic for the strategies "weighted" and "round_robin".
            priority: 1 is first for the strategy "priority".
            models: names it offers; None means its `supported_models`, and any model if that is None too.
            quality: 0..1, until its answers are judged.
            max_concurrency: calls at a time; "adaptive" learns it from latency. More wait if nobody else can serve.
            rpm: requests a minute, of all processes that share a Redis.
            tpm: tokens a minute, the same.
            cost_limit_per_request: US dollars; a request that may cost more goes elsewhere.
            cost_limit_per_day: US dollars since midnight UTC, of all processes that share a Redis.
            context_window: tokens; None means what the price table knows.
            capabilities: of "tools", "vision", "audio", "json", "streaming"; None means unknown, and nothing is held
                against it.
            prefill: it continues an assistant's message that is the last one, so a broken stream is resumed exactly.

        Raises:
            TypeError: it is no provider, or an argument has the wrong type.
            ValueError: the name is empty or an argument is out of bounds.
        """
        given = {key: value for key, value in locals().items() if key not in ("self", "name", "provider")}
        candidate = self._candidate(name, provider, Terms.of(name, provider, given))
        with self._lock:
            replaced = self._candidates.get(name) if self._rows.pop(name, None) is not None else None
            self._candidates = Table({**self._candidates, name: candidate})
        close_all([replaced] if replaced is not None else [])

    def _candidate(self, name: str, provider: Any, terms: Terms) -> Candidate:
        gates = Gates(name, terms, self._clock, self._sharing, self.settings) if terms.limited else None
        candidate = Candidate(
            name, provider, terms=terms, rules=self._rules(), clock=self._clock, gates=gates, tell=self._news
        )
        candidate.slow_seconds = self.settings.slow_seconds
        return candidate

    def unregister_provider(self, name: str) -> None:
        """Take a provider out; calls that are at it end normally.

        Raises:
            UnknownNameError: there is none called `name`.
        """
        with self._lock:
            removed = self._candidates.get(name)
            if removed is None:
                raise UnknownNameError.of("provider", name, self._candidates)
            self._candidates = Table({key: one for key, one in self._candidates.items() if key != name})
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
            self._candidates = Table({**kept, **made})
            self._rows = rows
            self._tend_at = 0.0  # there may be a Redis now
        close_all(gone)

    def _made(self, name: str, row: ProviderSettings) -> Candidate:
        provider = provider_of(name, row, self._tracker)
        given = {field.name: getattr(row, field.name) for field in fields(Terms)}
        return self._candidate(name, provider, Terms.of(name, provider, given))

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
        else:
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

    def _measured(self) -> PerformanceTracker:
        tracker = self._tracker
        if tracker is None:
            from perfkit.metrics import PerformanceTracker

            tracker = self._tracker = PerformanceTracker.instance()
        return tracker

    # --- life

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
        if provider is None:
            offers = self._candidates.offers(model)
        else:
            offers = [named] if (named := self._named(provider)).offers(model) else []
        if not offers:
            raise self._unknown(model, provider)
        return offers

    def _asked_for(self, model: str) -> list[Candidate]:
        """Return who may be asked for `model`, whatever his health; nobody may."""
        return self._candidates.offers(model)

    def _unknown(self, model: str | None, provider: str | None) -> UnknownModelError:
        if provider is not None:
            return UnknownModelError(f"provider {provider!r} does not offer {model!r}", model=model)
        if not self._candidates:
            return UnknownModelError(
                f"no provider is registered to ask for {model!r}; configure [providers.<name>], as in "
                f"perfkit.configure(providers={{'openai': {{}}}}), or register_provider(){unread_settings()}",
                model=model,
            )
        known = sorted(self.models())
        vendors = [name for name, one in self._candidates.items() if one.models is None]
        told = f"; of {', '.join(vendors)} only what is named as its vendor's own models: list others in models"
        return UnknownModelError(
            f"no provider offers {model!r}; offered: {', '.join(known) or 'none by name'}"
            f"{told if vendors else ''}{nearest(model, known)}",
            model=model,
        )
