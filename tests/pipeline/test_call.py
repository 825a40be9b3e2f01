"""What attempts that fail cost: the provider works for them too."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import perfkit
from perfkit.testing import FaultServer, faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.testing.faults import Behaviour

QUESTION = "how long is this question"


@pytest.fixture(autouse=True)
def _configured(chat: object) -> None:
    perfkit.configure(router={"max_attempts": 1})
    perfkit.optimizer.set_budget(("global", ""), 100_000.0, "day")


def report() -> dict[str, Any]:
    """Return what was counted, after checking that it is what was charged and that nothing is held any more."""
    counted: dict[str, Any] = perfkit.optimizer.get_usage_report().get("default", {}).get("tiny", {})
    [budget] = perfkit.optimizer.budgets()
    assert budget["held"] == 0
    assert budget["spent"] == pytest.approx(counted.get("total_cost", 0))
    return counted


def prompt() -> int:
    return perfkit.optimizer.count_tokens([{"role": "user", "content": QUESTION}], "tiny")


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (faults.cut(after_events=5), perfkit.StreamInterruptedError),
        (faults.malformed_sse(after_events=5), perfkit.StreamInterruptedError),
        (faults.stall(after_events=5), perfkit.DeadlineExceeded),
    ],
)
def test_a_stream_that_breaks_after_text_is_paid_and_counted_as_what_was_heard(
    broken: Behaviour, error: type[perfkit.PerfkitError], fault: FaultServer
) -> None:
    fault.behave(broken)
    heard: list[str] = []
    with pytest.raises(error) as caught:
        heard.extend(perfkit.stream(QUESTION, timeout=1.0 if error is perfkit.DeadlineExceeded else 20.0))
    assert heard
    text = perfkit.optimizer.count_tokens("".join(heard), "tiny")
    assert text > 0
    assert caught.value.partial == "".join(heard)  # type: ignore[attr-defined]
    counted = report()
    assert (counted["request_count"], counted["total_tokens"]) == (1, prompt() + text)
    assert counted["total_cost"] == pytest.approx(prompt() + 2 * text)


@pytest.mark.parametrize("ask", [perfkit.chat, lambda *args, **options: list(perfkit.stream(*args, **options))])
@pytest.mark.parametrize(
    ("failure", "timeout"),
    [(faults.hang(), 1.0), (faults.reset(), 20.0), (faults.cut(after_bytes=0), 20.0), (faults.garbage(), 20.0)],
)
def test_an_attempt_that_was_sent_and_brought_nothing_costs_its_prompt(
    failure: Behaviour, timeout: float, ask: Callable[..., object], fault: FaultServer
) -> None:
    fault.behave(failure)
    with pytest.raises(perfkit.PerfkitError):
        ask(QUESTION, timeout=timeout)
    fault.release(drop=True)
    counted = report()
    assert (counted["request_count"], counted["total_tokens"]) == (1, prompt())


@pytest.mark.parametrize(
    "refusal",
    [faults.server_error(), faults.overloaded(), faults.unauthorized(), faults.model_not_found(),
     faults.rate_limited(0.0), faults.context_overflow(), faults.content_filtered()],
)  # fmt: skip
def test_an_attempt_that_was_refused_costs_nothing(refusal: Behaviour, fault: FaultServer) -> None:
    fault.behave(refusal)
    with pytest.raises(perfkit.ProviderError):
        perfkit.chat(QUESTION)
    with pytest.raises(perfkit.PerfkitError):
        next(perfkit.stream(QUESTION))
    assert report() == {}


def test_an_attempt_that_was_never_sent_costs_nothing() -> None:
    perfkit.configure(providers={"local": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": "k"}})
    with pytest.raises(perfkit.NetworkError):
        perfkit.chat(QUESTION)
    assert report() == {}


def test_an_attempt_that_failed_before_another_answered_is_charged_beside_the_answer(fault: FaultServer) -> None:
    with FaultServer() as other:
        kinds = {"kind": "openai", "api_key": "k"}
        perfkit.configure(
            providers={
                "local": {**kinds, "base_url": fault.base_url, "priority": 1},
                "second": {**kinds, "base_url": other.base_url, "priority": 2},
            },
            router={"strategy": "priority", "max_attempts": 2},
        )
        fault.behave(faults.reset())
        answer = perfkit.chat(QUESTION)
    assert [a.outcome for a in answer.attempts] == ["error", "ok"]
    assert answer.cost == perfkit.optimizer.calculate_cost(answer.usage, "tiny")
    counted = report()
    assert counted["request_count"] == 2
    assert counted["total_tokens"] == prompt() + answer.usage.total_tokens


class Own:
    """A provider of somebody's own."""

    def __init__(self, error: BaseException, shown: str = "") -> None:
        self.error = error
        self.shown = shown

    def chat_completion(self, request: perfkit.ChatRequest) -> perfkit.ChatResponse:
        raise self.error

    def stream(self, request: perfkit.ChatRequest) -> Any:
        if self.shown:
            yield self.shown
        raise self.error


@pytest.mark.parametrize(
    ("error", "paid"),
    [
        (ValueError("wrong in itself"), False),
        (perfkit.PoolTimeout("no slot"), False),
        (TimeoutError("its own"), True),
        (KeyboardInterrupt(), True),
    ],
)
def test_what_own_providers_raise_is_judged_in_the_same_way(error: BaseException, paid: bool) -> None:
    perfkit.configure(providers=None)
    perfkit.router.register_provider("own", Own(error))
    for ask in (lambda: perfkit.chat(QUESTION, provider="own"), lambda: next(perfkit.stream(QUESTION, provider="own"))):
        with pytest.raises(type(error)):
            ask()
    assert report().get("total_tokens", 0) == (2 * prompt() if paid else 0)


def test_a_stream_of_an_own_provider_that_broke_is_paid_whatever_it_raised() -> None:
    perfkit.router.register_provider("own", Own(ValueError("odd"), shown="some words"))
    with suppress(ValueError):
        list(perfkit.stream(QUESTION, provider="own"))
    assert report()["total_tokens"] == prompt() + perfkit.optimizer.count_tokens("some words", "tiny")


def test_a_left_stream_whose_provider_made_a_response_of_it_is_counted_as_that_once() -> None:
    class Counting:
        def chat_completion(self, request: perfkit.ChatRequest) -> perfkit.ChatResponse:
            raise AssertionError

        def stream(self, request: perfkit.ChatRequest) -> Any:
            usage = perfkit.Usage(7, 3)
            try:
                yield "some words"
            except GeneratorExit:
                return perfkit.ChatResponse("some words", usage, request.model, "x")

    perfkit.router.register_provider("own", Counting())
    with perfkit.stream(QUESTION, provider="own") as stream:
        next(stream)
    counted = report()
    assert (counted["request_count"], counted["total_tokens"], counted["total_cost"]) == (1, 10, 13)
