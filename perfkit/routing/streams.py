"""Passing a provider's stream on: what the provider raises and what the caller does are kept apart."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from perfkit.errors import ResponseFormatError, StreamInterruptedError
from perfkit.metrics.operations import operations
from perfkit.providers.pace import Pace
from perfkit.routing.continuation import Seam
from perfkit.routing.health import Candidate
from perfkit.routing.hedge import Kind
from perfkit.values import ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Generator

    from perfkit.clock import Clock
    from perfkit.routing.attempts import Call
    from perfkit.routing.trial import Trial
    from perfkit.values import ChatRequest

__all__ = ["checked", "open_stream", "streamed"]

_KINDS: tuple[tuple[str, type], ...] = (("text", str), ("usage", Usage), ("model", str))  # what is read of any answer


def checked(response: Any, name: str) -> ChatResponse:
    """Return what a provider returned.

    Raises:
        ResponseFormatError: it is no ChatResponse, or one that cannot be told or counted.
    """
    if response.__class__ is ChatResponse and response.text.__class__ is str and response.model.__class__ is str:
        if response.usage.__class__ is Usage:  # as mostly
            return response
    elif not isinstance(response, ChatResponse):
        kind = type(response).__name__
        raise ResponseFormatError(f"provider {name!r} returned {kind}, not a ChatResponse", provider=name)
    for field, kind_ in _KINDS:
        if not isinstance(getattr(response, field), kind_):
            told = f"provider {name!r} returned a ChatResponse whose {field} is no {kind_.__name__}"
            raise ResponseFormatError(told, provider=name)
    return response


def open_stream(provider: Any, request: ChatRequest) -> Generator[str, None, ChatResponse]:
    """Return the provider's stream; of one that cannot stream, the whole answer in one piece."""
    if hasattr(provider, "stream"):
        deltas: Generator[str, None, ChatResponse] = provider.stream(request)
        return deltas
    return _whole(provider, request)


def _whole(provider: Any, request: ChatRequest) -> Generator[str, None, ChatResponse]:
    response: ChatResponse = provider.chat_completion(request)
    yield response.text
    return response


Race = Callable[[Kind], tuple["Trial", Any]]


def streamed(call: Call, clock: Clock, race: Race | None = None) -> Generator[str, None, ChatResponse]:
    """Yield the answer of a call, whoever gives it, and return it whole; `race` finds whose first text comes first."""
    while True:
        before = call.shown
        if race is None:
            trial, deltas = call.begin(), None
        else:
            trial, deltas = race(Kind(partial(_Begun, before=before), Candidate.usual_first_token, _partial))
        try:
            if deltas is None:
                deltas = _opened(trial, before)
            with operations.step("provider", trial.candidate.name):
                response = checked((yield from _relay(call, trial, deltas, clock)), trial.candidate.name)
        except BaseException as error:
            if trial.left or not call.fail(trial, error):
                raise
        else:
            answer = call.succeed(trial, response)
            assert answer is not None  # a stream is not looked at before it is shown
            return answer if not before else answer.evolve(text=call.shown)


def _opened(trial: Trial, before: str) -> Any:
    deltas = open_stream(trial.candidate.provider, trial.request)
    return deltas if not before else _Joined(deltas, Seam(before, exact=trial.candidate.terms.prefill))


class _Begun:
    """A stream whose first text has come, or its end."""

    def __init__(self, trial: Trial, before: str) -> None:
        self._deltas = deltas = _opened(trial, before)
        self._first: str | None = None
        self._end: StopIteration | None = None
        try:
            self._first = next(deltas)
        except StopIteration as end:
            self._end = end
        except BaseException:
            deltas.close()
            raise

    def __next__(self) -> str:
        if self._end is not None:
            raise StopIteration(self._end.value)
        if self._first is None:
            return str(next(self._deltas))
        first, self._first = self._first, None
        return first

    def throw(self, error: type[BaseException]) -> None:
        if self._end is not None:
            raise StopIteration(self._end.value)
        self._deltas.throw(error)

    def close(self) -> None:
        self._deltas.close()


class _Joined:
    """A provider's stream without what repeats the text before."""

    def __init__(self, deltas: Generator[str, None, ChatResponse], seam: Seam) -> None:
        self._deltas, self._seam = deltas, seam
        self._end: StopIteration | None = None

    def __next__(self) -> str:
        if self._end is not None:
            raise StopIteration(self._end.value)
        try:
            while not (delta := self._seam.feed(next(self._deltas))):
                continue
        except StopIteration as end:
            delta = self._seam.rest()
            if not delta:
                raise
            self._end = end
        return delta

    def throw(self, error: type[BaseException]) -> None:
        self._deltas.throw(error)

    def close(self) -> None:
        self._deltas.close()


def _relay(call: Call, trial: Trial, deltas: Any, clock: Clock) -> Generator[str, None, Any]:
    """Yield every delta and return the provider's response; its errors pass through.

    If the caller leaves in between, the provider's stream is closed at once and the attempt ends as abandoned.
    """
    rate = trial.request.min_tokens_per_second
    pace = None if rate is None else Pace(rate, clock)
    with closing(deltas):
        while True:
            try:
                delta = next(deltas)
            except StopIteration as end:
                return end.value
            if pace is not None:
                _keep(pace, delta, trial)
            handed_out = clock.now()
            if not trial.shown:
                trial.shown = True
                trial.candidate.spoke(handed_out - trial.began)
            if call.resumable:
                call.heard(delta)
            try:
                yield delta
            except BaseException:
                call.abandon(trial, _partial(deltas))
                raise
            pause = clock.now() - handed_out
            trial.pauses += pause
            if pace is not None:
                pace.paused(pause)


def _keep(pace: Pace, delta: str, trial: Trial) -> None:
    """Note a delta.

    Raises:
        StreamInterruptedError: it came too late.
    """
    if pace.left < 0:
        rate, name = trial.request.min_tokens_per_second, trial.candidate.name
        raise StreamInterruptedError(f"the stream of {name} fell below {rate:g} tokens a second", provider=name)
    pace.heard(delta)


def _partial(deltas: Any) -> ChatResponse | None:
    """Close the provider's stream; return the response if it makes one of what came so far."""
    try:
        deltas.throw(GeneratorExit)
    except StopIteration as end:
        return end.value if isinstance(end.value, ChatResponse) else None
    except BaseException:  # the caller is leaving: nobody is there to be told
        return None
    return None
