from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from _draining import drain

from perfkit.errors import (
    BadRequestError,
    BudgetExceededError,
    DeadlineExceeded,
    MaxRetriesExceededError,
    NetworkError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    UnknownModelError,
)
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from routing.conftest import Ledger, SlowClock

    from perfkit.metrics import PerformanceTracker
    from perfkit.routing import ProviderRouter

    MakeRouter = Callable[..., ProviderRouter]


def test_deltas_come_as_they_are_and_the_response_at_the_end(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    money = ledger()
    heard, response = drain(router(a=["one ", "two"]).stream_with_fallback(request_, reserve=money))
    assert heard == ["one ", "two"]
    assert (response.text, response.provider) == ("one two", "a")
    assert [(a.provider, a.outcome, a.reason) for a in response.attempts] == [("a", "ok", "only candidate")]
    assert money.entries == [["a", 30.0, ("settled", "one two")]]


def test_an_answer_without_text_is_an_answer(router: MakeRouter, request_: ChatRequest) -> None:
    heard, response = drain(router(a=[]).stream_with_fallback(request_))
    assert heard == []
    assert response.attempts[0].outcome == "ok"


@pytest.mark.parametrize(
    "error", [ServerError("500"), NetworkError("reset"), DeadlineExceeded("late"), StreamInterruptedError("odd")]
)
def test_a_stream_that_fails_before_its_first_delta_is_replaced_unseen(
    error: Exception, router: MakeRouter, clock: SlowClock, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    made, money = router(a=[error], b=["fine"]), ledger()
    heard, response = drain(made.stream_with_fallback(request_, reserve=money))
    assert heard == ["fine"]
    assert [(a.provider, a.outcome) for a in response.attempts] == [("a", "error"), ("b", "ok")]
    assert [entry[-1] for entry in money.entries] == ["released", ("settled", "fine")]
    assert clock.slept == []


def test_a_stream_that_is_no_generator_is_closed_too(router: MakeRouter, request_: ChatRequest) -> None:
    class Stream:
        closed = False

        def __next__(self) -> str:
            raise ServerError("500")

        def close(self) -> None:
            self.closed = True

    made, stream = router(a=0.0, b=["fine"]), Stream()
    made.get_provider("a").stream = lambda _: stream
    assert drain(made.stream_with_fallback(request_))[0] == ["fine"]
    assert stream.closed


def test_a_provider_that_raises_when_called_is_replaced_too(router: MakeRouter, request_: ChatRequest) -> None:
    def refuse(_: ChatRequest) -> Generator[str, None, ChatResponse]:
        raise ServerError("500")

    made = router(a=0.0, b=["fine"])
    made.get_provider("a").stream = refuse
    assert drain(made.stream_with_fallback(request_))[0] == ["fine"]


def test_after_the_first_delta_the_error_passes_through(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    error = StreamInterruptedError("cut off", partial="half")
    made, money = router(a=["half", error], b=["fine"]), ledger()
    deltas = made.stream_with_fallback(request_, reserve=money)
    assert next(deltas) == "half"
    with pytest.raises(StreamInterruptedError) as caught:
        next(deltas)
    assert caught.value is error
    assert [(a.provider, a.outcome, a.error) for a in caught.value.attempts] == [
        ("a", "error", "StreamInterruptedError")
    ]
    assert made.get_provider("b").calls == 0
    assert (money.entries[0][-1], money.errors) == ("released", [error])
    assert made.health()["a"]["last_error"]["error"] == "StreamInterruptedError"


def test_streams_that_break_after_output_open_the_circuit(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=["half", StreamInterruptedError("cut off")], b=["fine"])
    for _ in range(5):
        with pytest.raises(StreamInterruptedError):
            drain(made.stream_with_fallback(request_))
    assert made.health()["a"]["state"] == "open"
    assert drain(made.stream_with_fallback(request_))[0] == ["fine"]


@pytest.mark.parametrize("leave", ["close", "throw", "forget"])
def test_leaving_early_closes_the_providers_stream_at_once(
    leave: str, router: MakeRouter, request_: ChatRequest, ledger: type[Ledger], tracker: PerformanceTracker
) -> None:
    made, money = router(a=["one", "two", "three"]), ledger()
    deltas = made.stream_with_fallback(request_, reserve=money)
    assert next(deltas) == "one"
    assert made.health()["a"]["in_flight"] == 1
    if leave == "close":
        deltas.close()
    elif leave == "throw":
        with pytest.raises(LookupError):
            deltas.throw(LookupError("of the caller"))
    else:
        del deltas
        gc.collect()
    assert made.get_provider("a").closed == 1
    assert (money.entries[0][-1], money.errors) == ("released", [None])
    health = made.health()["a"]
    assert (health["in_flight"], health["status"], health["avg_latency"]) == (0, "healthy", None)
    assert tracker.get_stats("provider_latency") == {}
    assert tracker.get_stats("provider_failure") == {}


def test_a_response_known_when_the_caller_leaves_is_paid(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    def counted(request: ChatRequest) -> Generator[str, None, ChatResponse]:
        try:
            yield "one"
        except GeneratorExit:
            return ChatResponse("one", Usage(3, 1, estimated=True), request.model, "x")
        raise AssertionError

    made, money = router(a=0.0), ledger()
    made.get_provider("a").stream = counted
    deltas = made.stream_with_fallback(request_, reserve=money)
    next(deltas)
    deltas.close()
    assert money.entries == [["a", 30.0, ("settled", "one")]]


def test_a_stream_that_fails_while_being_closed_still_gives_the_money_back(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    def clumsy(_: ChatRequest) -> Generator[str, None, ChatResponse]:
        try:
            yield "one"
        finally:
            raise OSError("socket is gone")

    made, money = router(a=0.0), ledger()
    made.get_provider("a").stream = clumsy
    deltas = made.stream_with_fallback(request_, reserve=money)
    next(deltas)
    deltas.close()
    assert money.entries[0][-1] == "released"


def test_a_stream_that_does_not_end_when_told_to_is_closed_all_the_same(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    def stubborn(request: ChatRequest) -> Generator[str, None, ChatResponse]:
        try:
            yield "one"
        except GeneratorExit:
            yield "more"
        return ChatResponse("one more", Usage(3, 2), request.model, "x")

    made, money = router(a=0.0), ledger()
    made.get_provider("a").stream = stubborn
    deltas = made.stream_with_fallback(request_, reserve=money)
    next(deltas)
    deltas.close()
    assert money.entries[0][-1] == "released"


def test_a_stream_never_begun_asks_nobody(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=["one"])
    made.stream_with_fallback(request_).close()
    assert made.get_provider("a").calls == 0
    assert made.health()["a"]["in_flight"] == 0


def test_what_the_caller_does_between_deltas_is_not_the_providers_time(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    def slow(_: ChatRequest) -> None:
        clock.advance(0.25)

    deltas = router(a=[slow, "one", slow, "two"]).stream_with_fallback(request_)
    heard = []
    while True:
        try:
            heard.append(next(deltas))
            clock.advance(100)
        except StopIteration as end:
            response: ChatResponse = end.value
            break
    assert heard == ["one", "two"]
    assert response.attempts[0].seconds == pytest.approx(0.5)


def test_a_probe_that_streams_closes_the_circuit_even_when_left_early(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router({"max_attempts": 1}, a=[ServerError("500")])
    for _ in range(5):
        with pytest.raises(ServerError):
            drain(made.stream_with_fallback(request_))
    clock.advance(60)
    made.get_provider("a").script = [["one", "two"]]
    deltas = made.stream_with_fallback(request_)
    next(deltas)
    assert made.health()["a"]["state"] == "half-open"
    deltas.close()
    assert made.health()["a"]["state"] == "closed"


def test_a_provider_that_cannot_stream_gives_its_answer_in_one_piece(router: MakeRouter, request_: ChatRequest) -> None:
    class Plain:
        def chat_completion(self, request: ChatRequest) -> ChatResponse:
            return ChatResponse("whole", Usage(1, 1), request.model, "plain")

    made = router()
    made.register_provider("plain", Plain())
    heard, response = drain(made.stream_with_fallback(request_))
    assert (heard, response.provider) == (["whole"], "plain")


def test_errors_of_the_call_are_those_of_chat(router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]) -> None:
    made = router(a=[BadRequestError("400")], b=["fine"])
    with pytest.raises(BadRequestError):
        next(made.stream_with_fallback(request_))
    with pytest.raises(BudgetExceededError):
        next(made.stream_with_fallback(request_, reserve=ledger(BudgetExceededError("too little left"))))
    with pytest.raises(MaxRetriesExceededError):
        next(router(a=[ServerError("1")], b=[ServerError("2")]).stream_with_fallback(request_, max_attempts=2))
    nobody = router()
    with pytest.raises(UnknownModelError):
        next(nobody.stream_with_fallback(request_))


def test_the_only_provider_is_asked_again_before_the_first_delta(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    script: tuple[Any, ...] = ([RateLimitError("429", retry_after=2.0)], ["fine"])
    assert drain(router(a=script).stream_with_fallback(request_))[0] == ["fine"]
    assert clock.slept == [2.0]
