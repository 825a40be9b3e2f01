"""A stream that breaks after output goes on at another provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from _draining import drained
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import (
    BadRequestError,
    BudgetExceededError,
    NetworkError,
    ServerError,
    StreamInterruptedError,
)
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.routing.continuation import ASKED, LEAST_OVERLAP, Seam, continued, overlap
from perfkit.testing.faults import FaultServer, cut, ok
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from routing.conftest import Ledger, SlowClock

    from perfkit.testing.llm import LlamaServer

    MakeRouter = Callable[..., ProviderRouter]

HELLO: Any = "hello"  # one user message
TEXT = "The capital of France is Paris, which lies on the river Seine and has two million inhabitants. "
BROKEN = StreamInterruptedError("cut off")


def pieces(text: str, size: int) -> list[Any]:
    return [text[at : at + size] for at in range(0, len(text), size)]


# --- the seam


@given(st.text(st.sampled_from("ab c"), max_size=40), st.text(st.sampled_from("ab c"), max_size=40), st.integers(1, 9))
def test_an_exact_continuation_is_passed_on_as_it_is(before: str, after: str, size: int) -> None:
    seam = Seam(before + ".", exact=True)
    assert "".join(seam.feed(piece) for piece in pieces(after, size)) + seam.rest() == after


@given(st.integers(1, len(TEXT) - 1), st.data(), st.integers(1, 30))
def test_what_repeats_the_end_of_the_text_is_left_out(at: int, data: st.DataObject, size: int) -> None:
    before, after = TEXT[:at], TEXT[at:]
    repeated = data.draw(st.sampled_from([0, at, *range(min(LEAST_OVERLAP, at), at + 1)]))
    seam = Seam(before, exact=False)
    said = before[at - repeated :] + after if repeated else after
    assert before + "".join(seam.feed(piece) for piece in pieces(said, size)) + seam.rest() == TEXT


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("two ", " three", "two three"),
        ("two", " three", "two three"),
        ("a\n\n", "\n\n# b", "a\n\n# b"),
        ("x ", "y", "x y"),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_no_space_stands_twice(before: str, after: str, text: str, *, exact: bool) -> None:
    seam = Seam(before, exact=exact)
    assert before + seam.feed(after) + seam.rest() == text


def test_short_repetitions_may_be_meant() -> None:
    assert overlap("so it goes, ha ha", "ha ha!") == 0
    assert overlap("Hi", "Hi there") == 2  # the whole text: it began anew
    assert overlap("", "anything") == 0


def test_the_next_provider_is_given_the_text_and_less_room() -> None:
    request = ChatRequest(HELLO, "m", max_tokens=50)
    assert continued(request, "one two", prefill=True).messages[1:] == ({"role": "assistant", "content": "one two"},)
    asked = continued(request, "one two", prefill=False)
    assert [message["role"] for message in asked.messages] == ["user", "assistant", "user"]
    assert asked.messages[-1]["content"] == ASKED
    assert 45 <= (asked.max_tokens or 0) < 50
    assert continued(request, "word " * 500, prefill=True).max_tokens == 1


# --- through the router


@pytest.mark.parametrize("error", [BROKEN, NetworkError("reset"), ServerError("overloaded")], ids=repr)
def test_another_provider_goes_on_with_the_answer(
    error: Exception, router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    made, money = router({"resume": True}, a=["one two ", error], b=["three four"]), ledger()
    text, response = drained(made.stream_with_fallback(request_, reserve=money))
    assert text == response.text == "one two three four"
    assert [(a.provider, a.outcome) for a in response.attempts] == [("a", "error"), ("b", "ok")]
    assert made.get_provider("b").requests[0].messages[1]["content"] == "one two "
    assert [entry[-1] for entry in money.entries] == ["released", ("settled", "three four")]  # both are paid


def test_it_is_off_unless_asked_for(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=["one ", BROKEN], b=["two"])
    deltas = made.stream_with_fallback(request_)
    assert next(deltas) == "one "
    with pytest.raises(StreamInterruptedError):
        next(deltas)
    assert drained(made.stream_with_fallback(request_, resume=True))[0] == "one two"


def test_it_can_break_again_and_again(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=["one ", BROKEN], b=["two ", BROKEN], c=["three"])
    text, response = drained(made.stream_with_fallback(request_, resume=True))
    assert text == response.text == "one two three"
    assert made.get_provider("c").requests[0].messages[1]["content"] == "one two "


def test_when_nobody_can_go_on_the_error_has_all_of_the_text(router: MakeRouter, request_: ChatRequest) -> None:
    made = router(a=["one ", BROKEN], b=["two ", BROKEN])
    heard: list[str] = []
    with pytest.raises(StreamInterruptedError, match="after 8 characters and nobody could go on with it") as caught:
        heard.extend(made.stream_with_fallback(request_, resume=True))
    assert "".join(caught.value.partial) == "one two "
    assert [a.provider for a in caught.value.attempts] == ["a", "b"]


def test_a_wrong_request_or_an_empty_purse_ends_it_with_the_text(
    router: MakeRouter, request_: ChatRequest, ledger: type[Ledger]
) -> None:
    made = router(a=["one ", BROKEN], b=[BadRequestError("400")])
    with pytest.raises(BadRequestError):
        drained(made.stream_with_fallback(request_, resume=True))
    money = ledger()
    deltas = made.stream_with_fallback(request_, resume=True, reserve=money)
    assert next(deltas) == "one "
    money.error = BudgetExceededError("spent")
    with pytest.raises(StreamInterruptedError) as caught:
        next(deltas)
    assert caught.value.partial == "one "
    assert made.health()["b"]["in_flight"] == 0


def test_a_stream_below_its_pace_is_cut_and_resumed(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    def slow(_: ChatRequest) -> None:
        clock.advance(2.0)

    made = router({"min_tokens_per_second": 2.0}, a=["w " * 2, *[slow, "x "] * 20], b=["rest"])
    text, response = drained(made.stream_with_fallback(request_, resume=True))
    assert text.endswith("rest")
    assert 3 <= text.count("x ") <= 5  # five seconds of grace and what was said, at two a second
    assert response.attempts[0].error == "StreamInterruptedError"


def test_a_reader_that_pauses_is_not_the_providers_fault(
    router: MakeRouter, clock: SlowClock, request_: ChatRequest
) -> None:
    made = router({"min_tokens_per_second": 2.0}, a=["x "] * 10)
    deltas, heard = made.stream_with_fallback(request_.evolve(timeout=5000)), 0
    for _ in deltas:
        clock.advance(100)
        heard += 1
    assert heard == 10


# --- over the wire


def test_a_hundred_cut_streams_lose_and_repeat_nothing(fault: FaultServer) -> None:
    patient: dict[str, Any] = {
        "failure_threshold": 1000,
        "failure_rate": 1,
        "outlier_factor": None,
        "probe_interval": None,
    }
    router = ProviderRouter(strategy="priority", **patient)
    with FaultServer() as other:
        for priority, server in enumerate((fault, other), 1):
            provider = create_provider("openai", name=f"p{priority}", base_url=server.base_url, api_key="k")
            router.register_provider(f"p{priority}", provider, priority=priority)
        text = "one two three four five six seven eight nine ten"
        for number in range(100):
            at = 2 + number % 8  # the role, then so many words
            first = " ".join(text.split()[: at - 1])
            fault.behave(cut(ok(text), after_events=at, how=("rst", "fin")[number % 2]))
            rest = text[len(first) :] if number % 3 else text  # every third begins anew
            other.behave(ok(rest))
            request = ChatRequest(HELLO, "m", timeout=10)
            heard, response = drained(router.stream_with_fallback(request, resume=True))
            assert heard == response.text == text, (number, first)
            assert [a.provider for a in response.attempts] == ["p1", "p2"]


def test_a_real_model_goes_on_where_the_stream_was_cut(llm: LlamaServer, fault: FaultServer) -> None:
    real = create_provider("openai", name="real", base_url=llm.base_url, api_key="k")
    question: Any = "Tell me of the sea."
    request = ChatRequest(question, "tiny", max_tokens=40, temperature=0, timeout=30)
    expected, _ = drained(real.stream(request))
    router = ProviderRouter(strategy="priority", probe_interval=None, failure_threshold=1000)
    broken = create_provider("openai", name="broken", base_url=fault.base_url, api_key="k")
    router.register_provider("broken", broken, priority=1)
    router.register_provider("real", real, priority=2, prefill=True)
    for words in (2, 4, 6):
        shown = " ".join(expected.split(" ")[:words])
        fault.behave(cut(ok(shown + " never"), after_events=1 + words))
        heard, response = drained(router.stream_with_fallback(request, resume=True))
        assert [a.outcome for a in response.attempts] == ["error", "ok"]
        assert heard == response.text
        assert len(heard) > len(shown) + 20
        assert (heard + " ").startswith(expected[: len(heard)])  # as if nothing had happened
