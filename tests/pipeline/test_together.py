"""One streamed answer for all who ask for it while it is under way."""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from _servers import polled

import perfkit
from perfkit.pipeline.stream import ChatStream
from perfkit.testing import FaultServer, faults

WORDS = "word " * 60


pytestmark = pytest.mark.usefixtures("chat")


def stream(**more: Any) -> ChatStream:
    return perfkit.stream("same", temperature=0, **more)


def told(one: ChatStream) -> perfkit.ChatResponse:
    assert one.response is not None
    return one.response


def test_threads_that_stream_one_answer_pay_it_once(fault: FaultServer) -> None:
    fault.behave(faults.ok(WORDS, interval=0.005))
    ready = threading.Barrier(8)

    def ask(_: int) -> tuple[str, perfkit.ChatResponse]:
        one = stream()
        ready.wait()
        return "".join(one), told(one)

    with ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(ask, range(8)))
    assert fault.stats()["requests"] == 1
    assert {text.strip() for text, _ in heard} == {WORDS.strip()}
    paid = [response for _, response in heard if response.cost]
    assert len(paid) == 1
    assert [response.cached for _, response in heard].count("exact") == 7
    assert perfkit.optimizer.get_usage_report()["default"]["tiny"]["request_count"] == 1
    assert (perfkit.cache.stats()["hits"], perfkit.cache.stats()["misses"]) == (7, 1)


def test_who_comes_later_hears_the_beginning_at_once_and_may_be_the_first_at_the_end(fault: FaultServer) -> None:
    fault.behave(faults.ok(WORDS, interval=0.005))
    first = stream()
    begun = [next(first), next(first)]
    second = stream()
    assert [next(second), next(second)] == begun
    assert first.response is None
    whole = "".join([*begun, *second])
    assert "".join([*begun, *first]) == whole
    assert told(first).cost
    assert (told(second).cached, told(second).cost, told(second).text) == ("exact", 0.0, whole)
    assert fault.stats()["requests"] == 1


def test_a_stream_goes_on_for_those_who_stay(fault: FaultServer) -> None:
    fault.behave(faults.ok(WORDS, interval=0.005))
    first, second = stream(), stream()
    begun = [next(first), next(second)]
    first.close()
    assert "".join([begun[1], *second]).strip() == WORDS.strip()
    assert perfkit.chat("same", temperature=0).cached == "exact"
    assert perfkit.optimizer.get_usage_report()["default"]["tiny"]["request_count"] == 1
    assert fault.stats()["requests"] == 1


def test_a_stream_that_all_have_left_is_cancelled(fault: FaultServer) -> None:
    fault.behave(faults.ok("word " * 400, interval=0.02), then="ok")
    first, second = stream(), stream()
    assert next(first) == next(second)
    first.close()
    second.close()
    fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)
    assert len(perfkit.cache) == 0
    assert "".join(stream()) == "echo: same"


def test_who_asks_while_a_stream_that_all_have_left_is_ending_waits_for_that() -> None:
    class Lingering(Own):
        def stream(self, request: perfkit.ChatRequest) -> Generator[str, None, perfkit.ChatResponse]:
            try:
                yield "text"
            finally:
                self.asked.release()
                assert self.go.wait(10)
            return perfkit.ChatResponse("text", perfkit.Usage(1, 1), "tiny", "own")

    own = Lingering()
    perfkit.router.register_provider("own", own)
    first = stream(provider="own")
    next(first)
    with ThreadPoolExecutor(2) as pool:
        left = pool.submit(first.close)
        assert own.asked.acquire(timeout=5)
        second = pool.submit(lambda: "".join(stream(provider="own")))
        polled(lambda: second.done() or perfkit.cache._loader.flights._waiting)
        own.go.set()
        assert second.result(10) == "text"
        left.result(10)


def test_all_hear_that_a_stream_broke_and_the_next_one_is_asked_anew(fault: FaultServer) -> None:
    fault.behave(faults.cut(after_events=4), then="ok")
    first, second = stream(), stream()
    assert next(first) == next(second)
    for one in (first, second):
        with pytest.raises(perfkit.StreamInterruptedError) as cut:
            list(one)
        assert cut.value.partial
    assert "".join(stream()) == "echo: same"
    assert fault.stats()["requests"] == 2


class Own:
    """A provider whose streams the tests hold in their hands."""

    supported_models = ("tiny",)

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.go = threading.Event()
        self.errors: list[BaseException] = []

    def chat_completion(self, request: perfkit.ChatRequest) -> perfkit.ChatResponse:
        raise AssertionError("only streams")

    def stream(self, request: perfkit.ChatRequest) -> Generator[str, None, perfkit.ChatResponse]:
        self.asked.release()
        assert self.go.wait(10)
        if self.errors:
            raise self.errors.pop()
        yield "text"
        return perfkit.ChatResponse("text", perfkit.Usage(1, 1), request.model, "own")


@pytest.mark.parametrize("error", [perfkit.DeadlineExceeded("of the first one's own time"), SystemExit(3)])
def test_who_has_more_time_than_the_first_or_is_not_torn_away_asks_himself(error: BaseException) -> None:
    own = Own()
    own.errors.append(error)
    perfkit.router.register_provider("own", own)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: "".join(stream(provider="own", timeout=5)))
        assert own.asked.acquire(timeout=5)
        second = pool.submit(lambda: "".join(stream(provider="own", timeout=20)))
        polled_listeners(2)
        own.go.set()
        assert second.result(20) == "text"
        with pytest.raises(type(error)):
            first.result(20)


def polled_listeners(number: int) -> None:
    live = perfkit.client._way._streams._live
    polled(lambda: [one.listeners for one in live.values()] == [number])


def test_who_waits_gives_up_at_his_own_deadline(fault: FaultServer) -> None:
    own = Own()
    perfkit.router.register_provider("own", own)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: "".join(stream(provider="own")))
        assert own.asked.acquire(timeout=5)
        with pytest.raises(perfkit.DeadlineExceeded):
            next(stream(provider="own", timeout=0.01))
        own.go.set()
        assert first.result(20) == "text"


def test_a_stream_that_asks_for_itself_is_told_so() -> None:
    class Circle(Own):
        def stream(self, request: perfkit.ChatRequest) -> Generator[str, None, perfkit.ChatResponse]:
            yield from stream(provider="own")
            raise AssertionError

    perfkit.router.register_provider("own", Circle())
    with pytest.raises(perfkit.RecursiveCallError):
        list(stream(provider="own"))


def chat(**more: Any) -> perfkit.ChatResponse:
    return perfkit.chat("same", temperature=0, **more)


def test_who_wants_a_streamed_answer_whole_does_not_wait_for_its_reader(fault: FaultServer) -> None:
    fault.behave(faults.ok(WORDS, interval=0.002))
    resting = stream()
    begun = next(resting)
    with ThreadPoolExecutor(4) as pool:
        whole = [one.result(20) for one in [pool.submit(chat) for _ in range(4)]]
    assert {(one.text.strip(), one.cached, one.cost) for one in whole} == {(WORDS.strip(), "exact", 0.0)}
    assert "".join([begun, *resting]).strip() == WORDS.strip()
    assert told(resting).cost
    assert fault.stats()["requests"] == 1


def test_a_stream_waits_for_the_chat_that_asks_the_same(fault: FaultServer) -> None:
    own = Own()
    perfkit.router.register_provider("own", own)
    own.chat_completion = answering(own)  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: chat(provider="own"))
        assert own.asked.acquire(timeout=5)
        second = pool.submit(lambda: list(stream(provider="own")))
        polled_listeners(1)
        own.go.set()
        assert (first.result(20).text, second.result(20)) == ("text", ["text"])
    assert own.asked.acquire(timeout=0) is False


def answering(own: Own) -> Any:
    def answer(request: perfkit.ChatRequest) -> perfkit.ChatResponse:
        deltas = own.stream(request)
        try:
            while True:
                next(deltas)
        except StopIteration as end:
            response: perfkit.ChatResponse = end.value
            return response

    return answer


def test_threads_that_chat_and_stream_at_once_make_one_call(fault: FaultServer) -> None:
    fault.behave(faults.ok(WORDS, interval=0.001))
    ready = threading.Barrier(8)

    def ask(number: int) -> str:
        ready.wait()
        return chat().text if number % 2 else "".join(stream())

    with ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(ask, range(8)))
    assert {text.strip() for text in heard} == {WORDS.strip()}
    assert fault.stats()["requests"] == 1


def test_a_chat_goes_on_for_itself_where_the_stream_it_waited_for_broke(fault: FaultServer) -> None:
    fault.behave(faults.cut(after_events=4), then="ok")
    first = stream()
    next(first)
    assert chat().text == "echo: same"
    with pytest.raises(perfkit.StreamInterruptedError):
        list(first)
    assert fault.stats()["requests"] == 2


def test_a_stream_whose_reader_leaves_goes_on_for_a_chat(fault: FaultServer) -> None:
    own = Own()
    perfkit.router.register_provider("own", own)
    with ThreadPoolExecutor(2) as pool:
        first = stream(provider="own")
        reader = pool.submit(lambda: next(first))
        assert own.asked.acquire(timeout=5)
        second = pool.submit(lambda: chat(provider="own"))
        polled_listeners(2)
        own.go.set()
        assert reader.result(20) == "text"
        first.close()
        assert second.result(20).text == "text"


def test_a_stream_nobody_has_read_from_to_its_end_does_not_hold_up_a_chat(fault: FaultServer) -> None:
    fault.behave(faults.ok("word " * 400, interval=0.02), then="ok")
    first = stream()
    next(first)
    first.close()
    assert chat().text == "echo: same"


def test_a_chat_that_helps_a_stream_along_has_its_own_deadline(fault: FaultServer) -> None:
    fault.behave(faults.ok("word " * 400, interval=0.02))
    first = stream()
    next(first)
    with pytest.raises(perfkit.DeadlineExceeded):
        chat(timeout=0.1)
    next(first)
    first.close()
    assert fault.stats()["requests"] == 1


def test_a_streamed_answer_that_chats_for_itself_is_told_so() -> None:
    class Circle(Own):
        def stream(self, request: perfkit.ChatRequest) -> Generator[str, None, perfkit.ChatResponse]:
            yield chat(provider="own").text
            raise AssertionError

    perfkit.router.register_provider("own", Circle())
    with pytest.raises(perfkit.RecursiveCallError):
        list(stream(provider="own"))
