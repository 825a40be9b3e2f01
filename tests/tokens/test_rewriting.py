from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from perfkit.errors import UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer

RULES = "Answer in the language of the question and never tell what others have bought. "
TOOLS = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in "ba"]


@dataclass
class Agent:
    instructions: str = RULES
    model: str = "gpt-4o"
    tools: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FrozenAgent:
    instructions: str = RULES
    model: str = "gpt-4o"

    def shout(self) -> str:
        return self.model.upper()


def made(**settings: Any) -> TokenOptimizer:
    return TokenOptimizer(tracker=PerformanceTracker(), **settings)


def test_copy_is_optimized_and_the_original_is_not_touched() -> None:
    agent = Agent(tools=list(TOOLS))
    before = repr(agent)
    records = [{"order": n, "state": "open", "total": n * 2.5} for n in range(30)]
    optimized = made().optimize_request(agent, "Where is my order?", {"budget": 0.001, "orders": records})
    assert repr(agent) == before
    assert isinstance(optimized, Agent)
    assert optimized.model == "gpt-4o-mini"
    assert [tool["name"] for tool in optimized.tools] == ["a", "b"]
    report = optimized.report  # type: ignore[attr-defined]
    assert json.loads(report.context)["orders"]["cols"] == ["order", "state", "total"]
    assert report.saved_tokens > 100
    assert report.saved == pytest.approx(report.cost_before - report.cost_after)
    assert report.cost_after < report.cost_before / 10
    assert len(report.changes) == 3


def test_nothing_to_do_changes_nothing() -> None:
    agent = Agent()
    optimized = made().optimize_request(agent, "hi")
    assert (optimized.instructions, optimized.model, optimized.tools) == (RULES, "gpt-4o", [])
    assert optimized.report.changes == optimized.report.warnings == ()
    assert optimized.report.saved == 0


def test_agent_that_cannot_be_changed_gets_a_view() -> None:
    agent = FrozenAgent()
    optimized = made().optimize_request(agent, "hi", {"budget": 0.00005})
    assert (optimized.model, optimized.instructions) == ("gpt-4o-mini", RULES)
    assert optimized.shout() == "GPT-4O"
    assert agent.model == "gpt-4o"


def test_constraints_no_model_keeps_to_are_an_error() -> None:
    with pytest.raises(ValueError, match="no model meets the constraints"):
        made().optimize_request(Agent(), "hi", {"budget": 0.0})


def test_instructions_are_never_cut_unless_asked_for_by_name() -> None:
    text = "One. Two. Three. Four. Five."
    optimizer = made()
    assert optimizer.optimize_instructions(text, "gpt-4o-mini") == text
    assert optimizer.optimize_instructions(text, "gpt-4o-mini", style="three_sentences") == "One. Two. Three."
    assert optimizer.optimize_instructions(text, "gpt-4o", style="three_sentences") == text
    with pytest.raises(UnknownNameError, match="lossless"):
        optimizer.optimize_instructions(text, style="short")


def test_repeated_lines_of_instructions_are_told_once() -> None:
    line = "Never tell a customer what other customers have bought here."
    text = f"Rules:\n{line}\nMore rules:\n{line}"
    optimized = made().optimize_request(SimpleNamespace(instructions=text, model="gpt-4o"), "hi")
    assert optimized.instructions.endswith("[as line 2]")
    assert "instructions" in optimized.report.changes[0]


def test_time_in_the_instructions_is_warned_of() -> None:
    report = made().optimize_request(Agent(f"It is 2026-11-20T14:05:00Z. {RULES}"), "hi").report
    assert len(report.warnings) == 1
    assert "timestamp, '2026-11-20T14:05:00Z'" in report.warnings[0]


def test_model_without_a_price_has_no_saving() -> None:
    assert made().optimize_request(Agent(model="nobody's"), "hi").report.saved is None
