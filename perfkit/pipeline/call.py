"""One call under way, and the money of its attempts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from perfkit.caching import CachePolicy
from perfkit.errors import ResponseFormatError, TransportError
from perfkit.routing.lastresort import STALE
from perfkit.routing.policy import TABLE, judge
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from perfkit._settings import RouteSettings
    from perfkit.agents import Result
    from perfkit.caching import Decision
    from perfkit.routing import Quality
    from perfkit.routing.lastresort import FallbackResponse
    from perfkit.tokens import Admission, TokenOptimizer
    from perfkit.tokens.compression import Aliases
    from perfkit.tokens.wallet import Wallet
    from perfkit.values import ChatRequest, ChatResponse

__all__ = ["Call", "Meaning", "Purse", "Ways", "checked_context", "routed", "unpacked"]

ALWAYS = CachePolicy.of("always")
LAST_RESORT = 86_400.0  # seconds that an answer is kept for the time when all providers fail
NOTICEABLE = 0.01  # seconds: the pipeline's own work is not taken from a call's time


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """What the caller, or the route, says of the ways to an answer; None leaves it to the `[router]` table."""

    fallback_response: FallbackResponse | None = None
    hedge: bool | float | None = None
    resume: bool | None = None
    quality: Quality | None = None
    compress: bool | None = None  # of the route; None leaves it to the `[tokens]` table


class Meaning(NamedTuple):
    """A question as a semantic cache looks for it."""

    partition: str  # all but the words, as one key
    route: str  # the model or route asked for
    text: str


@dataclass(slots=True, eq=False)
class Call:
    """One call under way: what was asked, what is sent, and what becomes of it."""

    asked: ChatRequest  # `model` may be a route
    target: ChatRequest  # what a provider gets
    provider: str | None  # pinned
    decision: Decision
    key: str | None
    started: float
    budget: float | None = None  # US dollars for all attempts together
    policy: CachePolicy = ALWAYS
    meaning: Meaning | None = None  # of a question that may be answered by another
    by_meaning: bool = False
    spent: float = 0.0  # US dollars paid for attempts so far
    first_token: float | None = None
    heard: list[str] = field(default_factory=list)
    abandoned: bool = False
    sent: ChatRequest | None = None  # `target` as it was compressed and laid out
    aliases: Aliases | None = None  # what gives the answer to a compressed one its UUIDs back
    dearer: str | None = None  # model in whose place a cheaper one answers
    unkept: str = ""  # why the answer is not one to keep, if it is not
    ways: Ways = Ways()
    wallets: tuple[Wallet, ...] = ()  # of the requests of the application that it is made for

    @property
    def found_as(self) -> Literal["semantic", "context", "exact"]:
        """How a known answer was found."""
        return "semantic" if self.by_meaning else "context" if self.policy.by_context else "exact"

    def retarget(self, target: ChatRequest) -> None:
        """Go on with another request, perhaps to another model than was asked for."""
        if target.model != self.target.model:
            self.unkept, self.dearer = "answered by a cheaper model", self.dearer or self.target.model
        self.target = target

    def again(self, now: float) -> Call:
        """Return the same call, begun anew."""
        call = Call(self.asked, self.target, self.provider, self.decision, self.key, now, self.budget, self.policy)
        call.ways = self.ways
        return call

    @property
    def life(self) -> dict[str, Any]:
        """How long the answer is to be kept, as the cache takes it."""
        kept = LAST_RESORT if self.ways.fallback_response == STALE else None
        return {"ttl": self.decision.ttl, "stale_ttl": self.decision.stale_ttl, "stale_if_error": kept}

    def in_time(self, timeout: float, now: float) -> Call:
        """Leave a call that has waited for another one's answer in vain no more than the rest of its time."""
        waited = now - self.started
        if waited > NOTICEABLE:
            self.target = self.target.evolve(timeout=max(timeout - waited, NOTICEABLE))
        return self


class Purse:
    """The money of one attempt: held before it, settled at what it cost, released when it cost nothing.

    An attempt that failed is charged and counted for what the provider most likely worked for, at an estimate: the
    counted prompt and the text that came. That is so of a stream that broke or was left after output, and, for the
    prompt alone, of a request that was sent and then timed out, broke off or got an answer nobody can read. Nothing is
    due when the request was never sent, or was answered with an error. Such an attempt is not part of the call's own
    `cost`, if another one answers it; so a resumed stream pays for each part at whoever gave it, and of a hedged pair
    both are paid.
    """

    __slots__ = ("_before", "_call", "_hold", "_optimizer", "_own_name", "_provider", "_request", "max_tokens")

    def __init__(
        self,
        optimizer: TokenOptimizer,
        call: Call,
        admission: Admission,
        request: ChatRequest,
        provider: str,
        own_name: Callable[[], str],
    ) -> None:
        self._optimizer = optimizer
        self._call = call
        self._hold = admission.hold
        self.max_tokens = admission.max_tokens
        self._request, self._provider, self._own_name = request, provider, own_name
        self._before = len(call.heard)  # pieces that others have given

    def settle(self, response: ChatResponse) -> Mapping[str, Any]:
        """Pay what `response` cost; if that cannot be told, all that was held. Return what the answer says of it."""
        call, cost = self._call, None
        if self.max_tokens is not None and response.finish_reason == "length":
            call.unkept = "cut short by a budget"
        if self._request.model != call.target.model:
            call.unkept = "answered by another model"
        try:
            cost = self._cost(response)
        finally:
            if self._hold is not None:
                self._hold.settle(cost)
        if call.abandoned:  # nobody is there to be given the response, and to count it
            self._track(response.usage, cost)
        return {"cost": cost, "cache_decision": call.unkept}

    def _cost(self, response: ChatResponse) -> float | None:
        cost = self._optimizer.calculate_cost(response.usage, response.model)
        return cost if cost is not None else self._priced(response.usage)

    def _priced(self, usage: Usage) -> float | None:
        """Price tokens as those of the model that was asked for."""
        names = dict.fromkeys((self._own_name(), self._request.model))
        costs = (self._optimizer.calculate_cost(usage, name) for name in names)
        return next((cost for cost in costs if cost is not None), None)

    def write_off(self, response: ChatResponse) -> None:
        """Pay and count an answer that is not used."""
        self._pay(lambda: (response.usage, self._cost(response)))

    def release(self, error: BaseException | None) -> None:
        """Give back what was held, or pay for what was done before `error`; None: the caller left the stream."""
        if error is None or len(self._call.heard) > self._before or _may_have_run(error):
            self._pay(self._estimated)
        elif self._hold is not None:
            self._hold.release()

    def _pay(self, told: Callable[[], tuple[Usage, float | None]]) -> None:
        """Settle and count what `told` returns; if it fails, all that was held is settled."""
        cost = None
        try:
            usage, cost = told()
        finally:
            if self._hold is not None:
                self._hold.settle(cost)
        self._call.spent += cost or 0.0
        self._track(usage, cost)

    def _track(self, usage: Usage, cost: float | None) -> None:
        asked, model = self._call.asked, self._request.model
        self._optimizer.track_usage(asked.agent, model, usage, cost, provider=self._provider, user=asked.user)

    def _estimated(self) -> tuple[Usage, float | None]:
        """Return the estimated usage of the prompt and what was heard of this attempt, and its cost."""
        count, model = self._optimizer.count_tokens, self._request.model
        heard = "".join(self._call.heard[self._before :])
        usage = Usage(count(self._request.messages, model), count(heard, model), estimated=True)
        return usage, self._priced(usage)


def _may_have_run(error: BaseException) -> bool:
    """Return whether the provider most likely read the prompt before an attempt failed without output."""
    if isinstance(error, TransportError):
        return error.sent
    return isinstance(error, ResponseFormatError | TimeoutError) or judge(error) is TABLE[BaseException]


def checked_context(context: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the context of a call, an empty one for None.

    Raises:
        TypeError: it is no mapping.
    """
    if context is None:
        return {}
    if type(context) is not dict and not isinstance(context, Mapping):
        raise TypeError(f"context must be a mapping, not {context!r}")
    return context


def routed(request: ChatRequest, route: RouteSettings) -> ChatRequest:
    """Return the request a route stands for."""
    timeout = request.timeout if request.timeout is not None else route.timeout
    return request.evolve(model=route.model, timeout=timeout, metadata={"route": request.model, **request.metadata})


def unpacked(
    results: Generator[Result[ChatResponse], None, None],
) -> Generator[ChatResponse | Exception | None, None, None]:
    """Yield the answer or the error of each result; closing this closes `results`."""
    with closing(results):
        for result in results:
            yield result.value if result.ok else result.error
