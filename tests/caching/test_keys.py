from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.caching.keys import _canonical, request_digest, scoped_key
from perfkit.values import ChatRequest

BASE = ChatRequest([{"role": "user", "content": "hi"}], "m", 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"temperature": 0.1},
        {"temperature": None},
        {"max_tokens": 5},
        {"tools": ({"type": "function", "function": {"name": "a"}},)},
        {"response_format": {"type": "json_object"}},
        {"extra": {"top_p": 0.5}},
        {"metadata": {"locale": "de"}},
        {"messages": [{"role": "user", "content": "hi "}]},
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "system", "content": "hi"}]},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "hi"}]},
    ],
)
def test_whatever_changes_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert request_digest(BASE.evolve(**change)) != request_digest(BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"timeout": 5.0},
        {"agent": "other"},
        {"user": "42"},
        {"metadata": {"request_id": "1", "session_id": "2", "timestamp": 3}},
        {"messages": [{"content": "hi", "role": "user"}]},
    ],
)
def test_what_does_not_change_the_answer_does_not_change_the_key(change: dict[str, Any]) -> None:
    assert request_digest(BASE.evolve(**change)) == request_digest(BASE)


def test_a_pinned_provider_is_part_of_the_question() -> None:
    assert request_digest(BASE, provider="a") != request_digest(BASE)


@given(st.lists(st.text(max_size=8), min_size=2, max_size=4), st.lists(st.text(max_size=8), min_size=2, max_size=4))
def test_texts_cannot_run_together(one: list[str], two: list[str]) -> None:
    def digest(texts: list[str]) -> bytes:
        return request_digest(ChatRequest([{"role": "system", "content": t} for t in texts], "m", 0.0))

    assert (digest(one) == digest(two)) == (one == two)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_users_never_share_a_key_and_names_do_not_show(one: str, two: str) -> None:
    digest = request_digest(BASE)
    assert (scoped_key(digest, one) == scoped_key(digest, two)) == (one == two)
    assert scoped_key(digest, one) != scoped_key(digest, None)
    assert "user-4711" not in scoped_key(digest, "user-4711")


def test_what_json_cannot_express_is_refused() -> None:
    with pytest.raises(TypeError):
        request_digest(BASE.evolve(extra={"x": object()}))


def test_a_plain_message_is_written_as_json_writes_it() -> None:
    @given(st.text(), st.text())
    def same(role: str, content: str) -> None:
        message = {"role": role, "content": content}
        assert _canonical(message) == json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    same()


def test_the_user_is_a_scope_and_anybody_else_in_the_context_another_question() -> None:
    anna = BASE.evolve(user="anna")
    assert request_digest(anna.evolve(metadata={"user_id": "anna"})) == request_digest(anna)
    assert request_digest(anna.evolve(metadata={"user_id": "bert"})) != request_digest(anna)
    assert request_digest(BASE.evolve(metadata={"user_id": "anna"})) != request_digest(BASE)
    assert request_digest(BASE, target="other") != request_digest(BASE)
