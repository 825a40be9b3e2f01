from __future__ import annotations

import json

import pytest

import perfkit
from perfkit.testing import FaultServer, faults

LONG = "You help people with their orders. " * 300


def configure(fault: FaultServer, **tokens: object) -> None:
    row = {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}
    perfkit.configure(
        providers={name: dict(row) for name in ("east", "west", "north")},
        router={"strategy": "round_robin"},
        client={"default_model": "gpt-4o"},
        tokens=tokens,
    )


@pytest.mark.parametrize(("cached", "providers"), [(1920, 1), (0, 3)])
def test_conversation_stays_with_the_provider_that_has_its_prefix(
    fault: FaultServer, cached: int, providers: int
) -> None:
    configure(fault)
    usage = {"prompt_tokens": 2000, "completion_tokens": 5, "cached_tokens": cached}
    fault.behave(*[faults.ok("yes", usage=usage) for _ in range(6)])
    talk = [{"role": "system", "content": LONG}, {"role": "user", "content": "begin"}]
    asked = []
    for turn in range(6):
        answer = perfkit.chat(talk)
        asked.append(answer.provider)
        talk += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": f"turn {turn}"}]
    assert len(set(asked)) == providers
    if cached:
        assert answer.attempts[0].reason == "has the prefix of the conversation"


def test_provider_that_fails_is_left_though_it_has_the_prefix(fault: FaultServer) -> None:
    configure(fault)
    usage = {"prompt_tokens": 2000, "completion_tokens": 5, "cached_tokens": 1920}
    fault.behave(faults.ok("yes", usage=usage), faults.server_error(), faults.ok("no", usage=usage))
    first, second = perfkit.chat("begin"), perfkit.chat("begin")
    assert second.attempts[0].provider == first.provider
    assert second.provider != first.provider


def test_requests_are_laid_out_only_where_it_is_switched_on(fault: FaultServer) -> None:
    for layout in (False, True):
        configure(fault, layout=layout, volatile=[r"Now: [^\n]*\n"])
        perfkit.chat([{"role": "system", "content": f"Now: 12:30\n{LONG}"}, {"role": "user", "content": "hi"}])
    plain, laid = (json.loads(request["body"]) for request in fault.stats()["recent"])
    assert plain["messages"][0]["content"].startswith("Now: 12:30")
    assert "prompt_cache_key" not in plain
    assert laid["messages"][0]["content"] == LONG
    assert laid["messages"][1]["content"] == "hi\n\nNow: 12:30\n"
    assert laid["prompt_cache_key"] == "default:0"
