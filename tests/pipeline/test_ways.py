"""The money of the ways to an answer: each part of a resumed stream is paid where it was given, once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import perfkit
from perfkit.errors import StreamInterruptedError
from perfkit.routing.continuation import continued
from perfkit.testing.faults import FaultServer, cut, ok, stall
from perfkit.values import ChatRequest

TEXT = "one two three four five six seven eight nine ten"
PRICES = {"tiny": {"input": 1.0, "output": 1.0}}


@pytest.fixture
def other() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


def configure(first: FaultServer, second: FaultServer, **router: object) -> None:
    row = {"kind": "openai", "api_key": "k", "models": ["tiny"]}
    perfkit.configure(
        providers={
            "first": {**row, "base_url": first.base_url, "priority": 1},
            "second": {**row, "base_url": second.base_url, "priority": 2},
        },
        router={"strategy": "priority", "probe_interval": None, **router},
        tokens={"prices": PRICES},
    )


def test_a_resumed_stream_pays_both_attempts_each_for_its_own_part(fault: FaultServer, other: FaultServer) -> None:
    configure(fault, other)
    fault.behave(cut(ok(TEXT), after_events=4))
    other.behave(cut(ok("four five six seven"), after_events=3), ok("six seven eight nine ten"))
    perfkit.optimizer.set_budget("global", 1.0, "day")
    with perfkit.stream("hello", model="tiny", resume=True, max_tokens=50) as stream:
        heard: list[str] = []
        with pytest.raises(StreamInterruptedError) as caught:
            heard.extend(stream)
    assert caught.value.partial == "".join(heard)
    count = perfkit.optimizer.count_tokens
    report = perfkit.optimizer.get_usage_report(group_by=("provider",))
    first = "one two three "
    assert heard == ["one ", "two ", "three ", "four ", "five "]
    prompt = count([{"role": "user", "content": "hello"}], "tiny")
    assert report["first"]["total_tokens"] == prompt + count(first, "tiny")
    asked = continued(ChatRequest("hello", "tiny"), first, prefill=False).messages
    assert report["second"]["total_tokens"] == count(asked, "tiny") + count("four five ", "tiny")
    (budget,) = perfkit.optimizer.budgets()
    assert budget["held"] == 0
    assert budget["spent"] == pytest.approx(sum(row["total_cost"] for row in report.values()))


def test_the_whole_of_a_resumed_stream_is_kept_and_its_parts_are_counted(
    fault: FaultServer, other: FaultServer
) -> None:
    configure(fault, other)
    fault.behave(cut(ok(TEXT), after_events=4))
    other.behave(ok("four five six seven eight nine ten", usage={"prompt_tokens": 40, "completion_tokens": 7}))
    with perfkit.stream("hello", model="tiny", resume=True, temperature=0) as stream:
        assert "".join(stream) == TEXT
    assert stream.response is not None
    assert stream.response.text == TEXT
    report = perfkit.optimizer.get_usage_report(group_by=("provider",))
    assert report["second"]["total_tokens"] == 47
    assert report["first"]["total_tokens"] > 0
    assert perfkit.chat("hello", model="tiny", temperature=0).text == TEXT
    assert (fault.counters()["requests"], other.counters()["requests"]) == (1, 1)


def test_a_stall_after_output_is_cut_by_the_pace_and_resumed(
    fault: FaultServer, other: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perfkit.providers.pace.GRACE", 1.0)
    configure(fault, other, min_tokens_per_second=10.0)
    fault.behave(stall(ok(TEXT), after_events=4))
    other.behave(ok("four five six seven eight nine ten"))
    with perfkit.stream("hello", model="tiny", resume=True, timeout=20) as stream:
        assert "".join(stream) == TEXT
    assert stream.response is not None
    assert [a.error for a in stream.response.attempts] == ["DeadlineExceeded", None]
    assert stream.response.attempts[0].seconds < 10
