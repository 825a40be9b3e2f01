from __future__ import annotations

import pytest

from perfkit.metrics import feedback
from perfkit.metrics.feedback import Answers, opinions
from perfkit.values import ChatResponse, Usage

TAGS = {"provider": "p", "model": "m"}


def test_the_newest_answers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "_REMEMBERED", 2)
    answers = Answers()
    for name in "abc":
        answers.remember(name, {**TAGS, "agent": name})
    assert [answers.tags(name) for name in "abc"] == [None, {**TAGS, "agent": "b"}, {**TAGS, "agent": "c"}]
    answers.clear()
    assert answers.tags("c") is None


def test_a_response_tells_of_itself_where_nobody_remembers_it() -> None:
    answers, response = Answers(), ChatResponse("hi", Usage(1, 2), "m", "p", id="r1")
    assert answers.tags(response) == TAGS
    answers.remember("r1", {**TAGS, "agent": "shop"})
    assert answers.tags(response) == answers.tags("r1") == {**TAGS, "agent": "shop"}
    assert answers.tags(object()) is None


def test_only_opinions_that_were_given_are_recorded() -> None:
    assert list(opinions(0.5, satisfied=None, completed=False)) == [
        ("feedback_score", 0.5),
        ("feedback_completed", 0.0),
    ]
