from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import (
    AuthenticationError,
    BudgetExceededError,
    DeadlineExceeded,
    NetworkError,
    PerfkitError,
    PoolTimeout,
    ProviderError,
    UnknownNameError,
)
from perfkit.values import Attempt, ChatRequest, ChatResponse, Usage

MESSAGE = {"role": "user", "content": "hi"}


def test_a_string_becomes_one_user_message() -> None:
    assert ChatRequest("hi", "m").messages == (MESSAGE,)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"messages": []}, ValueError, "messages is empty"),
        ({"messages": ""}, ValueError, "content'] is empty"),
        ({"messages": None}, TypeError, "messages must be"),
        ({"messages": b"hi"}, TypeError, "messages must be"),
        ({"messages": {"role": "user"}}, TypeError, "messages must be"),
        ({"messages": ["hi"]}, TypeError, r"messages\[0\] must be a mapping"),
        ({"messages": [{"content": "hi"}]}, ValueError, "needs a 'role'"),
        ({"messages": [{"role": "user", "content": 3}]}, TypeError, "content'] must be"),
        ({"messages": [{"role": "user"}]}, TypeError, "content'] must be"),
        ({"model": ""}, ValueError, "model is empty"),
        ({"model": None}, TypeError, "model must be"),
        ({"temperature": float("nan")}, ValueError, "temperature must be a finite number"),
        ({"temperature": float("inf")}, ValueError, "temperature"),
        ({"temperature": -0.1}, ValueError, "at least 0"),
        ({"temperature": "0"}, TypeError, "temperature must be a number"),
        ({"temperature": True}, TypeError, "temperature must be a number"),
        ({"max_tokens": 0}, ValueError, "max_tokens"),
        ({"max_tokens": 1.5}, TypeError, "max_tokens must be a whole number"),
        ({"timeout": 0}, ValueError, "timeout must be a finite number above 0"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"tools": "search"}, TypeError, "tools must be"),
        ({"tools": ["search"]}, TypeError, "tools must be"),
        ({"response_format": "json"}, TypeError, "response_format must be"),
        ({"user": 42}, TypeError, "user must be a string"),
        ({"user": ""}, ValueError, "user is empty"),
        ({"extra": [1]}, TypeError, "extra must be"),
    ],
)
def test_bad_input_is_refused_when_the_request_is_made(
    arguments: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ChatRequest(**{"messages": "hi", "model": "m", **arguments})  # type: ignore[arg-type]


def test_an_assistant_turn_may_be_tool_calls_only() -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert ChatRequest([MESSAGE, turn], "m").messages[1] == turn


def test_values_come_back_equal_from_json() -> None:
    response = ChatResponse(
        "text",
        Usage(3, 4, cached_tokens=1),
        "model",
        "provider",
        tool_calls=({"id": "1"},),
        attempts=(Attempt("p", "m", 1.5, 0.25, "ok"),),
        raw={"a": [1, None]},
    )
    assert ChatResponse.from_dict(json.loads(json.dumps(response.to_dict()))) == response
    request = ChatRequest("hi", "m", 0.5, tools=({"type": "function"},))
    assert ChatRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_keys_of_a_newer_version_are_ignored() -> None:
    assert Usage.from_dict({"prompt_tokens": 1, "completion_tokens": 2, "dreamt_tokens": 3}).total_tokens == 3


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_total_is_prompt_plus_completion(prompt: int, completion: int) -> None:
    assert Usage(prompt, completion).total_tokens == prompt + completion


@pytest.mark.parametrize(
    ("error", "kin"),
    [
        (NetworkError("refused", host="h:1", attempt=2, sent=False), ConnectionError),
        (PoolTimeout("busy"), TimeoutError),
        (DeadlineExceeded("late", elapsed=1.5), TimeoutError),
        (AuthenticationError("no", provider="p", status=401), PermissionError),
        (ProviderError("no", retry_after=2.5), PerfkitError),
        (BudgetExceededError("over", scope=("user", "1"), limit=1.0), PerfkitError),
        (UnknownNameError.of("sink", "statd", ["statsd", "memory"]), KeyError),
    ],
)
def test_errors_pickle_whole_and_are_kin_of_the_standard_library(error: PerfkitError, kin: type[Exception]) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert isinstance(again, kin)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


def test_an_unknown_name_says_what_is_known_and_nearest() -> None:
    message = str(UnknownNameError.of("sink", "statd", ["statsd", "memory"]))
    assert message == "no sink 'statd'; known: memory, statsd; did you mean 'statsd'?"


def test_evolve_changes_a_copy() -> None:
    before = ChatResponse("text", Usage(1, 2), "m", "p", cost=1.0)
    after = before.evolve(cost=2.0, cached="exact")
    assert (before.cost, before.cached, after.cost, after.cached, after.usage) == (1.0, None, 2.0, "exact", Usage(1, 2))
    with pytest.raises(AttributeError):
        before.evolve(price=1)


def test_a_copy_of_a_subclass_is_one_too() -> None:
    class Mine(ChatRequest):
        """Has room for more."""

    request = Mine("hello", "m").evolve(model="other")
    assert (type(request), request.model) == (Mine, "other")
    changed = request.but(3.0)
    assert (type(changed), changed.model, changed.timeout) == (Mine, "other", 3.0)


def test_an_answer_asked_for_as_an_sdk_gives_it_says_where_the_text_is() -> None:
    answer: Any = ChatResponse("hi", Usage(1, 1), "m", "p")
    for name in ("choices", "content", "output_text"):
        with pytest.raises(AttributeError, match=f"a ChatResponse has no '{name}'; its text is .text"):
            getattr(answer, name)
    with pytest.raises(AttributeError, match=r"'ChatResponse' object has no attribute 'txt'$"):
        answer.txt  # noqa: B018 - asked for, not used
    assert not hasattr(answer, "choices")
    assert pickle.loads(pickle.dumps(answer)) == copy.deepcopy(answer) == answer


def test_the_quick_ways_to_make_a_value_give_what_the_slow_ones_do() -> None:
    answer = ChatResponse("hi", Usage(1, 1), "m", "p", cost=0.5, raw={"id": 1})
    attempt = Attempt("p", "m", 1.0, 2.0, "ok", None, "only candidate")
    assert Attempt.made("p", "m", 1.0, 2.0, "ok", None, "only candidate") == attempt
    assert answer.but((attempt,), "other") == answer.evolve(attempts=(attempt,), provider="other")
    assert answer.provider == "p"
