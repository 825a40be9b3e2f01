"""The router: which provider answers a request, and what happens when it does not.

Every attempt goes to a provider that offers the model, was not tried in this call, and may be used now; its strategy
says which. Failing over is immediate. Health is kept by the providers' `Candidate`s, the course of one call by a
`Call`; the router itself owns the table of providers and nothing is locked while a provider is asked.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import ConfigError, UnknownModelError, UnknownNameError, nearest
from perfkit.resilience.breaker import Rules
from perfkit.routing.attempts import Call, Reserve, Setup, none_available
from perfkit.routing.configured import close_all, provider_of
from perfkit.routing.health import Candidate
from perfkit.routing.strategies import called, choose, strategy_named
from perfkit.routing.streams import checked, open_stream, relay
from perfkit.values import ChatRequest, ChatResponse, finite

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from perfkit._settings import ProviderSettings
    from perfkit.config import Config
    from perfkit.metrics import PerformanceTracker
    from perfkit.routing.strategies import Strategy

__all__ = ["ProviderRouter"]


class ProviderRouter(Shared):
    """Choose a provider for each request and fall back to the next when it fails.

    Args:
        strategy: a name from STRATEGIES, "package.module:attribute", or any callable that takes the candidates and the
            request and returns the candidate to ask, its name, or several with the best first.
        clock: None means the system's.
        tracker: gets `provider_latency`, `provider_failure` and `provider_fallback`; None means the shared one.
        **settings: keys of the `[router]` table: `max_attempts`, `timeout`, `attempt_timeout`, `failure_threshold`,
            `open_seconds`.
    """

    _table = "router"

    def __init__(
        self,
        *,
        strategy: str | Strategy | None = None,
        clock: Clock | None = None,
        tracker: PerformanceTracker | None = None,
        **settings: Any,
    ) -> None:
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker = tracker
        self._callable: Strategy | None = None
        self._candidates: Mapping[str, Candidate] = {}  # never changed, replaced: read without a lock
        self._rows: dict[str, ProviderSettings] = {}  # of the candidates that come from the configuration
        self._lock = threading.Lock()  # guards the replacement of _candidates and _rows
        if callable(strategy):
            self._callable = strategy
        elif strategy is not None:
            settings["strategy"] = strategy
        super().__init__(settings)
        self._apply()

    def configure(self, **settings: Any) -> None:
        """Change settings in place, `strategy` among them; those not given stay as they are.

        Raises:
            ConfigError, UnknownNameError: a name or value is wrong; nothing has changed then.
        """
        before, given = self._callable, settings.get("strategy")
        if isinstance(given, str):
            strategy_named(given)
            self._callable = None
        elif callable(given):
            self._callable = settings.pop("strategy")
        try:
            super().configure(**settings)
        except ConfigError:
            self._callable = before
            raise

    @property
    def strategy(self) -> str | Strategy:
        """How a provider is chosen: a name, or the callable given; may be set."""
        return self._callable if self._callable is not None else str(self.settings.strategy)

    @strategy.setter
    def strategy(self, strategy: str | Strategy) -> None:
        self.configure(strategy=strategy)

    def _apply(self) -> None:
        strategy = self._callable if self._callable is not None else strategy_named(self.settings.strategy)
        self._setup = Setup(self.settings, strategy, self._clock)
        for candidate in self._candidates.values():
            candidate.breaker.rules = self._rules()

    def _rules(self) -> Rules:
        return Rules(self.settings.failure_threshold, self.settings.open_seconds)

    # --- providers

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

    def get_provider(self, name: str | None = None) -> Any:
        """Return the provider registered as `name`; without a name, the one that would be asked now.

        Raises:
            UnknownNameError: there is none of that name.
            NoAvailableProviderError: none can be used now.
        """
        return self._named(name if name is not None else self.route_request()).provider

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

    # --- calls

    def ensure_offered(self, model: str, provider: str | None = None) -> None:
        """Return if somebody (None), or the provider called `provider`, offers `model`, whatever his health.

        Raises:
            UnknownModelError: nobody does.
            UnknownNameError: there is no provider called `provider`.
        """
        self._offers(model, provider)

    def route_request(self, context: Mapping[str, Any] | ChatRequest | None = None) -> str:
        """Return the name of the provider that would be asked now; nothing is sent and nothing is taken.

        Args:
            context: a request, or a mapping; its "model", if there is one, has to be offered.

        Raises:
            UnknownModelError: nobody offers the model.
            NoAvailableProviderError: those who do cannot be used now.
        """
        if isinstance(context, ChatRequest):
            model: str | None = context.model
        else:
            model = None if context is None else context.get("model")
        offers = self._offers(model, None)
        now = self._clock.now()
        usable = [candidate for candidate in offers if candidate.usable(model, now)]
        if not usable:
            raise none_available(model, offers)
        return (usable[0] if len(usable) == 1 else choose(self._setup.strategy, usable, context)).name

    def execute_with_fallback(
        self,
        request: ChatRequest,
        max_attempts: int | None = None,
        deadline: float | None = None,
        *,
        provider: str | None = None,
        reserve: Reserve | None = None,
    ) -> ChatResponse:
        """Ask a provider, and another one if it fails, until there is an answer; it carries all `attempts`.

        Args:
            request: its `timeout` is for the whole; each attempt gets a share of it.
            max_attempts: None means the setting.
            deadline: seconds for the whole, in the place of the request's `timeout`.
            provider: ask this one only.
            reserve: called before each attempt with its request and the provider's name; holds money.

        Raises:
            UnknownModelError: nobody offers the model.
            UnknownNameError: there is no provider called `provider`.
            NoAvailableProviderError: nobody may be asked now; its `reasons` say why.
            BadRequestError: the request is wrong; nobody else is asked.
            BudgetExceededError: from `reserve`, at once.
            MaxRetriesExceededError: every attempt failed; a single one raises its own error.
            DeadlineExceeded: time ran out after several attempts.
        """
        if deadline is not None:
            request = request.evolve(timeout=finite("deadline", deadline, above=0))
        call = self._call(request, provider, max_attempts, reserve, streaming=False)
        while True:
            candidate = call.begin()
            try:
                response = checked(candidate.provider.chat_completion(call.request), candidate.name)
            except BaseException as error:
                if not call.fail(error):
                    raise
            else:
                return call.succeed(response)

    def stream_with_fallback(
        self,
        request: ChatRequest,
        *,
        provider: str | None = None,
        max_attempts: int | None = None,
        reserve: Reserve | None = None,
    ) -> Generator[str, None, ChatResponse]:
        """Yield an answer as it comes and return it whole; arguments and errors as in `execute_with_fallback`.

        A provider that fails before its first delta is replaced unseen; afterwards its error passes through. Closing
        the generator early closes the provider's stream at once.
        """
        call = self._call(request, provider, max_attempts, reserve, streaming=True)
        while True:
            candidate = call.begin()
            try:
                deltas = open_stream(candidate.provider, call.request)
                response = checked((yield from relay(call, deltas, self._clock)), candidate.name)
            except BaseException as error:
                if call.left or not call.fail(error):
                    raise
            else:
                return call.succeed(response)

    def _call(
        self,
        request: ChatRequest,
        provider: str | None,
        max_attempts: int | None,
        reserve: Reserve | None,
        *,
        streaming: bool,
    ) -> Call:
        offers = self._offers(request.model, provider)
        pinned, tracker = provider is not None, self._tracker
        if tracker is None:
            from perfkit.metrics import PerformanceTracker

            tracker = self._tracker = PerformanceTracker.instance()
        return Call(
            self._setup,
            request,
            offers,
            tracker,
            pinned=pinned,
            streaming=streaming,
            reserve=reserve,
            max_attempts=max_attempts,
        )

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

    # --- life

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for candidate in self._candidates.values():
            candidate._after_fork()  # noqa: SLF001 - its owner
        self._apply()  # a strategy made new has new locks

    def close(self) -> None:
        """Let the configured providers go of what they hold; they may be used again."""
        close_all([self._candidates[name] for name in tuple(self._rows) if name in self._candidates])

    def reset(self) -> None:
        """Forget all providers and what is known of them."""
        self.close()
        with self._lock:
            self._candidates, self._rows = {}, {}
        self._apply()

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {one.breaker.describe()}" for name, one in self._candidates.items())
        return f"<ProviderRouter {called(self._setup.strategy)}: {told or 'no providers'}>"
