"""The router: which provider answers a request, and what happens when it does not.

Every attempt goes to a provider that offers the model, was not tried in this call, and may be used now; its strategy
says which. Failing over is immediate. Health is kept by the providers' `Candidate`s, the course of one call by a
`Call`; the router itself owns the table of providers and nothing is locked while a provider is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from perfkit.errors import ConfigError, NoAvailableProviderError
from perfkit.metrics.operations import operations
from perfkit.resilience.allowance import Allowance
from perfkit.routing.attempts import Call
from perfkit.routing.course import Options, Setup
from perfkit.routing.endings import none_available
from perfkit.routing.experiments import Experiments
from perfkit.routing.fitness import NO_LIMITS, Limits, unfit
from perfkit.routing.health import Candidate
from perfkit.routing.hedge import Kind, Racer
from perfkit.routing.lastresort import STALE, FallbackResponse, answer_instead, hopeless
from perfkit.routing.straight import straight
from perfkit.routing.strategies import called, choose, reasons, strategy_named
from perfkit.routing.streams import checked, streamed
from perfkit.values import ChatRequest, ChatResponse, finite

if TYPE_CHECKING:
    from collections.abc import Generator

    from perfkit.clock import Clock
    from perfkit.metrics import PerformanceTracker
    from perfkit.routing.quality import Quality
    from perfkit.routing.strategies import Strategy
    from perfkit.routing.trial import Reserve, Trial
    from perfkit.state import RedisLink

__all__ = ["ProviderRouter"]


class ProviderRouter(Experiments):
    """Choose a provider for each request and fall back to the next when it fails.

    Args:
        strategy: a name from STRATEGIES, "package.module:attribute", or any callable that takes the candidates and the
            request and returns the candidate to ask, its name, or several with the best first.
        clock: None means the system's.
        tracker: gets `provider_latency`, `provider_failure` and `provider_fallback`; None means the shared one.
        state: Redis that processes share health and limits through; None means that of the `[state]` table, if any.
        **settings: keys of the `[router]` table.
    """

    def __init__(
        self,
        *,
        strategy: str | Strategy | None = None,
        clock: Clock | None = None,
        tracker: PerformanceTracker | None = None,
        state: RedisLink | None = None,
        **settings: Any,
    ) -> None:
        self._callable: Strategy | None = None
        if callable(strategy):
            self._callable = strategy
        elif strategy is not None:
            settings["strategy"] = strategy
        self._racer = Racer()
        super().__init__(clock=clock, tracker=tracker, state=state, settings=settings)
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
        settings = self.settings
        strategy = self._callable if self._callable is not None else strategy_named(settings.strategy)
        configure = getattr(strategy, "configure", None)
        if configure is not None:
            configure(settings)
        retries = Allowance(
            settings.retry_share,
            per_second=settings.retries_per_second,
            most=max(1.0, 10 * settings.retries_per_second),
            clock=self._clock,
        )
        self._hedges = Allowance(settings.hedge_share, most=10.0, start=0.0, clock=self._clock)
        limits = Limits.of(settings, None)
        self._limits = NO_LIMITS if limits == NO_LIMITS else limits
        self._plain = self._limits is NO_LIMITS and not settings.hedge
        self._setup = Setup(
            settings,
            strategy,
            getattr(strategy, "__call__", strategy),  # noqa: B004 - looked up once, not at every call
            self._clock,
            retries,
            offers=self._asked_for,
            models=self.models,
            reason=reasons(strategy),
            learn=getattr(strategy, "learn", None),
            eases=not getattr(strategy, "heeds_room", False),
        )
        self._tend_at = 0.0
        for candidate in self._candidates.values():
            candidate.breaker.rules = self._rules()
            candidate.slow_seconds = settings.slow_seconds
            if candidate.gates is not None:
                candidate.gates.let_wait(settings.max_waiting)

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
            context: a request, or a mapping; its "model", if there is one, has to be offered, and "max_latency",
                "min_quality" and "max_cost" kept.

        Raises:
            UnknownModelError: nobody offers the model.
            NoAvailableProviderError: those who do cannot be used now.
        """
        if isinstance(context, ChatRequest):
            model: str | None = context.model
        else:
            model = None if context is None else context.get("model")
        given = context if isinstance(context, Mapping) else None
        offers = self._fit(self._offers(model, None), context, given)
        now = self._clock.now()
        usable = [candidate for candidate in offers if candidate.usable(model, now)]
        if not usable:
            raise none_available(model, offers)
        return (usable[0] if len(usable) == 1 else choose(self._setup.strategy, usable, context)).name

    def execute_with_fallback(  # noqa: PLR0913 - the ways of one call
        self,
        request: ChatRequest,
        max_attempts: int | None = None,
        deadline: float | None = None,
        hedge: bool | float | None = None,
        fallback_response: FallbackResponse | None = None,
        *,
        provider: str | None = None,
        reserve: Reserve | None = None,
        quality: Quality | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> ChatResponse:
        """Ask a provider, and another one if it fails, until there is an answer; it carries all `attempts`.

        Args:
            request: its `timeout` is for the whole; each attempt gets a share of it.
            max_attempts: None means the setting.
            deadline: seconds for the whole, in the place of the request's `timeout`.
            hedge: ask a second provider when the first takes long: True at the 95th percentile of its latency, a
                number after so many seconds; None means the setting.
            fallback_response: text, or callable(request, error) -> text or ChatResponse, that answers when every
                provider failed; None means the setting, "" none at all.
            provider: ask this one only.
            reserve: called before each attempt with its request and the provider's name; holds money.
            quality: how good the answer has to be; if it is not, a better one is looked for.
            limits: any of `max_latency` (seconds), `min_quality` (0..1) and `max_cost` (US dollars for 1,000 tokens)
                that whoever answers has to keep, over those of the settings.

        Raises:
            UnknownModelError: nobody offers the model.
            UnknownNameError: there is no provider called `provider`.
            NoAvailableProviderError: nobody may be asked now; its `reasons` say why.
            OverloadedError: of those, the limits set here were used up and the queue was full or too slow.
            BadRequestError: the request is wrong; nobody else is asked.
            BudgetExceededError: from `reserve`, at once.
            MaxRetriesExceededError: every attempt failed; a single one raises its own error.
            DeadlineExceeded: time ran out after several attempts.
        """
        if deadline is not None:
            request = request.evolve(timeout=finite("deadline", deadline, above=0))
        try:
            if self._plain and not hedge and (max_attempts, provider, quality, limits) == _PLAIN:
                answer = self._straight(request, reserve)
            else:
                options = Options(max_attempts, provider is not None, reserve=reserve, quality=quality)
                answer = self._answered(self._call(request, provider, options, limits), hedge)
            return self._mirrored(request, answer) if self._mirrors else answer
        except Exception as error:
            instead = self.instead(request, error, fallback_response)
            if instead is None:
                raise
            return instead

    def _straight(self, request: ChatRequest, reserve: Reserve | None) -> ChatResponse:
        now = self._clock.now()
        if now >= self._tend_at:
            self._tend()
        table = self._candidates
        offers = table.by_model.get(request.model) or self._offers(request.model, None)
        if not table.fit_all:
            offers = self._fit(offers, request, None)
        answer = straight(self._setup, request, offers, now, reserve, self._measured)
        return self._answered(answer, None) if isinstance(answer, Call) else answer

    def _answered(self, call: Call, hedge: bool | float | None) -> ChatResponse:
        response = None
        while response is None:
            try:
                response = self._round(call, hedge)
            except Exception:
                response = call.settle_for_less()
                if response is None:
                    raise
        return response

    def _round(self, call: Call, hedge: bool | float | None) -> ChatResponse | None:
        """Make one attempt, or a hedged pair; None if another one has to follow."""
        if hedge or (hedge is None and self.settings.hedge):
            return call.succeed(*self._race(call, hedge, _WHOLE))
        trial = call.begin()
        try:
            response = _ask(trial)
        except BaseException as error:
            if not call.fail(trial, error):
                raise
            return None
        return call.succeed(trial, response)

    def _race(self, call: Call, hedge: bool | float | None, kind: Kind) -> tuple[Trial, Any]:
        delay = self.settings.hedge_delay if hedge is None else None if hedge is True else float(hedge)
        return self._racer.run(call, kind, delay, self._hedges)

    def instead(
        self, request: ChatRequest, error: BaseException, fallback_response: FallbackResponse | None = None
    ) -> ChatResponse | None:
        """Return what is configured to answer in the place of `error`, None where the error stands."""
        chosen = self.settings.fallback_response if fallback_response is None else fallback_response
        if not chosen or chosen == STALE or not hopeless(error):
            return None
        return answer_instead(chosen, request, error, self._measured())

    def stream_with_fallback(  # noqa: PLR0913 - the ways of one call
        self,
        request: ChatRequest,
        *,
        provider: str | None = None,
        max_attempts: int | None = None,
        hedge: bool | float | None = None,
        reserve: Reserve | None = None,
        resume: bool | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Generator[str, None, ChatResponse]:
        """Yield an answer as it comes and return it whole; arguments and errors as in `execute_with_fallback`.

        A provider that fails before its first delta is replaced unseen. Afterwards its error passes through, with the
        text so far as `partial`; with `resume` (None means the setting) another provider goes on with the answer. With
        `hedge`, a second provider is asked when the first text takes longer than usual, and whose comes first goes on.
        Closing the generator early closes the provider's stream at once.
        """
        options = Options(
            max_attempts=max_attempts,
            pinned=provider is not None,
            streaming=True,
            resume=self.settings.resume if resume is None else resume,
            reserve=reserve,
        )
        call = self._call(request, provider, options, limits)
        hedged = hedge or (hedge is None and self.settings.hedge)
        return (yield from streamed(call, self._clock, partial(self._race, call, hedge) if hedged else None))

    def _call(
        self, request: ChatRequest, provider: str | None, options: Options, limits: Mapping[str, Any] | None
    ) -> Call:
        if self._clock.now() >= self._tend_at:
            self._tend()
        offers = self._candidates.offers(request.model) if provider is None else ()
        if not offers:
            offers = self._offers(request.model, provider)
        if limits is not None or self._limits is not NO_LIMITS or not self._candidates.fit_all:
            offers = self._fit(offers, request, limits, streaming=options.streaming)
        tracker = self._tracker
        return Call(self._setup, request, offers, tracker if tracker is not None else self._measured(), options)

    def _fit(
        self, offers: list[Candidate], request: Any, limits: Mapping[str, Any] | None, *, streaming: bool = False
    ) -> list[Candidate]:
        """Return who of `offers` is able to serve a request and keeps the caller's limits.

        Raises:
            NoAvailableProviderError: nobody; its `reasons` name what each lacks.
        """
        wanted = self._limits if limits is None else Limits.of(self.settings, limits)
        reasons = {one.name: unfit(one, request, wanted, streaming=streaming) for one in offers}
        fit = [one for one in offers if reasons[one.name] is None]
        if not fit:
            told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise NoAvailableProviderError(f"no provider fits the request: {told}", reasons=reasons, attempts=())
        return fit

    def _after_fork(self) -> None:
        super()._after_fork()
        self._racer._after_fork()
        self._apply()  # a strategy made new has new locks

    def reset(self) -> None:
        """Forget all providers and what is known of them."""
        self.close()
        self._forget()
        self._apply()

    def close(self) -> None:
        """Let the configured providers and the threads go; all may be used again."""
        super().close()
        self._racer.close()

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {one.breaker.describe()}" for name, one in self._candidates.items())
        return f"<ProviderRouter {called(self._setup.strategy)}: {told or 'no providers'}>"


def _ask(trial: Trial) -> ChatResponse:
    candidate = trial.candidate
    operations.begin(trial, "provider", candidate.name)
    try:
        return checked(candidate.provider.chat_completion(trial.request), candidate.name)
    finally:
        operations.end(trial)


_PLAIN = (None, None, None, None)
_WHOLE = Kind(_ask, Candidate.usual_latency, unused=lambda response: response)
