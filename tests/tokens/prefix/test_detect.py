from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.prefix import Detector
from perfkit.tokens.prefix.detect import Finding
from perfkit.values import ChatRequest, ChatResponse, Usage

BODY = "You help people with their questions about orders, and never tell them what others bought. " * 50
RNG = random.Random(3)


def tools(names: str = "abcdef") -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
        for name in names
    ]


def shuffled(text: str) -> str:
    return "".join(RNG.sample(text, len(text)))


def data(n: int) -> str:
    keys = [f"key{i}" for i in range(8)]
    return json.dumps({key: key.upper() for key in (keys[n % 8 :] + keys[: n % 8])})


PLANTED: dict[str, Callable[[int], dict[str, Any]]] = {
    "timestamp": lambda n: {"system": f"Now: 2026-11-20T14:{n:02d}:{7 * n % 60:02d}Z\n{BODY}"},
    "uuid": lambda n: {"system": f"Request 9b2f{n:04x}-77aa-4bbb-8ccc-00{n:010x}\n{BODY}"},
    "shuffled tools": lambda n: {"tools": tools("fedcba"[n:] + "fedcba"[:n])},
    "unsorted JSON": lambda n: {"system": f"Settings: {data(n)}\n{BODY}"},
    "counter": lambda n: {"system": f"You have answered {n + 11} questions today.\n{BODY}"},
    "random id": lambda n: {"system": f"Session: sess{n}Qz{n * 7919:x}kd8Hw\n{BODY}"},
    "date": lambda n: {"system": f"Today is Nov {n + 10}, 2026.\n{BODY}"},
    "text": lambda n: {"system": f"The user is called {['Anna', 'Ben', 'Carl', 'Dora', 'Emil'][n]}.\n{BODY}"},
}


def request(n: int, *, system: str = BODY, tools: list[dict[str, Any]] | None = None, ask: str = "") -> ChatRequest:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": ask or f"question {n}"}]
    return ChatRequest(messages, "gpt-5", tools=tools)


def looked(requests: Iterator[ChatRequest]) -> Finding | None:
    detector = Detector()
    found = None
    for one in requests:
        found = detector.look("shop", one)
    return found


@pytest.mark.parametrize("cause", PLANTED)
def test_each_planted_cause_is_named(cause: str) -> None:
    found = looked(request(n, **PLANTED[cause](n)) for n in range(5))
    assert found is not None
    assert found.cause == cause
    assert found.where == ("tools" if "tools" in cause else "system")
    assert found.before != found.now
    assert found.lost > 0.9 or "tools" in cause
    assert found.times == 5


def test_span_that_differs_is_shown() -> None:
    found = looked(request(n, **PLANTED["timestamp"](n)) for n in range(3))
    assert found is not None
    assert (found.before, found.now) == ("2026-11-20T14:01:07Z", "2026-11-20T14:02:14Z")


def test_unsorted_schemas_are_told_from_shuffled_tools() -> None:
    def schema(n: int) -> list[dict[str, Any]]:
        fields = {"name": "t", "description": "d", "parameters": {"type": "object"}}
        keys = list(fields)[n % 3 :] + list(fields)[: n % 3]
        return [{"type": "function", "function": {key: fields[key] for key in keys}}]

    found = looked(request(n, tools=schema(n)) for n in range(4))
    assert found is not None
    assert (found.cause, found.where) == ("unsorted JSON", "tools")


def test_rewritten_history_is_named_with_its_place() -> None:
    detector, found = Detector(), None
    for n in range(4):
        talk = [{"role": "user", "content": "begin"}, {"role": "assistant", "content": f"at {n}: so it is"}]
        talk += [{"role": "user", "content": f"{i}"} for i in range(n + 2)]
        found = detector.look("shop", ChatRequest([{"role": "system", "content": BODY}, *talk], "gpt-5"))
    assert found is not None
    assert (found.cause, found.where, found.times) == ("changed history", "messages[2]", 3)


def test_history_cut_short_is_named() -> None:
    detector = Detector()
    talk = [{"role": "user", "content": "begin"}, *({"role": "user", "content": str(n)} for n in range(6))]
    detector.look("shop", ChatRequest(talk, "gpt-5"))
    found = detector.look("shop", ChatRequest(talk[:3], "gpt-5"))
    assert found is not None
    assert found.cause == "changed history"


def test_growing_talks_side_by_side_are_fine() -> None:
    detector = Detector()
    talks: list[list[dict[str, str]]] = [[{"role": "user", "content": f"hello from {n}"}] for n in range(3)]
    for turn in range(5):
        for talk in talks:
            last = {**talk[-1], "content": f"{talk[-1]['content']}\n\nIt is 12:{turn:02d}"}
            said = [{"role": "system", "content": BODY}, *talk[:-1], last]
            assert detector.look("shop", ChatRequest(said, "gpt-5")) is None
            talk += [{"role": "assistant", "content": f"answer {turn}"}, {"role": "user", "content": f"more {turn}"}]


def test_two_templates_under_one_name_are_not_taken_for_a_broken_prefix() -> None:
    detector = Detector()
    for n in range(6):
        assert detector.look("shop", request(n, system="A" * 99 if n < 3 else "B" * 99)) is None


def test_finding_goes_when_the_prefix_is_mended() -> None:
    detector = Detector()
    for n in range(4):
        detector.look("shop", request(n, **PLANTED["uuid"](n)))
    assert [found.cause for found in detector.findings()] == ["uuid"]
    for n in range(2):
        detector.look("shop", request(n))
    assert detector.findings() == []


def test_report_says_what_a_broken_prefix_costs_a_day() -> None:
    clock = FakeClock()
    tracker = PerformanceTracker(clock=clock)
    optimizer = TokenOptimizer(clock=clock, tracker=tracker)
    for n in range(20):
        sent = request(n, system=f"Now: 2026-11-20T14:{n:02d}:00Z\n{BODY}").evolve(agent="shop")
        optimizer.observe(sent, ChatResponse("x", Usage(1000, 5, cached_tokens=100), "gpt-5", "p"))
        clock.advance(6.0)
    [row] = optimizer.prefix_report()
    assert (row["route"], row["cause"], row["times"]) == ("shop", "timestamp", 20)
    assert row["hit_ratio"] == pytest.approx(0.1)
    tokens = optimizer.count_tokens(BODY)
    expected = tokens * (1.25 - 0.125) / 1e6 * 10 * 1440
    assert row["per_day"] == pytest.approx(expected, rel=0.05)
    assert tracker.get_stats("prefix_broken")["count"] > 0


def test_what_users_say_is_not_kept() -> None:
    detector = Detector()
    for n in range(3):
        detector.look("shop", request(n, ask="my secret illness"))
    kept = repr([vars(detector), *map(repr, detector._heads.values()), *map(repr, detector._talks.values())])
    assert "illness" not in kept
