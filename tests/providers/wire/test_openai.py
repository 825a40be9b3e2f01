from __future__ import annotations

import json
from typing import Any

import pytest
from providers.asking import asked

from perfkit.providers.wire import openai
from perfkit.providers.wire.reply import ErrorReply, Reply
from perfkit.transport import ServerSentEvent
from perfkit.values import Usage

FUNCTION = {"name": "get", "description": "d", "parameters": {"type": "object"}, "strict": True}
CALL = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"x": 1}'}}


def answered(message: dict[str, Any], finish: str | None = "stop", **rest: Any) -> Reply:
    return openai.reply({"choices": [{"message": message, "finish_reason": finish}], **rest})


def used(**told: Any) -> Usage | None:
    return answered({"content": "x"}, usage=told).usage


def read(*chunks: Any, done: bool = True) -> tuple[list[str], Reply]:
    reader = openai.Reader()
    events = [json.dumps(chunk) for chunk in chunks] + (["[DONE]"] if done else [])
    texts = [reader.feed(ServerSentEvent("message", data)) for data in events]
    return texts, reader.finish("".join(texts))


def delta(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"id": "i", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


# --- requests ---------------------------------------------------------------------------------------------------------


def test_only_what_was_asked_is_sent() -> None:
    request = asked("hi", user="42", metadata={"secret": 1}, timeout=3)
    body = openai.payload(request, stream=False)
    assert body == {"model": "m", "messages": ({"role": "user", "content": "hi"},)}


def test_messages_of_all_roles_go_through_as_they_are() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
    ]
    assert list(openai.payload(asked(messages), stream=False)["messages"]) == messages


def test_every_parameter_has_its_field() -> None:
    request = asked(
        temperature=0,
        max_tokens=5,
        tools=({"type": "function", "function": FUNCTION},),
        extra={"top_p": 0.5},
    )
    body = openai.payload(request, stream=False, max_tokens_field="max_completion_tokens")
    assert (body["temperature"], body["max_completion_tokens"], body["top_p"]) == (0, 5, 0.5)
    assert "max_tokens" not in body
    assert body["tools"] == [{"type": "function", "function": FUNCTION}]


def test_tools_written_for_anthropic_are_translated() -> None:
    tool = {"name": "get", "description": "d", "input_schema": {"type": "object"}, "strict": True}
    body = openai.payload(asked("hi", tools=(tool,)), stream=False)
    assert body["tools"] == [{"type": "function", "function": FUNCTION}]


def test_extra_wins_over_all_but_stream() -> None:
    request = asked("hi", temperature=0, extra={"temperature": 1, "model": "other", "stream": True})
    assert openai.payload(request, stream=False)["temperature"] == 1
    assert openai.payload(request, stream=False)["model"] == "other"
    assert "stream" not in openai.payload(request, stream=False)
    assert openai.payload(asked("hi", extra={"stream": False}), stream=True)["stream"] is True


@pytest.mark.parametrize(
    ("extra", "include_usage", "options"),
    [
        ({}, True, {"include_usage": True}),
        ({}, False, None),
        ({"stream_options": {"include_usage": False}}, True, {"include_usage": False}),
        (
            {"stream_options": {"include_obfuscation": False}},
            True,
            {"include_usage": True, "include_obfuscation": False},
        ),
        ({"stream_options": None}, True, None),
    ],
)
def test_usage_is_asked_for_unless_the_caller_spoke(extra: dict[str, Any], include_usage: bool, options: Any) -> None:
    request = asked("hi", extra=extra)
    assert openai.payload(request, stream=True, include_usage=include_usage).get("stream_options") == options
    assert "stream_options" not in openai.payload(asked("hi"), stream=False)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_read() -> None:
    said = answered({"content": "hello"}, id="i", model="m-1", usage={"prompt_tokens": 3, "completion_tokens": 2})
    assert said == Reply("hello", [], Usage(3, 2), "m-1", "stop", "i")


def test_text_in_parts_is_joined_without_the_thoughts() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert answered({"content": parts}).text == "ab"


def test_tool_calls_are_read_and_arguments_are_always_text() -> None:
    bare = {"function": {"name": "get", "arguments": {"x": 1}}}
    said = answered({"content": None, "tool_calls": [CALL, bare]}, "tool_calls")
    assert said.tool_calls == [CALL, {**CALL, "id": ""}]
    assert said.text == ""


def test_a_refusal_is_the_text_and_the_reason() -> None:
    said = answered({"content": None, "refusal": "I cannot"})
    assert (said.text, said.finish_reason) == ("I cannot", "content_filter")


@pytest.mark.parametrize(("told", "ours"), [("eos", "stop"), ("model_length", "length"), ("odd", "odd"), (None, None)])
def test_other_words_for_the_reason(told: str | None, ours: str | None) -> None:
    assert answered({"content": "x"}, told).finish_reason == ours


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_nothing_said_is_an_answer_where_there_is_a_reason(finish: str) -> None:
    assert answered({"content": None}, finish).text == ""
    assert answered({"content": ""}, "stop").text == ""


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": [None]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {}}]},
        {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"content": "x"}}], "usage": "none"},
        {"choices": [{"message": {"tool_calls": [{"id": "x"}]}}]},
        [],
        "text",
        5,
        None,
    ],
)
def test_what_is_no_answer_is_refused(document: Any) -> None:
    with pytest.raises((LookupError, TypeError, AttributeError, ValueError)):
        openai.reply(document)


def test_a_choice_that_is_an_error_is_one() -> None:
    with pytest.raises(ErrorReply) as caught:
        openai.reply({"choices": [{"error": {"code": 502, "message": "m"}, "message": {"content": ""}}]})
    assert caught.value.document["error"]["code"] == 502


def test_usage_of_every_vendor() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}}
    assert used(prompt_tokens=9, completion_tokens=5, **details) == Usage(9, 5, 4, 2)
    assert used(prompt_tokens=9, completion_tokens=5, prompt_cache_hit_tokens=4) == Usage(9, 5, 4)  # DeepSeek
    reasoning = {"completion_tokens_details": {"reasoning_tokens": 3}}
    assert used(prompt_tokens=9, completion_tokens=5, total_tokens=14, **reasoning) == Usage(9, 5, reasoning_tokens=3)
    assert used(prompt_tokens=9, completion_tokens=5, total_tokens=17, **reasoning) == Usage(
        9, 8, reasoning_tokens=3
    )  # xAI
    nulls = {"prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": None}}
    assert used(prompt_tokens=9, completion_tokens=5, **nulls) == Usage(9, 5)


@pytest.mark.parametrize("told", [{}, {"prompt_tokens": None}, {"prompt_tokens": "9"}, {"prompt_tokens": True}])
def test_usage_that_makes_no_sense_is_none(told: dict[str, Any]) -> None:
    assert used(**told) is None


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_says_the_same_as_the_whole_answer() -> None:
    usage = {"id": "i", "model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    texts, said = read(
        delta(role="assistant", content=None), delta(content="hel"), delta(content="lo"), delta("stop"), usage
    )
    assert texts == ["", "hel", "lo", "", "", ""]
    assert said == Reply("hello", [], Usage(3, 2), "m", "stop", "i")


def test_usage_in_a_chunk_with_choices_and_groqs_own() -> None:
    told = {"prompt_tokens": 3, "completion_tokens": 2}
    assert read(delta("stop", content="x") | {"usage": told})[1].usage == Usage(3, 2)
    assert read(delta("stop", content="x") | {"x_groq": {"id": "r", "usage": told}})[1].usage == Usage(3, 2)
    assert read(delta("stop", content="x") | {"usage": None})[1].usage is None


def piece(
    index: int | None, call_id: str | None = None, name: str | None = None, arguments: Any = ""
) -> dict[str, Any]:
    part = {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in part.items() if value is not None}


def calls(*parts: dict[str, Any]) -> list[tuple[str, str, str]]:
    said = read(*(delta(tool_calls=[part]) for part in parts), delta("tool_calls"))[1]
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in said.tool_calls]


def test_pieces_of_tool_calls_are_put_together() -> None:
    parts = [
        piece(0, "a", "get"),
        piece(0, arguments='{"x"'),
        piece(1, "b", "put"),
        piece(0, arguments=":1}"),
        piece(1, arguments="{}"),
    ]
    assert calls(*parts) == [("a", "get", '{"x":1}'), ("b", "put", "{}")]


def test_tool_calls_of_servers_that_count_otherwise() -> None:
    assert calls(piece(None, "a", "get", "{"), piece(None, arguments="}"), piece(None, "b", "put", "{}")) == [
        ("a", "get", "{}"),
        ("b", "put", "{}"),
    ]
    assert calls(piece(0, "a", "get", "{}"), piece(0, "b", "put", "{}")) == [("a", "get", "{}"), ("b", "put", "{}")]
    assert calls(piece(0, "a", "get", "{"), piece(0, "a", "get", "}")) == [("a", "get", "{}")]
    assert calls(piece(0, "a", "get", {"x": 1})) == [("a", "get", '{"x": 1}')]


def test_a_refusal_in_pieces() -> None:
    texts, said = read(delta(refusal="I "), delta(refusal="cannot"), delta("stop"))
    assert "".join(texts) == ""
    assert (said.text, said.finish_reason) == ("I cannot", "content_filter")


@pytest.mark.parametrize(
    ("event", "chunk"),
    [
        ("message", {"error": {"message": "m"}}),
        ("error", {"message": "m"}),
        ("message", {"choices": [{"error": {"code": 502}, "delta": {}}]}),
    ],
)
def test_an_error_inside_the_stream(event: str, chunk: Any) -> None:
    with pytest.raises(ErrorReply):
        openai.Reader().feed(ServerSentEvent(event, json.dumps(chunk)))


def test_either_end_of_the_answer_is_enough_but_not_none() -> None:
    assert read(delta(content="x"))[1].text == "x"
    assert read(delta("stop", content="x"), done=False)[1].text == "x"
    with pytest.raises(ValueError, match="ended without"):
        read(delta(content="x"), done=False)
    with pytest.raises(ValueError, match="neither content"):
        read()


@pytest.mark.parametrize(
    "data", ["", "{", "5", "[]", '{"choices": [5]}', '{"choices": [{"delta": {"tool_calls": [1]}}]}']
)
def test_an_event_of_another_shape_is_refused(data: str) -> None:
    with pytest.raises((LookupError, TypeError, AttributeError, ValueError)):
        openai.Reader().feed(ServerSentEvent("message", data))
