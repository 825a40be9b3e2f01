"""The router: which provider answers a request, and what happens when it does not.

Every attempt goes to a provider that offers the model, was not tried in this call, and may be used now; its strategy
says which. Failing over is immediate. Health is kept by the providers' `Candidate`s, the course of one call by a
`Call`; the router itself owns the table of providers and nothing is locked while a provider is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.errors import ConfigError
from perfkit.routing.attempts import Call, Reserve, Setup, none_available
from perfkit.routing.experiments import Experiments
from perfkit.routing.strategies import called, choose, strategy_named
from perfkit.routing.streams import checked, open_stream, relay
from perfkit.values import ChatRequest, ChatResponse, finite

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from perfkit.clock import Clock
    from perfkit.metrics import PerformanceTracker
    from perfkit.routing.strategies import Strategy

__all__ = ["ProviderRouter"]


class ProviderRouter(Experiments):
    """Choose a provider for each request and fall back to the next when it fails.

    Args:
        strategy: a name from STRATEGIES, "package.module:attribute", or any callable that takes the candidates and the
            request and returns the candidate to ask, its name, or several with the best first.
        clock: None means the system's.
        tracker: gets `provider_latency`, `provider_failure` and `provider_fallback`; None means the shared one.
        **settings: keys of the `[router]` table: `max_attempts`, `timeout`, `attempt_timeout`, `failure_threshold`,
            `open_seconds`.
    """

    def __init__(
        self,
        *,
        strategy: str | Strategy | None = None,
        clock: Clock | None = None,
        tracker: PerformanceTracker | None = None,
        **settings: Any,
    ) -> None:
        self._callable: Strategy | None = None
        if callable(strategy):
            self._callable = strategy
        elif strategy is not None:
            settings["strategy"] = strategy
        super().__init__(clock=clock, tracker=tracker, settings=settings)
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

    # --- calls

    def get_provider(self, name: str | None = None) -> Any:
        """Return the provider registered as `name`; without a name, the one that would be asked now.

        Raises:
            UnknownNameError: there is none of that name.
            NoAvailableProviderError: none can be used now.
        """
        return self._named(name if name is not None else self.route_request()).provider

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
                return self._mirrored(request, call.succeed(response))

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

    # --- life

    def _after_fork(self) -> None:
        super()._after_fork()
        self._apply()  # a strategy made new has new locks

    def reset(self) -> None:
        """Forget all providers and what is known of them."""
        self.close()
        self._forget()
        self._apply()

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {one.breaker.describe()}" for name, one in self._candidates.items())
        return f"<ProviderRouter {called(self._setup.strategy)}: {told or 'no providers'}>"
