from __future__ import annotations

import pytest

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.prefix import Traffic, rule_of
from perfkit.tokens.prefix.rules import rules
from perfkit.values import ChatRequest, ChatResponse, Usage


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o-mini", "openai-4o"),
        ("gpt-4.1-nano", "openai-4.1"),
        ("o3", "openai-4.1"),
        ("gpt-5-mini", "openai"),
        ("gpt-5.6", "openai-explicit"),
        ("gpt-6.1-sol", "openai-explicit"),
        ("anthropic/claude-opus-5-5", "anthropic-512"),
        ("claude-haiku-4-5-20251001", "anthropic-4096"),
        ("claude-sonnet-4", "anthropic"),
        ("gemini-2.5-pro", "gemini-pro"),
        ("gemini-3.8-flash", "gemini"),
        ("deepseek-v4-flash", "deepseek"),
        ("openai/gpt-oss-120b", "groq"),
        ("tiny", None),
    ],
)
def test_rule_of_a_model_is_found_by_its_name(model: str, name: str | None) -> None:
    found = rule_of(model)
    assert (found.name if found is not None else None) == name


def test_every_rule_says_where_it_is_from() -> None:
    assert all(rule.source.startswith("https://") for rule in rules())


def test_rhythm_is_that_of_the_newest_requests_and_nights_do_not_count() -> None:
    traffic = Traffic()
    for at in (0, 10, 20, 30, 9000, 9010):
        traffic.note("r", Usage(100, 1, cached_tokens=50), at)
    rhythm = traffic.rhythm("r")
    assert rhythm.gap == pytest.approx(10)
    assert rhythm.per_minute == pytest.approx(6)
    assert (rhythm.prompt, rhythm.read, rhythm.calls) == (600, 300, 6)
    assert traffic.rhythm("other").calls == 0


def test_conversation_stays_where_its_prefix_is_warm_until_it_is_cold() -> None:
    clock = FakeClock()
    optimizer = TokenOptimizer(clock=clock, tracker=PerformanceTracker(clock=clock))
    talk = [{"role": "system", "content": "S"}, {"role": "user", "content": "begin"}]
    first = ChatRequest(talk, "gpt-5", user="anna")
    assert optimizer.warm_provider(first) is None
    optimizer.observe(first, ChatResponse("x", Usage(2000, 1, cached_tokens=1920), "gpt-5", "east"))
    more = [*talk, {"role": "assistant", "content": "x"}, {"role": "user", "content": "next"}]
    later = ChatRequest(more, "gpt-5", user="anna")
    assert optimizer.warm_provider(later) == "east"
    assert optimizer.warm_provider(later.evolve(user="ben")) is None
    clock.advance(301)
    assert optimizer.warm_provider(later) is None
