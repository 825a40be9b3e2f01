"""Providers that play a script on a fake clock, and routers that ask them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from perfkit.clock import FakeClock
from perfkit.errors import DeadlineExceeded
from perfkit.metrics import PerformanceTracker
from perfkit.routing import ProviderRouter
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


HELLO: Any = "hello"  # one user message


class SlowClock(FakeClock):
    """A fake clock that remembers how long it was asked to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        super().sleep(seconds)


class Scripted:
    """A provider that takes one step of its script a call; the last one repeats.

    A step is seconds to take before a good answer, an error to raise, a function of the request, or for streams a list
    of deltas and errors.
    """

    def __init__(self, clock: FakeClock, *script: Any, models: list[str] | None = None) -> None:
        self.clock = clock
        self.script = list(script) or [0.0]
        self.supported_models = frozenset(models) if models is not None else None
        self.requests: list[ChatRequest] = []
        self.closed = 0  # streams that were closed early

    @property
    def calls(self) -> int:
        return len(self.requests)

    def _step(self, request: ChatRequest) -> Any:
        self.requests.append(request)
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        step = self._step(request)
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            step(request)
        elif isinstance(step, int | float):
            self.clock.advance(step)
        return answer("fine", request.model)

    def stream(self, request: ChatRequest) -> Generator[str, None, ChatResponse]:
        step = self._step(request)
        text = ""
        try:
            for part in step if isinstance(step, list) else [step]:
                if isinstance(part, BaseException):
                    raise part
                if callable(part):
                    part(request)
                    continue
                text += part
                yield part
        except GeneratorExit:
            self.closed += 1
            raise
        return answer(text, request.model)

    def close(self) -> None:
        """Nothing to close."""


def answer(text: str, model: str) -> ChatResponse:
    return ChatResponse(text, Usage(3, 5), model, "whatever it calls itself")


def hang(clock: FakeClock) -> Callable[[ChatRequest], None]:
    """Take all the time of the attempt."""

    def step(request: ChatRequest) -> None:
        assert request.timeout is not None
        clock.advance(request.timeout)
        raise DeadlineExceeded(f"no answer within {request.timeout:g} s")

    return step


class Ledger:
    """A `reserve` that remembers what became of each attempt's money."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.entries: list[list[Any]] = []
        self.errors: list[BaseException | None] = []  # of the attempts whose money was released

    def __call__(self, request: ChatRequest, provider: str) -> Entry:
        if self.error is not None:
            raise self.error
        self.entries.append([provider, request.timeout])
        return Entry(self.entries[-1], self.errors)


class Entry:
    def __init__(self, entry: list[Any], errors: list[BaseException | None]) -> None:
        self.entry = entry
        self.errors = errors

    def settle(self, response: ChatResponse) -> None:
        self.entry.append(("settled", response.text))

    def write_off(self, response: ChatResponse) -> None:
        self.entry.append(("written off", response.text))

    def release(self, error: BaseException | None) -> None:
        self.entry.append("released")
        self.errors.append(error)


@pytest.fixture
def clock() -> SlowClock:
    return SlowClock()


@pytest.fixture
def tracker(clock: SlowClock) -> Iterator[PerformanceTracker]:
    tracker = PerformanceTracker(clock=clock)
    yield tracker
    tracker.close()


@pytest.fixture
def router(clock: SlowClock, tracker: PerformanceTracker) -> Callable[..., ProviderRouter]:
    """Make a router with one provider a keyword, in the order of their priority, each with its script."""

    def make(settings: dict[str, Any] | None = None, /, **scripts: Any) -> ProviderRouter:
        router = ProviderRouter(clock=clock, tracker=tracker, **{"strategy": "priority", **(settings or {})})
        for priority, (name, script) in enumerate(scripts.items(), 1):
            steps = script if isinstance(script, tuple) else (script,)
            router.register_provider(name, Scripted(clock, *steps), priority=priority)
        return router

    return make


@pytest.fixture
def request_() -> ChatRequest:
    return ChatRequest(HELLO, "m", timeout=30)


@pytest.fixture
def ledger() -> type[Ledger]:
    return Ledger


@pytest.fixture
def hanging(clock: SlowClock) -> Callable[[ChatRequest], None]:
    return hang(clock)


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted
