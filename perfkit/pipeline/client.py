"""What applications call: `chat`, `stream`, `batch`.

`Client` wires the shared rooms together and is the only place that knows all of them. It checks and plans (the
Planner: what is asked, and whether the answer may be kept), and leads the call on its Way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from perfkit import _process
from perfkit._shared import Shared
from perfkit.agents import map_bounded
from perfkit.caching import CachePolicy, ResponseCache
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.operations import operations
from perfkit.pipeline.call import Call, Ways, checked_context, unpacked
from perfkit.pipeline.meter import Meter
from perfkit.pipeline.plan import Planner, model_for
from perfkit.pipeline.scoping import current_scope, within
from perfkit.pipeline.stream import ChatStream, begun_within
from perfkit.pipeline.way import Way
from perfkit.profiling import Profiler
from perfkit.routing import ProviderRouter
from perfkit.tokens import TokenOptimizer
from perfkit.values import ChatRequest, ChatResponse

if TYPE_CHECKING:
    from perfkit._settings import RouteSettings
    from perfkit.agents import Cancellation
    from perfkit.caching.policy import PolicyOf
    from perfkit.config import Config
    from perfkit.routing import Quality
    from perfkit.routing.lastresort import FallbackResponse

__all__ = ["Client"]

log = logging.getLogger("perfkit.client")


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
        self._profiler = Profiler.instance()
        self._way = Way(self._cache, self._optimizer, self._router, self._meter, self._clock)
        self._planner = Planner(routes if routes is not None else {}, clock=self._clock)
        self._apply()

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
            fallback_response: text, or callable(request, error), that answers when every provider failed; "stale" means
                the answer that the cache had, up to a day after its time.
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
        if extra.get("stream"):
            raise TypeError("chat() returns the whole answer; perfkit.stream(...) gives it as it comes")
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
        hedge: bool | float | None = None,
        resume: bool | None = None,
        **extra: Any,
    ) -> ChatStream:
        """Ask a model and iterate its answer as it comes; parameters and errors are those of `chat`.

        Input is checked now, the request is sent when iteration begins. A provider that fails before its first text is
        replaced unseen; afterwards StreamInterruptedError carries the text so far, or, with `resume`, another provider
        goes on with it. `hedge` is of the first text.
        """
        asked: Any = messages
        request = ChatRequest(
            asked, model_for(asked, model, self.settings), temperature, max_tokens, tools, response_format, timeout,
            user, metadata=checked_context(context), extra=extra, agent=agent,
        )  # fmt: skip
        ways = Ways(fallback_response=fallback_response, hedge=hedge, resume=resume)
        call = self._plan(request, provider, cache, budget, ways)
        self._router.ensure_offered(call.target.model, call.provider)
        if operations.watched and self._profiler.watches():
            return ChatStream(begun_within(self._profiler.profile(f"stream {request.model}"), self._way.stream(call)))
        return ChatStream(self._way.stream(call))

    @overload
    def batch(
        self, requests: Iterable[Any], *, max_concurrent: int | None = ..., on_error: Literal["raise"] = ...,
        ordered: Literal[True] = ..., progress: Callable[[int], Any] | None = ..., timeout: float | None = ...,
        rate: float | None = ..., cancel: Cancellation | None = ...,
    ) -> list[ChatResponse]: ...  # fmt: skip
    @overload
    def batch(
        self, requests: Iterable[Any], *, max_concurrent: int | None = ..., on_error: Literal["raise", "return"] = ...,
        ordered: bool = ..., progress: Callable[[int], Any] | None = ..., timeout: float | None = ...,
        rate: float | None = ..., cancel: Cancellation | None = ...,
    ) -> Any: ...  # fmt: skip
    def batch(  # noqa: PLR0913 - all but the requests are options
        self,
        requests: Iterable[Any],
        *,
        max_concurrent: int | None = None,
        on_error: Literal["raise", "return"] = "raise",
        ordered: bool = True,
        progress: Callable[[int], Any] | None = None,
        timeout: float | None = None,
        rate: float | None = None,
        cancel: Cancellation | None = None,
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
            timeout: seconds for all of them; calls under way end then too, with DeadlineExceeded.
            rate: calls begun a second at most.
            cancel: its `cancel()` ends the batch from any thread, with a CancelledError here.

        Raises:
            ValueError: `on_error`, `max_concurrent`, `timeout` or `rate` is wrong.
            TypeError: `requests` is a single one.
        """
        if on_error not in ("raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', not {on_error!r}")
        if isinstance(requests, str | bytes | Mapping | ChatRequest):
            raise TypeError(f"batch() takes several requests, not one {type(requests).__name__}: put it into a list")
        threads = max_concurrent if max_concurrent is not None else self.settings.max_concurrent
        failing = on_error == "raise"
        results = map_bounded(
            within(self._answer, timeout, self._clock), requests, threads, ordered=ordered, progress=progress,
            fail_fast=failing, timeout=timeout, rate=rate, cancel=cancel,
        )  # fmt: skip
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
        if operations.watched and self._profiler.watches():
            with self._profiler.profile(f"chat {request.model}"):
                return self._way.answer(self._plan(request, provider, cache, budget, ways))
        return self._way.answer(self._plan(request, provider, cache, budget, ways))

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
        call = self._planner.plan(
            request,
            now,
            provider=provider,
            policy=cache,
            cache=self._cache.settings,
            budget=budget if budget is not None else self.settings.budget_per_request,
            ways=ways,
        )
        if current is not None:
            call.wallets = current.wallets
        return call

    def _apply(self) -> None:
        """Settings are read at every call; say now which of them does nothing."""
        if self.settings.idle is not None:
            log.warning(self.settings.idle)

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
