"""What a call costs: the Python functions it enters, counted, so that no room makes every call dearer unseen.

A bound that is too low after a change says what the change costs; raise it only for what every call is to pay for. A
function costs some 0.2 us.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

import perfkit
from perfkit.testing import FaultServer
from perfkit.values import ChatRequest, ChatResponse, Usage

MESSAGES = [{"role": "system", "content": "Be brief. " * 50}, {"role": "user", "content": "What is the capital? " * 20}]
WARM = 20  # calls until all is bound, and learned of the route what is learned at first only


@pytest.fixture(autouse=True)
def _configured(fault: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)  # other tests trace
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        tokens={"prices": {"tiny": {"input": 0.15, "output": 0.6}}},
        profiler={"slow_capture": "off"},
    )


def entered(call: Callable[[], Any]) -> int:
    """Return how many Python functions a warm call enters: the least of many: a busy machine splits replies."""
    for _ in range(WARM):
        call()
    return min(_count(call) for _ in range(30))


def _count(call: Callable[[], Any]) -> int:
    calls = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    gc.disable()  # who is told of collections is no part of the call
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


def _heard(pieces: int) -> list[str]:
    return list(perfkit.stream("word " * pieces, model="tiny", cache="never"))


def test_a_hit_enters_few_functions() -> None:
    assert entered(lambda: perfkit.chat(MESSAGES, model="tiny", temperature=0)) <= 78


def test_catching_slow_calls_adds_few_functions() -> None:
    def hit() -> int:
        return entered(lambda: perfkit.chat(MESSAGES, model="tiny", temperature=0))

    def piece() -> float:
        return (entered(lambda: _heard(200)) - entered(lambda: _heard(100))) / 100

    off = hit(), piece()
    perfkit.configure(profiler={"slow_capture": "on", "slowest": 1})  # counted calls are slower: ten would all be kept
    on = hit(), piece()
    assert on[0] - off[0] <= 12
    assert on[1] - off[1] < 2


def test_a_miss_enters_few_functions() -> None:
    number = count()
    assert entered(lambda: perfkit.chat(MESSAGES, model="tiny", temperature=0, context={"n": next(number)})) <= 332


def test_a_call_without_cache_enters_few_functions() -> None:
    assert entered(lambda: perfkit.chat(MESSAGES, model="tiny", cache="never")) <= 239


def test_the_router_enters_few_functions() -> None:
    class Instant:
        def chat_completion(self, request: ChatRequest) -> ChatResponse:
            return ChatResponse("Paris", Usage(9, 1), request.model, "instant")

    perfkit.router.register_provider("instant", Instant(), models=["m"])
    request = ChatRequest([{"role": "user", "content": "hi"}], "m", timeout=30)
    assert entered(lambda: perfkit.router.execute_with_fallback(request)) <= 26


def test_each_piece_of_a_stream_enters_few_functions() -> None:
    assert entered(lambda: _heard(200)) - entered(lambda: _heard(100)) <= 100 * 38
