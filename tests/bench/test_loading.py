from __future__ import annotations

import itertools
import statistics
import threading
from collections.abc import Generator
from typing import Any

import pytest

from perfkit import FakeClock
from perfkit.bench import Case, Load, loading, measure
from perfkit.bench.loading import PROMPTS, Terms, moments
from perfkit.errors import NetworkError, RateLimitError
from perfkit.values import ChatRequest, ChatResponse, Usage


class Scripted:
    """A provider whose n-th answer takes as long as is written down: first text, then the rest; None fails."""

    def __init__(self, clock: FakeClock, *script: tuple[float, float] | None) -> None:
        self.clock, self.script = clock, list(script)
        self.asked: list[str] = []

    def stream(self, request: ChatRequest) -> Generator[str, None, ChatResponse]:
        self.asked.append(request.messages[0]["content"])
        step = self.script.pop(0) if self.script else (0.1, 0.4)
        if step is None:
            raise RateLimitError("slow down", status=429)
        self.clock.advance(step[0])
        yield "a"
        self.clock.advance(step[1])
        yield "b"
        return ChatResponse("ab", Usage(10, 5), "m", "p")


def measured(provider: Any, clock: FakeClock, load: Load, **terms: Any) -> dict[str, Any]:
    [row] = measure([Case("p", provider, "m", load=load)], terms=Terms(**{"warm_up": 0, **terms}), clock=clock)
    return row


def test_a_row_keeps_the_keys_of_the_guides_script_and_is_right(clock: FakeClock) -> None:
    provider = Scripted(clock, (0.1, 0.4), (0.2, 0.8), None, (0.3, 1.2))
    row = measured(provider, clock, Load(concurrency=1), requests=4, slos={"latency_ms": 1000.0})
    assert list(row)[:8] == [
        "provider", "model", "requests", "errors", "avg_latency_ms", "std_dev_ms", "min_latency_ms", "max_latency_ms",
    ]  # fmt: skip
    assert (row["requests"], row["errors"], row["error_kinds"], row["error_rate"]) == (4, 1, {"429": 1}, 0.25)
    assert row["avg_latency_ms"] == pytest.approx(1000)
    assert row["std_dev_ms"] == pytest.approx(statistics.stdev([500, 1000, 1500]))
    assert (row["min_latency_ms"], row["max_latency_ms"]) == (pytest.approx(500), pytest.approx(1500))
    assert (row["p50_first_token_ms"], row["p50_per_token_ms"]) == (pytest.approx(200), pytest.approx(200))
    assert row["seconds"] == pytest.approx(3.0)
    assert row["output_tokens_per_second"] == pytest.approx(5.0)
    assert (row["goodput"], row["good_share"]) == (pytest.approx(2 / 3), 0.5)
    assert row["cost"] is None  # no price for this model: never 0
    assert row["first_errors"] == ["slow down"]


def test_a_case_without_any_answer_has_no_times(clock: FakeClock) -> None:
    row = measured(Scripted(clock, None, None), clock, Load(concurrency=1), requests=2)
    assert row["avg_latency_ms"] is row["p99_latency_ms"] is row["p50_first_token_ms"] is row["std_dev_ms"] is None
    assert (row["errors"], row["goodput"]) == (2, 0)


def test_warm_up_is_sent_and_not_counted(clock: FakeClock) -> None:
    provider = Scripted(clock, (100, 0), (100, 0))
    row = measured(provider, clock, Load(concurrency=1), requests=3, warm_up=2)
    assert len(provider.asked) == 5
    assert (row["requests"], row["max_latency_ms"]) == (3, pytest.approx(500))


def test_prompts_are_the_guides_and_the_same_for_the_same_seed(clock: FakeClock) -> None:
    asked = []
    for seed in (1, 1, 2):
        provider = Scripted(clock)
        measured(provider, clock, Load(concurrency=1), requests=30, seed=seed)
        asked.append(provider.asked)
    assert asked[0] == asked[1] != asked[2]
    assert {text: asked[0].count(text) for text in PROMPTS} == dict.fromkeys(PROMPTS, 10)


def test_marked_prompts_are_all_different(clock: FakeClock) -> None:
    provider = Scripted(clock)
    measured(provider, clock, Load(concurrency=1), requests=30, unique=True)
    assert len(set(provider.asked)) == 30


def test_an_open_loop_counts_the_wait_behind_a_stall(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MOST_IN_FLIGHT", 1)  # the first answer stalls, and all places are taken
    first, second, third = moments(10.0, 3, seed=1)
    row = measured(Scripted(clock, (5.0, 0.0), (0.1, 0.0), (0.1, 0.0)), clock, Load(rate=10.0), requests=3)
    assert [sample["due_s"] for sample in row["samples"]] == [round(moment, 6) for moment in (first, second, third)]
    waits = [0, 1000 * (first + 5 - second), 1000 * (first + 5.1 - third)]
    assert [sample["wait_ms"] for sample in row["samples"]] == pytest.approx(waits, abs=0.01)
    took = [5000, waits[1] + 100, waits[2] + 100]
    assert [sample["latency_ms"] for sample in row["samples"]] == pytest.approx(took, abs=0.01)
    assert [sample["first_token_ms"] for sample in row["samples"]] == pytest.approx(took, abs=0.01)


@pytest.mark.parametrize("load", [Load(concurrency=2), Load(rate=1e6)], ids=str)
def test_a_request_that_hangs_holds_up_no_others(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MOST_IN_FLIGHT", 2)
    asked, others = itertools.count(), threading.Event()

    class Hanging:
        def chat_completion(self, _request: ChatRequest) -> ChatResponse:
            number = next(asked)
            if number == 0:
                assert others.wait(10)
            elif number == 299:
                others.set()
            return ChatResponse("x", Usage(1, 1), "m", "p")

    [row] = measure([Case("p", Hanging(), "m", load=load)], terms=Terms(requests=300, warm_up=0))
    assert (row["requests"], row["errors"]) == (300, 0)


def test_a_closed_loop_has_no_more_under_way_than_asked_for() -> None:
    under_way, most, gate = 0, 0, threading.Barrier(3)
    lock = threading.Lock()

    class Counting:
        def chat_completion(self, _request: ChatRequest) -> ChatResponse:
            nonlocal under_way, most
            with lock:
                under_way += 1
                most = max(most, under_way)
            gate.wait(10)
            with lock:
                under_way -= 1
            return ChatResponse("x", Usage(1, 1), "m", "p")

    [row] = measure([Case("p", Counting(), "m", load=Load(concurrency=3))], terms=Terms(requests=9, warm_up=0))
    assert (most, row["requests"], row["errors"]) == (3, 9, 0)


def test_moments_come_at_the_rate_and_by_chance() -> None:
    found = moments(50.0, 5000, seed=3)
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert found == sorted(found)
    assert 5000 / found[-1] == pytest.approx(50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1)  # of an exponential they are equal
    assert found != moments(50.0, 5000, seed=4)


@pytest.mark.parametrize("wrong", [{}, {"concurrency": 1, "rate": 1.0}, {"concurrency": 0}, {"rate": 0}])
def test_a_load_is_one_or_the_other(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"concurrency|rate"):
        Load(**wrong)


def test_progress_is_told(clock: FakeClock) -> None:
    told: list[int] = []
    case = Case("p", Scripted(clock), "m")
    measure([case], terms=Terms(requests=3), clock=clock, progress=lambda _, done: told.append(done))
    assert told == [1, 2, 3]


def test_an_error_of_the_connection_is_a_sample_too(clock: FakeClock) -> None:
    class Gone:
        def chat_completion(self, _request: ChatRequest) -> ChatResponse:
            raise NetworkError("refused", sent=False)

    row = measured(Gone(), clock, Load(concurrency=2), requests=4)
    assert row["error_kinds"] == {"connect": 4}
