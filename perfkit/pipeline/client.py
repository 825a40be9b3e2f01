"""The way of a call, top to bottom: plan, cache, budget, provider, record.

`Client` wires the shared rooms together and is the only place that knows all of them. One call reads straight down
`run`: what is asked and whether it may be kept (the Planner), whether it is known already (the cache, one thread per
question), who answers at what cost (`_ask`: the router holds and settles money per attempt through a Purse), and what
is recorded of it (`_finish`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from perfkit import _process
from perfkit._shared import Shared
from perfkit.agents import map_bounded
from perfkit.caching import CachePolicy, ResponseCache
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import BudgetExceededError
from perfkit.metrics import PerformanceTracker
from perfkit.pipeline.call import Call, Purse, Ways, checked_context, unpacked
from perfkit.pipeline.known import Known
from perfkit.pipeline.meter import Meter
from perfkit.pipeline.plan import Planner, model_for
from perfkit.pipeline.scoping import current_scope
from perfkit.pipeline.stream import ChatStream, listen, replayed
from perfkit.routing import ProviderRouter
from perfkit.tokens import TokenOptimizer
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from perfkit._settings import RouteSettings
    from perfkit.caching import Entry
    from perfkit.caching.policy import PolicyOf
    from perfkit.config import Config
    from perfkit.routing import Quality
    from perfkit.routing.lastresort import FallbackResponse

__all__ = ["Client"]


class Client(Shared):
    """Chat with language models through cache, budgets and router, every part measured.

    Args:
        cache: collaborators; None means the shared ones.
        optimizer: counts, prices and budgets.
        router: chooses and calls providers.
        tracker: gets the metrics.
        clock: None means the system's.
        routes: names to use as `model=`, as in the `[routes]` table.
        **settings: keys of the `[client]` table: `default_model`, `max_concurrent` (of `batch`, 5).
    """

    _table = "client"

    def __init__(
        self,
        *,
        cache: ResponseCache | None = None,
        optimizer: TokenOptimizer | None = None,
        router: ProviderRouter | None = None,
        tracker: PerformanceTracker | None = None,
        clock: Clock | None = None,
        routes: Mapping[str, RouteSettings] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(settings)
        self._cache = cache if cache is not None else ResponseCache.instance()
        self._optimizer = optimizer if optimizer is not None else TokenOptimizer.instance()
        self._router = router if router is not None else ProviderRouter.instance()
        self._meter = Meter(tracker if tracker is not None else PerformanceTracker.instance())
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._known = Known(self._cache, self._clock)
        self._planner = Planner(routes if routes is not None else {}, clock=self._clock)

    def _configured(self, config: Config) -> None:
        self._planner.routes = config.named("routes")

    def chat(  # noqa: PLR0913 - the parameters of a chat call
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        provider: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        response_format: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        cache: CachePolicy | str | PolicyOf | None = None,
        context: Mapping[str, Any] | None = None,
        user: str | None = None,
        agent: str = "default",
        budget: float | None = None,
        fallback_response: FallbackResponse | None = None,
        hedge: bool | float | None = None,
        quality: Quality | None = None,
        **extra: Any,
    ) -> ChatResponse:
        """Ask a model and return its answer.

        Args:
            messages: a string (one user message) or a list of {"role", "content"}.
            model: model or route; None means `[client] default_model`.
            provider: pin one provider; no other is tried.
            temperature: None means the provider's own default; such answers are not cached unless the route says so.
            max_tokens: bound of the answer in tokens.
            tools: tool schemas in OpenAI's form.
            response_format: as OpenAI takes it.
            timeout: seconds for everything: waiting, retries, fallbacks and the whole body.
            cache: "smart", "always", "never", a CachePolicy, or a function of the ChatRequest that returns one of them;
                None means the configured policy.
            context: what the answer depends on besides the messages; part of the cache key.
            user: whose question it is: scopes the cache and budgets.
            agent: who in the application asks: a tag of metrics and reports.
            budget: US dollars this call may cost at most.
            fallback_response: text, or callable(request, error), that answers when every provider failed.
            hedge: ask a second provider if the first takes long: True for longer than usual, or seconds.
            quality: what is expected of the answer; if it is less, a better one is looked for.
            **extra: sent to the provider as they are.

        Raises:
            TypeError, ValueError: bad input, before any I/O; UnknownModelError (a ValueError): nobody offers the model.
            BudgetExceededError: a budget has too little left; nothing was sent.
            NoAvailableProviderError, MaxRetriesExceededError: providers are known, but none could answer.
            ProviderError, TransportError: the only provider tried failed.
        """
        asked: Any = messages
        request = ChatRequest(
            asked, model_for(asked, model, self.settings), temperature, max_tokens, tools, response_format, timeout,
            user, metadata=checked_context(context), extra=extra, agent=agent,
        )  # fmt: skip
        ways = Ways(fallback_response=fallback_response, hedge=hedge, quality=quality)
        return self.run(request, provider=provider, cache=cache, budget=budget, ways=ways)

    def stream(  # noqa: PLR0913 - the parameters of a chat call
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        provider: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        response_format: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        cache: CachePolicy | str | PolicyOf | None = None,
        context: Mapping[str, Any] | None = None,
        user: str | None = None,
        agent: str = "default",
        budget: float | None = None,
        fallback_response: FallbackResponse | None = None,
        resume: bool | None = None,
        **extra: Any,
    ) -> ChatStream:
        """Ask a model and iterate its answer as it comes; parameters and errors are those of `chat`.

        Input is checked now, the request is sent when iteration begins. A provider that fails before its first text is
        replaced unseen; afterwards StreamInterruptedError carries the text so far, or, with `resume`, another provider
        goes on with it.
        """
        asked: Any = messages
        request = ChatRequest(
            asked, model_for(asked, model, self.settings), temperature, max_tokens, tools, response_format, timeout,
            user, metadata=checked_context(context), extra=extra, agent=agent,
        )  # fmt: skip
        ways = Ways(fallback_response=fallback_response, resume=resume)
        call = self._plan(request, provider, cache, budget, ways)
        self._router.ensure_offered(call.target.model, call.provider)
        return ChatStream(self._streamed(call))

    @overload
    def batch(
        self, requests: Iterable[Any], *, max_concurrent: int | None = ..., on_error: Literal["raise"] = ...,
        ordered: Literal[True] = ..., progress: Callable[[int], Any] | None = ...,
    ) -> list[ChatResponse]: ...  # fmt: skip
    @overload
    def batch(
        self, requests: Iterable[Any], *, max_concurrent: int | None = ..., on_error: Literal["raise", "return"] = ...,
        ordered: bool = ..., progress: Callable[[int], Any] | None = ...,
    ) -> Any: ...  # fmt: skip
    def batch(
        self,
        requests: Iterable[Any],
        *,
        max_concurrent: int | None = None,
        on_error: Literal["raise", "return"] = "raise",
        ordered: bool = True,
        progress: Callable[[int], Any] | None = None,
    ) -> Any:
        """Answer many requests in `max_concurrent` threads.

        When it ends, in whatever way, no further call is made and every thread has ended.

        Args:
            requests: strings, message lists, dicts of `chat` arguments, or ChatRequests; may be a generator.
            max_concurrent: calls at a time; None means `[client] max_concurrent` (5).
            on_error: "raise" ends the batch with the first error that happens, as soon as the calls under way are done;
                "return" puts the error in the answer's place.
            ordered: True returns a list in the order of `requests`; False an iterator of answers as they are done.
            progress: called with the number of answers so far.

        Raises:
            ValueError: `on_error` or `max_concurrent` is wrong.
            TypeError: `requests` is a single one.
        """
        if on_error not in ("raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', not {on_error!r}")
        if isinstance(requests, str | bytes | Mapping | ChatRequest):
            raise TypeError(f"batch() takes several requests, not one {type(requests).__name__}: put it into a list")
        threads = max_concurrent if max_concurrent is not None else self.settings.max_concurrent
        failing = on_error == "raise"
        results = map_bounded(self._answer, requests, threads, ordered=ordered, progress=progress, fail_fast=failing)
        return list(unpacked(results)) if ordered else unpacked(results)

    def _answer(self, item: Any) -> ChatResponse:
        if isinstance(item, ChatRequest):
            return self.run(item)
        return self.chat(**item) if isinstance(item, Mapping) else self.chat(item)

    def run(
        self,
        request: ChatRequest,
        *,
        provider: str | None = None,
        cache: CachePolicy | str | PolicyOf | None = None,
        budget: float | None = None,
        ways: Ways | None = None,
    ) -> ChatResponse:
        """Answer a ready ChatRequest; `chat` is this with the request's parts as arguments."""
        call = self._plan(request, provider, cache, budget, ways)
        try:
            return self._answered(call)
        except BaseException as error:
            instead = self._instead(call, error)
            if instead is None:
                raise
        return instead

    def _instead(self, call: Call, error: BaseException) -> ChatResponse | None:
        """Record what went wrong, and return what is configured to be answered then: never after text was shown."""
        latency = self._clock.now() - call.started
        self._meter.failed(call, error, latency)
        instead = None if call.heard else self._router.instead(call.target, error, call.ways.fallback_response)
        return instead and instead.evolve(latency=latency, cache_decision="answered by the fallback")

    def _answered(self, call: Call) -> ChatResponse:
        if call.key is None:
            return self._finish(call, self._ask(call))
        timeout = call.target.timeout if call.target.timeout is not None else self._router.settings.timeout
        found = self._known.answer(
            call, lambda: self._ask(call.in_time(timeout, self._clock.now())), lambda: self._ask_again(call), timeout
        )
        return self._finish(call, found.value) if found.stored_at is None else self._serve(call, found)

    def _plan(
        self,
        request: ChatRequest,
        provider: str | None,
        cache: CachePolicy | str | PolicyOf | None,
        budget: float | None,
        ways: Ways | None = None,
    ) -> Call:
        _process.check()
        _process.deferred.run()
        now, current = self._clock.now(), current_scope()
        if current is not None:
            request = current.applied(request, now, self._router.settings.timeout)
        return self._planner.plan(
            request,
            now,
            provider=provider,
            policy=cache,
            cache=self._cache.settings,
            budget=budget if budget is not None else self.settings.budget_per_request,
            ways=ways,
        )

    def _ask(self, call: Call) -> ChatResponse:
        while True:
            try:
                response = self._router.execute_with_fallback(
                    self._prepared(call),
                    hedge=call.ways.hedge,
                    fallback_response="",  # which `run` sees to, outside the cache
                    provider=call.provider,
                    reserve=lambda request, name: self._hold(call, request, name),
                    quality=call.ways.quality,
                )
            except BudgetExceededError as refusal:
                call.retarget(self._optimizer.otherwise(refusal, call.target))
            else:
                return response.evolve(cost=call.cost, cache_decision=call.unkept)

    def _prepared(self, call: Call) -> ChatRequest:
        call.sent = self._optimizer.prepare(call.target)
        return call.sent

    def _ask_again(self, call: Call) -> ChatResponse:
        """Get a new answer behind the caller's back, who is served the old one."""
        call = call.again(self._clock.now())
        response = self._ask(call)
        self._track(call, response.provider, response.usage, response.cost)
        return response

    def _hold(self, call: Call, request: ChatRequest, provider: str) -> Purse:
        admission = self._optimizer.admit(request, provider, budget=call.budget, spent=call.spent)
        return Purse(self._optimizer, call, admission, request, provider)

    def _streamed(self, call: Call) -> Generator[str, None, ChatResponse]:
        try:
            return (yield from self._spoken(call))
        except Exception as error:
            instead = self._instead(call, error)
            if instead is None:
                raise
        yield instead.text
        return instead

    def _spoken(self, call: Call) -> Generator[str, None, ChatResponse]:
        found, search = self._known.look(call, lambda: self._ask_again(call))
        if found is not None:
            answer = self._serve(call, found)
            yield from replayed(answer.text)
            return answer
        since = self._cache.departures
        while True:
            deltas = self._router.stream_with_fallback(
                self._prepared(call),
                provider=call.provider,
                reserve=lambda request, name: self._hold(call, request, name),
                resume=call.ways.resume,
            )
            try:
                response = (yield from listen(call, deltas, self._clock)).evolve(
                    cost=call.cost, cache_decision=call.unkept
                )
            except BudgetExceededError as refusal:  # before the first text: it is asked for money only once
                call.retarget(self._optimizer.otherwise(refusal, call.target))
            else:
                break
        if call.key is not None:
            self._cache.store(call.key, response, since=since, **call.life)
            self._known.landed(search, response)
        return self._finish(call, response)

    def _finish(self, call: Call, response: ChatResponse) -> ChatResponse:
        latency = self._clock.now() - call.started
        self._track(call, response.provider, response.usage, response.cost)
        self._meter.answered(call, response, latency)
        if self._optimizer.has_budgets:
            self._meter.budgets(self._optimizer.budgets, self._clock.now())
        seconds = next((attempt.seconds for attempt in response.attempts if attempt.outcome == "ok"), None)
        self._optimizer.observe(call.sent if call.sent is not None else call.target, response, seconds)
        reason = call.unkept or call.decision.reason
        return response.evolve(cache_decision=reason, latency=latency, first_token=call.first_token)

    def _serve(self, call: Call, found: Entry) -> ChatResponse:
        latency = self._clock.now() - call.started
        answer = found.answer(
            cost=0.0,
            cached=call.found_as,
            cached_at=found.stored_at,
            age=max(0.0, self._clock.wall() - found.stored_at),
            cache_decision=call.decision.reason,
            latency=latency,
            first_token=None,
            attempts=(),
        )
        self._meter.hit(call, answer, found.cost, latency)
        self._optimizer.track_saving(found.cost, call.asked.agent, call.target.model, user=call.asked.user)
        return answer

    def _track(self, call: Call, provider: str, usage: Usage, cost: float | None) -> None:
        model = call.target.model  # as asked for, so that usage and latency are told of the same name
        asked, told = call.asked, {"tag": call.asked.metadata.get("tag"), "instead_of": call.dearer}
        self._optimizer.track_usage(asked.agent, model, usage, cost, provider=provider, user=asked.user, **told)

    def _apply(self) -> None:
        """Settings are read at every call."""

    def _after_fork(self) -> None:
        """Hold nothing that belongs to one process."""

    def close(self) -> None:
        """Nothing of its own to close: the rooms are bound to the process themselves."""

    def reset(self) -> None:
        """Forget what was decided about earlier requests."""
        self._planner.forget()
        self._meter.forget()

    def __repr__(self) -> str:
        providers, routes = ", ".join(self._router.list_providers()), ", ".join(self._planner.routes)
        return f"Client(providers={providers or 'none'}, routes={routes or 'none'})"
