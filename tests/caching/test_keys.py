from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perfkit.caching.keys import _canonical, plain_key, request_digest, scoped_key
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
        {"messages": [{"role": "user", "content": " hi"}]},
        {"messages": [{"role": "assistant", "content": "hi"}]},
        {"extra": {"seed": 1}},
        {"extra": {"seed": "1"}},
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
        {"messages": [{"role": "user", "content": "hi \n"}]},
        {"temperature": -0.0},
    ],
)
def test_what_does_not_change_the_answer_does_not_change_the_key(change: dict[str, Any]) -> None:
    assert request_digest(BASE.evolve(**change)) == request_digest(BASE)


def test_a_pinned_provider_is_part_of_the_question() -> None:
    assert request_digest(BASE, provider="a") != request_digest(BASE)


@example(["", ""], ["", " "])
@given(st.lists(st.text(max_size=8), min_size=2, max_size=4), st.lists(st.text(max_size=8), min_size=2, max_size=4))
def test_texts_cannot_run_together(one: list[str], two: list[str]) -> None:
    def digest(texts: list[str]) -> bytes:
        return request_digest(ChatRequest([{"role": "system", "content": t} for t in texts], "m", 0.0))

    def said(texts: list[str]) -> list[str]:
        return [unicodedata.normalize("NFC", text).rstrip() for text in texts]

    assert (digest(one) == digest(two)) == (said(one) == said(two))


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_users_never_share_a_key_and_names_do_not_show(one: str, two: str) -> None:
    digest = request_digest(BASE)
    assert (scoped_key(digest, one) == scoped_key(digest, two)) == (one == two)
    assert scoped_key(digest, one) != scoped_key(digest, None)
    assert "user-4711" not in scoped_key(digest, "user-4711")


def test_what_json_cannot_express_is_refused() -> None:
    with pytest.raises(TypeError):
        request_digest(BASE.evolve(extra={"x": object()}))


CIRCLE: dict[str, Any] = {}
CIRCLE["a"] = CIRCLE
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("key", "kind", "culprit"),
    [
        (object(), TypeError, "the key"),
        ([float("nan")], ValueError, "the key"),
        ({"fine": 1, "context": {"user": {"db": {1}}}}, TypeError, "context.user.db"),
        ({"deep": DEEP}, ValueError, "deep"),
        (CIRCLE, ValueError, "a.a.a"),
    ],
)
def test_what_of_a_key_json_cannot_express_is_named(key: Any, kind: type[Exception], culprit: str) -> None:
    with pytest.raises(kind, match=f"^{culprit}.* cannot be written as JSON: "):
        plain_key(key)


def dumped(message: Any) -> str:
    return json.dumps(message, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@given(st.sampled_from(["assistant", "tool", "odd"]), st.text())
def test_a_plain_message_is_written_as_json_writes_it(role: str, content: str) -> None:
    message = {"role": role, "content": content}
    assert _canonical(message) == dumped(message)


@given(st.sampled_from(["user", "system", "developer"]), st.text())
def test_what_somebody_says_is_written_in_its_normal_form(role: str, content: str) -> None:
    normal = unicodedata.normalize("NFC", content).rstrip()
    assert _canonical({"role": role, "content": content}) == dumped({"role": role, "content": normal})


def test_the_form_of_an_accent_makes_no_other_question_and_the_accent_does() -> None:
    def digest(text: str) -> bytes:
        return request_digest(BASE.evolve(messages=[{"role": "user", "content": text}]))

    assert digest("caf\u00e9") == digest("cafe\u0301") != digest("cafe")
    assert digest("x\u00b2") != digest("x2")  # NFKC would make them one


def test_white_space_an_answer_goes_on_from_stays() -> None:
    def digest(text: str) -> bytes:
        said = {"role": "user", "content": "hi"}
        return request_digest(BASE.evolve(messages=[said, {"role": "assistant", "content": text}]))

    assert digest("It is") != digest("It is ")


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": [1, {"x": 1, "y": 2}]}, {"a": [1, {"y": 2, "x": 1}]}, True),
        ({"a": (1, 2)}, {"a": [1, 2]}, True),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": None}, {}, False),
        ({"stop": "x", "seed": 1}, {"stop": "xseed: 1"}, False),
        ({"a": "b", "c": "d"}, {"a": 'b","c":"d'}, False),
    ],
)
def test_parameters_are_the_same_as_documented(one: dict[str, Any], two: dict[str, Any], same: bool) -> None:
    assert (request_digest(BASE.evolve(extra=one)) == request_digest(BASE.evolve(extra=two))) == same
    assert (request_digest(BASE.evolve(metadata=one)) == request_digest(BASE.evolve(metadata=two))) == same
    assert (plain_key(one) == plain_key(two)) == same


texts = st.text(st.sampled_from('a1:,"{}[]\\ \n\u00e9'), max_size=6)
leaves = st.none() | st.booleans() | st.integers(-2, 2) | texts
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
requests = st.builds(
    lambda messages, model, temperature, tools, extra, context: ChatRequest(
        [{"role": "assistant", "content": text} for text in messages],
        model,
        temperature,
        tools=tools,
        extra=extra,
        metadata=context,
    ),
    st.lists(texts, min_size=1, max_size=3),
    texts.filter(bool),
    st.sampled_from([None, 0, 0.0, 0.5]),
    st.none() | st.lists(st.dictionaries(texts, values, max_size=2), max_size=2),
    st.dictionaries(texts, values, max_size=2),
    st.dictionaries(texts, values, max_size=2),
)


def canonical(request: ChatRequest) -> str:
    """Return what makes the question, each part under its own name, with nothing of the code under test."""
    parts = [
        [dict(message) for message in request.messages],
        request.model,
        None if request.temperature is None else float(request.temperature),
        request.tools,
        request.extra,
        request.metadata,
    ]
    return json.dumps(parts, sort_keys=True)


@settings(max_examples=300)
@given(requests, requests)
def test_two_requests_share_a_key_only_if_they_are_the_same_question(one: ChatRequest, two: ChatRequest) -> None:
    assert (request_digest(one) == request_digest(two)) == (canonical(one) == canonical(two))


@given(requests, st.sampled_from(["model", "extra", "metadata"]), texts.filter(bool))
def test_any_one_change_makes_another_key(request: ChatRequest, field: str, text: str) -> None:
    old = getattr(request, field)
    changed = old + text if isinstance(old, str) else {**old, text: [old.get(text)]}
    assert request_digest(request.evolve(**{field: changed})) != request_digest(request)


@given(texts, texts, texts)
def test_scopes_of_all_kinds_keep_apart(user: str, tenant: str, other: str) -> None:
    digest = request_digest(BASE)
    keys = [scoped_key(digest, None), scoped_key(digest, user), scoped_key(digest, None, tenant)]
    assert len(set(keys)) == 3
    assert scoped_key(digest, user, tenant) == scoped_key(digest, user)  # the narrower one counts
    assert (scoped_key(digest, None, other) == scoped_key(digest, None, tenant)) == (other == tenant)


@given(values, values, st.none() | texts, st.none() | texts)
def test_keys_of_direct_use_do_not_collide(one: Any, two: Any, mine: str | None, yours: str | None) -> None:
    same = type(one) is type(two) and json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert (plain_key(one, mine) == plain_key(two, yours)) == (same and mine == yours)


def test_the_user_is_a_scope_and_anybody_else_in_the_context_another_question() -> None:
    anna = BASE.evolve(user="anna")
    assert request_digest(anna.evolve(metadata={"user_id": "anna"})) == request_digest(anna)
    assert request_digest(anna.evolve(metadata={"user_id": "bert"})) != request_digest(anna)
    assert request_digest(BASE.evolve(metadata={"user_id": "anna"})) != request_digest(BASE)
    assert request_digest(BASE, target="other") != request_digest(BASE)
