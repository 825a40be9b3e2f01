"""The way of a call that is planned, top to bottom: known already, else asked for at a price, then recorded.

`answer` and `stream` read straight down: is it known (the cache, one thread per question), who answers at what cost
(`_ask`: the router holds and settles money per attempt through a Purse), and what is told of it (`_finish`, `_serve`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from perfkit.caching.entry import Entry, Kept, Life
from perfkit.caching.leading import Lead
from perfkit.caching.loading import LIMITS
from perfkit.errors import BudgetExceededError
from perfkit.pipeline.call import Call, Purse
from perfkit.pipeline.known import Known
from perfkit.pipeline.stream import listen, noted, replayed
from perfkit.pipeline.together import SharedStreams, TornAwayError
from perfkit.routing.lastresort import STALE, hopeless

if TYPE_CHECKING:
    from collections.abc import Generator

    from perfkit.caching import ResponseCache
    from perfkit.clock import Clock
    from perfkit.pipeline.meter import Meter
    from perfkit.routing import ProviderRouter
    from perfkit.tokens import TokenOptimizer
    from perfkit.values import ChatRequest, ChatResponse, Usage

__all__ = ["Way"]


class Way:
    """Leads calls through the rooms.

    Args:
        cache: what is known.
        optimizer: prepares requests, counts, prices and budgets.
        router: chooses and calls providers.
        meter: records.
        clock: times.
    """

    def __init__(
        self, cache: ResponseCache, optimizer: TokenOptimizer, router: ProviderRouter, meter: Meter, clock: Clock
    ) -> None:
        self._cache, self._optimizer, self._router = cache, optimizer, router
        self._meter, self._clock = meter, clock
        self._known = Known(cache, clock)
        self._streams = SharedStreams(clock)

    def answer(self, call: Call) -> ChatResponse:
        """Answer a call."""
        self._settle_ways(call)
        try:
            return self._answered(call)
        except BaseException as error:
            instead = self._instead(call, error)
            if instead is None:
                raise
        return instead

    def stream(self, call: Call) -> Generator[str, None, ChatResponse]:
        """Yield the text of the answer as it comes, and return the whole."""
        self._settle_ways(call)
        try:
            return (yield from self._heard(call))
        except Exception as error:
            instead = self._instead(call, error)
            if instead is None:
                raise
        yield instead.text
        return instead

    def _settle_ways(self, call: Call) -> None:
        if call.ways.fallback_response is None and self._router.settings.fallback_response == STALE:
            call.ways = replace(call.ways, fallback_response=STALE)

    def _instead(self, call: Call, error: BaseException) -> ChatResponse | None:
        """Record what went wrong, and return what is configured to be answered then: never after text was shown."""
        latency = self._clock.now() - call.started
        self._meter.failed(call, error, latency)
        if call.heard:
            return None
        kept = self._stale(call, error)
        if kept is not None:
            return self._serve(call, kept)
        instead = self._router.instead(call.target, error, call.ways.fallback_response)
        return instead and instead.evolve(latency=latency, cache_decision="answered by the fallback")

    def _stale(self, call: Call, error: BaseException) -> Entry | None:
        """Return the answer that was kept for the case that all providers fail."""
        wanted = call.ways.fallback_response == STALE and call.key is not None and hopeless(error)
        return self._cache.left(str(call.key)) if wanted else None

    def _answered(self, call: Call) -> ChatResponse:
        if call.key is None:
            return self._finish(call, self._ask(call))
        timeout = self._timeout(call)
        found = self._known.answer(
            call, lambda: self._ask(call.in_time(timeout, self._clock.now())), lambda: self._ask_again(call), timeout
        )
        return self._finish(call, found.value) if found.stored_at is None else self._serve(call, found)

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
                return response if call.aliases is None else call.aliases.restore_response(response)

    def _prepared(self, call: Call) -> ChatRequest:
        target, wanted = call.target, call.ways.compress
        if wanted or (wanted is None and self._optimizer.settings.compress):
            target, call.aliases = self._optimizer.compress_request(target)
        call.sent = self._optimizer.prepare(target)
        return call.sent

    def _ask_again(self, call: Call) -> ChatResponse:
        """Get a new answer behind the caller's back, who is served the old one."""
        call = call.again(self._clock.now())
        response = self._ask(call)
        self._track(call, response.provider, response.usage, response.cost)
        return response

    def _hold(self, call: Call, request: ChatRequest, provider: str) -> Purse:
        own_name = partial(self._router.own_name, provider, request.model)
        admission = self._optimizer.admit(
            request, provider, budget=call.budget, spent=call.spent, wallets=call.wallets, own_name=own_name
        )
        return Purse(self._optimizer, call, admission, request, provider, own_name)

    def _heard(self, call: Call) -> Generator[str, None, ChatResponse]:
        """Return the text of an answer, if several want it that is not known the same one for all of them."""
        if call.key is None or self._cache.peek(call.key) is not None:
            return self._spoken(call)
        return self._heard_by_all(call, call.key)

    def _heard_by_all(self, call: Call, key: str) -> Generator[str, None, ChatResponse]:
        while True:
            live, mine = self._streams.board(key, call, lambda: self._spoken(call))
            deltas = self._streams.hear(key, live, self._timeout(call))
            try:
                if mine:
                    return (yield from deltas)
                response = yield from noted(call, deltas)
            except (*LIMITS, TornAwayError):  # of him who asked first, or fetched
                if mine or call.heard or self._clock.now() - call.started >= self._timeout(call):
                    raise
            else:
                return self._share(call, response)

    def _share(self, call: Call, response: ChatResponse) -> ChatResponse:
        """Record a call that was answered by another one's stream."""
        found = self._cache.lookup(str(call.key))
        if found is None:  # not one to keep
            found = self._unkept(str(call.key), response)
        return self._serve(call, found)

    def _timeout(self, call: Call) -> float:
        return call.target.timeout if call.target.timeout is not None else self._router.settings.timeout

    def _spoken(self, call: Call) -> Generator[str, None, ChatResponse]:
        found, search = self._known.look(call, lambda: self._ask_again(call))
        lead = found if found is not None else self._lead(call)
        if isinstance(lead, Entry):
            return (yield from self._replay(call, lead))
        since = self._cache.departures
        with lead:
            try:
                response = yield from lead.paced(listen(call, partial(self._begin, call), self._clock))
            except Exception as error:
                old = lead.instead(error)
                if old is None:
                    raise
                return (yield from self._replay(call, old))
            if call.key is not None:
                self._cache.store(call.key, response, since=since, **call.life)
                kept = self._cache.peek(call.key)
                lead.land(kept if kept is not None else self._unkept(call.key, response), kept=kept is not None)
        self._known.landed(search, response)
        return self._finish(call, response)

    def _replay(self, call: Call, found: Entry) -> Generator[str, None, ChatResponse]:
        answer = self._serve(call, found)
        yield from replayed(answer.text)
        return answer

    def _lead(self, call: Call) -> Lead | Entry:
        """Return the lead of an answer to be streamed, for all who want it, or what another one kept meanwhile."""
        if call.key is None:
            return Lead(call.heard)
        drive = partial(self._streams.drain, call.key, call)
        return self._cache.lead(call.key, drive, call.heard, self._timeout(call))

    def _unkept(self, key: str, response: ChatResponse) -> Entry:
        """Return an answer that is not one to keep as those get it who asked for it meanwhile."""
        return Entry(key, Kept(None, response, 0), Life(0.0), self._clock.now(), self._clock.wall())

    def _begin(self, call: Call, refusal: BudgetExceededError | None) -> Generator[str, None, ChatResponse]:
        """Begin to stream; after a budget's refusal, which comes before the first text, otherwise if it may be."""
        if refusal is not None:
            call.retarget(self._optimizer.otherwise(refusal, call.target))
        deltas = self._router.stream_with_fallback(
            self._prepared(call),
            provider=call.provider,
            hedge=call.ways.hedge,
            reserve=lambda request, name: self._hold(call, request, name),
            resume=call.ways.resume,
        )
        return deltas if call.aliases is None else call.aliases.restore_stream(deltas)

    def _finish(self, call: Call, response: ChatResponse) -> ChatResponse:
        latency = self._clock.now() - call.started
        self._track(call, response.provider, response.usage, response.cost)
        self._meter.answered(call, response, latency)
        if self._optimizer.has_budgets:
            self._meter.budgets(self._optimizer.budgets, self._clock.now())
        seconds = next((attempt.seconds for attempt in response.attempts if attempt.outcome == "ok"), None)
        self._optimizer.observe(call.sent if call.sent is not None else call.target, response, seconds)
        reason = call.unkept or call.decision.reason
        saved = 0 if call.aliases is None else call.aliases.saved_tokens
        return response.evolve(cache_decision=reason, latency=latency, first_token=call.first_token, saved_tokens=saved)

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
        asked, tag = call.asked, call.asked.metadata.get("tag")
        self._optimizer.track_saving(found.cost, asked.agent, call.target.model, user=asked.user, tag=tag)
        return answer

    def _track(self, call: Call, provider: str, usage: Usage, cost: float | None) -> None:
        model = call.target.model  # as asked for, so that usage and latency are told of the same name
        asked, told = call.asked, {"tag": call.asked.metadata.get("tag"), "instead_of": call.dearer}
        self._optimizer.track_usage(asked.agent, model, usage, cost, provider=provider, user=asked.user, **told)
