from __future__ import annotations

import pytest

import perfkit
from perfkit.bench.sampling import ERROR_KINDS, Sample, ask
from perfkit.clock import SYSTEM_CLOCK
from perfkit.providers import create_provider
from perfkit.testing import FaultServer, faults
from perfkit.testing.faults import Behaviour
from perfkit.values import ChatRequest, Usage


def asked(base_url: str, *, timeout: float = 10.0) -> Sample:
    provider = create_provider("openai", name="p", base_url=base_url, api_key="k")
    request = ChatRequest([{"role": "user", "content": "hi"}], "gpt-4o-mini", timeout=timeout)
    return ask(provider, request, clock=SYSTEM_CLOCK, began=SYSTEM_CLOCK.now(), due=0.0)


def test_an_answer_has_times_tokens_and_cost(fault: FaultServer) -> None:
    sample = asked(fault.base_url)
    assert sample.error is None
    assert sample.usage is not None
    assert sample.cost == perfkit.optimizer.calculate_cost(sample.usage, "gpt-4o-mini") != 0.0
    assert sample.first_token is not None
    assert 0 < sample.first_token <= sample.seconds


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (faults.rate_limited(), "429"),
        (faults.server_error(), "5xx"),
        (faults.status(400), "4xx"),
        (faults.garbage("json"), "bad_json"),
        (faults.cut(faults.ok("one two three"), after_events=2), "stream_cut"),
        (faults.hang(), "timeout"),
        (faults.malformed_sse(), "bad_json"),
    ],
)
def test_errors_are_told_apart_and_nothing_is_tried_again(fault: FaultServer, behaviour: Behaviour, kind: str) -> None:
    fault.behave(behaviour)
    sample = asked(fault.base_url, timeout=1.5 if kind == "timeout" else 20)
    assert sample.error == kind, sample
    assert sample.error in ERROR_KINDS
    assert sample.message
    assert fault.stats()["requests"] == 1


def test_nobody_there_is_a_connect_error() -> None:
    assert asked("http://127.0.0.1:9/v1").error == "connect"


def test_time_per_token_is_of_the_tokens_after_the_first() -> None:
    assert Sample(0, 0, 3.0, 1.0, Usage(1, 5)).per_token == 0.5
    assert Sample(0, 0, 3.0, 1.0, Usage(1, 1)).per_token is None
    assert Sample(0, 0, 3.0, None, Usage(1, 5)).per_token is None


def test_a_missing_key_is_a_kind_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    provider = create_provider("openai")
    request = ChatRequest([{"role": "user", "content": "hi"}], "gpt-4o-mini")
    sample = ask(provider, request, clock=SYSTEM_CLOCK, began=SYSTEM_CLOCK.now(), due=0.0)
    assert sample.error == "no_key"
    assert "set OPENAI_API_KEY" in sample.message
