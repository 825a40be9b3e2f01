"""One call for one answer among processes, streamed or whole: two clients stand for two of them, and one is forked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from _forks import await_child, start_child
from _servers import Redis, polled

import perfkit
from perfkit.caching import ResponseCache
from perfkit.caching.backends import turns
from perfkit.metrics import PerformanceTracker
from perfkit.pipeline.stream import ChatStream
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.testing import FaultServer, faults

WORDS = "word " * 60


class Process:
    """A client with a cache of its own, as each process has."""

    def __init__(self, fault: FaultServer, redis: Redis) -> None:
        tracker = PerformanceTracker()
        router = ProviderRouter(tracker=tracker)
        router.register_provider("p", create_provider("openai", base_url=fault.base_url, api_key="k", models=["m"]))
        self.cache = ResponseCache(backend="redis", url=redis.url, tracker=tracker)
        self.client = perfkit.Client(router=router, cache=self.cache, tracker=tracker)

    def stream(self, **more: Any) -> ChatStream:
        return self.client.stream("same", model="m", temperature=0, **more)

    def chat(self, **more: Any) -> perfkit.ChatResponse:
        return self.client.chat("same", model="m", temperature=0, **more)

    def whole(self) -> str:
        return "".join(self.stream()).strip()


@pytest.fixture
def both(fault: FaultServer, redis: Redis) -> Iterator[tuple[Process, Process]]:
    perfkit.configure(state={"timeout": 5.0})
    made = Process(fault, redis), Process(fault, redis)
    for one in made:
        one.cache.get("warm")  # subscribed
    yield made
    for one in made:
        one.cache.close()


Both = tuple[Process, Process]


def test_two_processes_stream_and_chat_with_one_call(fault: FaultServer, both: Both) -> None:
    fault.behave(faults.ok(WORDS, interval=0.005))
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(one.whole) for one in both * 2]
        asked += [pool.submit(lambda one=one: one.chat().text.strip()) for one in both]  # type: ignore[misc]
        assert {one.result(20) for one in asked} == {WORDS.strip()}
    assert fault.stats()["requests"] == 1


def waits(process: Process) -> bool:
    far = process.cache.shelf.far
    return bool(far is not None and far.turns is not None and far.turns._waiting)  # type: ignore[attr-defined]


def test_who_waits_for_a_stream_of_another_process_goes_on_when_it_is_left(fault: FaultServer, both: Both) -> None:
    fault.behave(faults.ok("word " * 400, interval=0.02), then="ok")
    first = both[0].stream()
    next(first)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(both[1].whole)
        polled(lambda: waits(both[1]))
        first.close()
        assert second.result(20) == "echo: same"
    assert fault.stats()["requests"] == 2


def test_nobody_waits_for_a_reader_of_another_process_who_rests(
    fault: FaultServer, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LIFE", 0.2)
    first = both[0].stream()
    begun = next(first)
    assert both[1].chat(timeout=20).text == "echo: same"
    assert "".join([begun, *first]) == "echo: same"
    assert fault.stats()["requests"] == 2


def test_who_waits_for_another_process_has_his_own_deadline(fault: FaultServer, both: Both) -> None:
    fault.behave(faults.ok("word " * 400, interval=0.02))
    first = both[0].stream()
    next(first)
    with pytest.raises(perfkit.DeadlineExceeded):
        list(both[1].stream(timeout=0.1))
    first.close()
    assert fault.stats()["requests"] == 1


def test_without_redis_each_process_streams_for_itself(fault: FaultServer, both: Both, redis: Redis) -> None:
    fault.behave(faults.ok(WORDS, interval=0.001))
    redis.kill()
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(Process.whole, both)) == {WORDS.strip()}
    assert fault.stats()["requests"] == 2


def test_a_real_other_process_streams_what_this_one_does(fault: FaultServer, both: Both) -> None:
    fault.behave(faults.ok(WORDS, interval=0.005))
    first = both[0].stream()
    begun = next(first)

    def other() -> tuple[str, str | None]:
        heard = both[1].stream()
        whole = "".join(heard).strip()
        assert heard.response is not None
        return whole, heard.response.cached

    child = start_child(other)
    text = "".join([begun, *first])
    assert await_child(*child) == (WORDS.strip(), "exact")
    assert text.strip() == WORDS.strip()
    assert fault.stats()["requests"] == 1


def test_who_looked_before_another_process_was_done_and_leads_afterwards_gets_what_that_one_kept(
    fault: FaultServer, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = both[1].cache.lead

    def later(*given: Any) -> Any:
        both[0].whole()  # from its question to the kept answer, while the other one has looked in vain
        return lead(*given)

    monkeypatch.setattr(both[1].cache, "lead", later)
    heard = both[1].stream()
    assert "".join(heard) == "echo: same"
    assert heard.response is not None
    assert heard.response.cached == "exact"
    assert fault.stats()["requests"] == 1
    monkeypatch.undo()
    assert both[1].whole() == "echo: same"
