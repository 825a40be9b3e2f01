from __future__ import annotations

import json
from typing import Any

import pytest
from providers.asking import asked

from perfkit.errors import BadRequestError
from perfkit.providers.wire import anthropic
from perfkit.providers.wire.reply import ErrorReply, Reply
from perfkit.transport import ServerSentEvent
from perfkit.values import Usage

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"x": 1}'}}
USE = {"type": "tool_use", "id": "c1", "name": "get", "input": {"x": 1}}
TEXT = {"type": "text", "text": "hello"}
PNG = "data:image/png;base64,aGk="


def sent(messages: Any = "hi", **settings: Any) -> dict[str, Any]:
    return anthropic.payload(asked(messages, **settings), stream=False, max_tokens=4096)


def turns(*messages: dict[str, Any]) -> Any:
    return sent(list(messages))["messages"]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def read(*events: dict[str, Any]) -> tuple[list[str], Reply]:
    reader = anthropic.Reader()
    texts = [reader.feed(ServerSentEvent(event["type"], json.dumps(event))) for event in events]
    return texts, reader.finish("".join(texts))


def started(**usage: Any) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": "i",
        "model": "m-1",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 3} | usage,
    }
    return {"type": "message_start", "message": message}


def block(index: int, content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def ended(reason: str = "end_turn", **usage: Any) -> list[dict[str, Any]]:
    end = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 2} | usage}
    return [{"type": "content_block_stop", "index": 0}, end, {"type": "message_stop"}]


# --- requests ---------------------------------------------------------------------------------------------------------


def test_the_smallest_request() -> None:
    assert sent() == {"model": "m", "max_tokens": 4096, "messages": [user("hi")]}


def test_parameters() -> None:
    body = sent(temperature=0, max_tokens=5, extra={"top_k": 3, "stream": True})
    assert (body["temperature"], body["max_tokens"], body["top_k"]) == (0, 5, 3)
    assert "stream" not in body
    assert anthropic.payload(asked("hi"), stream=True, max_tokens=1)["stream"] is True


def test_system_messages_move_to_the_top() -> None:
    system = {"role": "system", "content": "be brief"}
    body = sent([system, user("hi")])
    assert (body["system"], body["messages"]) == ("be brief", [user("hi")])
    cached = {"type": "text", "text": "rules", "cache_control": {"type": "ephemeral"}}
    body = sent([system, user("hi"), {"role": "developer", "content": [cached]}])
    assert body["system"] == [{"type": "text", "text": "be brief"}, cached]
    assert body["messages"] == [user("hi")]


def test_tool_calls_become_blocks_after_the_text() -> None:
    assert turns(user("hi"), {"role": "assistant", "content": "hello", "tool_calls": [CALL]})[1] == {
        "role": "assistant",
        "content": [TEXT, USE],
    }
    assert turns(user("hi"), {"role": "assistant", "content": None, "tool_calls": [CALL]})[1]["content"] == [USE]
    nothing = {"id": "c1", "function": {"name": "get", "arguments": ""}}
    assert turns(user("hi"), {"role": "assistant", "content": "", "tool_calls": [nothing]})[1]["content"] == [
        {**USE, "input": {}}
    ]


def test_results_of_tools_that_follow_each_other_are_one_turn() -> None:
    def result(number: int, content: Any) -> dict[str, Any]:
        return {"role": "tool", "tool_call_id": f"c{number}", "content": content}

    parts = [{"type": "image_url", "image_url": {"url": PNG}}]
    found = turns(user("hi"), result(1, "7"), result(2, parts), user("go on"), result(3, "9"))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    assert found == [
        user("hi"),
        user(
            [
                {"type": "tool_result", "tool_use_id": "c1", "content": "7"},
                {"type": "tool_result", "tool_use_id": "c2", "content": [image]},
            ]
        ),
        user("go on"),
        user([{"type": "tool_result", "tool_use_id": "c3", "content": "9"}]),
    ]


def test_images_become_sources_and_anthropics_own_blocks_stay() -> None:
    document = {"type": "document", "source": {"type": "text", "data": "x"}}
    parts = [{"type": "image_url", "image_url": "https://x/y.png"}, TEXT, document]
    assert turns(user(parts)) == [
        user([{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}, TEXT, document])
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [user([{"type": "image_url", "image_url": {"url": "data:image/png,raw"}}])],
        [user([{"type": "image_url", "image_url": {"url": "data:;base64,aGk="}}])],
        [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}],
            }
        ],
        [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[]"}}],
            }
        ],
    ],
)
def test_what_cannot_be_translated_is_a_bad_request(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(BadRequestError):
        sent(messages)


def test_tools_are_translated_and_anthropics_own_stay() -> None:
    ours = {"type": "function", "function": {"name": "get", "description": "d", "parameters": SCHEMA, "strict": None}}
    bare = {"type": "function", "function": {"name": "now"}}
    theirs = {"type": "web_search_20250305", "name": "web_search"}
    assert sent(tools=(ours, bare, theirs))["tools"] == [
        {"name": "get", "description": "d", "input_schema": SCHEMA},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
        theirs,
    ]


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [
        ({"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
        ({"tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "tool", "name": "f"}},
        ),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": {"type": "any"}}),
        ({"parallel_tool_calls": False}, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        ({"parallel_tool_calls": True}, {}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["A", "B"]}, {"stop_sequences": ["A", "B"]}),
        ({"max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"thinking": {"type": "enabled"}}, {"thinking": {"type": "enabled"}}),
    ],
)
def test_openais_extras_are_translated(extra: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sent(extra=extra) == sent() | wanted


def test_structured_output_is_by_schema_only() -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    assert sent(response_format=asked)["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert sent(response_format={"type": "text"}) == sent()
    with pytest.raises(BadRequestError, match="json_object"):
        sent(response_format={"type": "json_object"})


# --- answers ----------------------------------------------------------------------------------------------------------


def answered(*content: dict[str, Any], reason: str | None = "end_turn", **rest: Any) -> Reply:
    return anthropic.reply({"id": "i", "model": "m-1", "content": list(content), "stop_reason": reason, **rest})


def test_an_answer_is_read() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    usage = {"input_tokens": 3, "output_tokens": 2}
    assert answered(thinking, TEXT, TEXT, usage=usage) == Reply("hellohello", [], Usage(3, 2), "m-1", "stop", "i")


def test_tool_calls_come_in_openais_form() -> None:
    server_tool = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    assert answered(server_tool, TEXT, USE, reason="tool_use").tool_calls == [CALL]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_reasons(theirs: str, ours: str) -> None:
    assert answered(reason=theirs).finish_reason == ours
    assert read(started(), *ended(theirs))[1].finish_reason == ours


def test_cached_tokens_are_part_of_the_prompt() -> None:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 100, "output_tokens": 9}
    details = {"output_tokens_details": {"thinking_tokens": 4}}
    assert answered(TEXT, usage=usage | details).usage == Usage(123, 9, 20, 100, 4)
    nulls = {"cache_read_input_tokens": None, "cache_creation_input_tokens": None, "output_tokens_details": None}
    assert answered(TEXT, usage={"input_tokens": 3, "output_tokens": 2} | nulls).usage == Usage(3, 2)
    assert answered(TEXT, usage={"output_tokens": 2}).usage is None
    assert answered(TEXT).usage is None


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"content": None},
        {"content": [{}], "stop_reason": None},
        {"content": [{"type": "text"}]},
        {"content": []},
        [],
        5,
        None,
    ],
)
def test_what_is_no_answer_is_refused(document: Any) -> None:
    with pytest.raises((LookupError, TypeError, AttributeError, ValueError)):
        anthropic.reply(document)


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_says_the_same_as_the_whole_answer() -> None:
    texts, said = read(
        started(cache_read_input_tokens=20, output_tokens=1),
        block(0, {"type": "text", "text": ""}),
        {"type": "ping"},
        delta(0, type="text_delta", text="hel"),
        delta(0, type="text_delta", text="lo"),
        {"type": "content_block_future"},
        *ended(),
    )
    assert [text for text in texts if text] == ["hel", "lo"]
    assert said == Reply("hello", [], Usage(23, 2, 20), "m-1", "stop", "i")


def test_later_counts_go_over_earlier_ones_and_null_is_none() -> None:
    usage = read(started(), *ended(input_tokens=5, cache_read_input_tokens=None))[1].usage
    assert usage == Usage(5, 2)


def test_tool_calls_in_pieces() -> None:
    start = {"type": "tool_use", "id": "c1", "name": "get", "input": {}}
    said = read(
        started(),
        block(0, {"type": "thinking", "thinking": ""}),
        delta(0, type="thinking_delta", thinking="hm"),
        delta(0, type="signature_delta", signature="s"),
        block(1, start),
        delta(1, type="input_json_delta", partial_json='{"x"'),
        delta(1, type="input_json_delta", partial_json=": 1}"),
        block(2, {**start, "id": "c2", "name": "now"}),
        block(3, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        delta(3, type="input_json_delta", partial_json='{"query"'),
        *ended("tool_use"),
    )[1]
    assert said.tool_calls == [CALL, {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
    assert said.text == ""


def test_an_error_inside_the_stream() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    with pytest.raises(ErrorReply) as caught:
        read(started(), error)
    assert caught.value.document == error


def test_a_stream_without_its_end_is_no_answer() -> None:
    with pytest.raises(ValueError, match="ended without"):
        read(started(), block(0, {"type": "text", "text": "x"}))
    assert read(started(), *ended()[:-1])[1].finish_reason == "stop"


@pytest.mark.parametrize("data", ["", "{", "[]", '{"type": "content_block_delta"}', '{"type": "message_start"}'])
def test_an_event_of_another_shape_is_refused(data: str) -> None:
    with pytest.raises((LookupError, TypeError, AttributeError, ValueError)):
        anthropic.Reader().feed(ServerSentEvent("message", data))
