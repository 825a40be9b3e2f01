"""The wire formats, judged by the vendors' own parsers where there is one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from perfkit.testing import _formats as formats
from perfkit.testing import _refusals as refusals

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKED = {
    "model": "gpt-x",
    "system": "be brief",
    "messages": [
        {"role": "system", "content": "you are kind"},
        {"role": "user", "content": [{"type": "text", "text": "first "}, {"type": "image_url"}, {"text": "question"}]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "and the second"},
    ],
}
USAGE = {"prompt_tokens": 100, "completion_tokens": 7, "cached_tokens": 60, "cache_write_tokens": 30}
CHAT, MESSAGES, RESPONSES, CONTENT, _, LINES = formats.FORMATS.values()


def said(text: str = "one  two\nthree ", **asked: Any) -> formats.Answer:
    return formats.answer(ASKED | asked, text=text, usage=USAGE | {"reasoning_tokens": 3})


def data(events: Iterator[bytes]) -> list[dict[str, Any]]:
    """Return the JSON of each event."""
    lines = (line for event in events for line in event.decode().split("\n"))
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def test_the_answer_is_an_echo_of_the_last_question() -> None:
    answer = formats.answer(ASKED)
    assert answer.text == "echo: and the second"
    assert answer.model == "gpt-x"


def test_usage_counts_words_of_everything_asked() -> None:
    usage = formats.answer(ASKED).usage
    assert usage["prompt_tokens"] == 2 + 3 + 2 + 3
    assert usage["completion_tokens"] == 4
    assert usage["cached_tokens"] == usage["cache_write_tokens"] == usage["reasoning_tokens"] == 0


@pytest.mark.parametrize(
    ("asked", "question"),
    [
        ({}, ""),
        ({"messages": [{"role": "assistant", "content": "a"}]}, ""),
        ({"input": "plain"}, "plain"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "parts"}]}]}, "parts"),
        ({"messages": "not a list"}, "not a list"),
    ],
)
def test_questions_are_found_in_any_form(asked: dict[str, Any], question: str) -> None:
    assert formats.question(asked) == question


def test_answers_to_the_same_question_are_the_same() -> None:
    assert formats.answer(ASKED) == formats.answer(dict(ASKED))
    assert formats.answer(ASKED).id != formats.answer(ASKED | {"model": "other"}).id


@pytest.mark.parametrize("text", ["", " ", "one", " leading", "a b\n\nc  ", "\n"])
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(said(text).pieces) == text


def test_chat_bodies_satisfy_the_openai_sdk() -> None:
    chat = pytest.importorskip("openai.types.chat")
    body = chat.ChatCompletion.model_validate(CHAT.body(said()))
    assert body.choices[0].message.content == "one  two\nthree "
    assert body.usage.prompt_tokens == 100
    assert body.usage.total_tokens == 107
    assert body.usage.prompt_tokens_details.cached_tokens == 60
    assert body.usage.completion_tokens_details.reasoning_tokens == 3


def test_chat_streams_satisfy_the_openai_sdk() -> None:
    chat = pytest.importorskip("openai.types.chat")
    chunks = [chat.ChatCompletionChunk.model_validate(chunk) for chunk in data(CHAT.events(said()))]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one  two\nthree "
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


def test_chat_streams_end_with_usage_only_if_asked() -> None:
    events = list(CHAT.events(said(stream_options={"include_usage": True})))
    usage = data(iter(events))[-1]
    assert events[-1] == b"data: [DONE]\n\n"
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == 100


def test_message_bodies_satisfy_the_anthropic_sdk() -> None:
    types = pytest.importorskip("anthropic.types")
    body = types.Message.model_validate(MESSAGES.body(said()))
    assert body.content[0].text == "one  two\nthree "
    assert body.stop_reason == "end_turn"
    usage = body.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (10, 60, 30)
    assert usage.output_tokens == 7


def test_message_streams_satisfy_the_anthropic_sdk() -> None:
    types = pytest.importorskip("anthropic.types")
    adapter = pytest.importorskip("pydantic").TypeAdapter(types.RawMessageStreamEvent)
    found = data(MESSAGES.events(said("a b")))
    kinds = [event["type"] for event in found]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[3:] == ["content_block_delta"] * 2 + ["content_block_stop", "message_delta", "message_stop"]
    start, *_, delta, _stop = (adapter.validate_python(event) for event in found if event["type"] != "ping")
    assert start.message.usage.cache_read_input_tokens == 60
    assert (delta.delta.stop_reason, delta.usage.output_tokens) == ("end_turn", 7)


def test_message_events_are_named_after_their_type() -> None:
    for event in MESSAGES.events(said()):
        name, text = event.decode().strip().split("\n")
        assert name.removeprefix("event: ") == json.loads(text.removeprefix("data: "))["type"]


def test_responses_satisfy_the_openai_sdk() -> None:
    responses = pytest.importorskip("openai.types.responses")
    body = responses.Response.model_validate(RESPONSES.body(said()))
    assert body.output_text == "one  two\nthree "
    assert (body.usage.input_tokens, body.usage.output_tokens, body.usage.total_tokens) == (100, 7, 107)
    assert body.usage.input_tokens_details.cached_tokens == 60


def test_response_streams_satisfy_the_openai_sdk() -> None:
    responses = pytest.importorskip("openai.types.responses")
    adapter = pytest.importorskip("pydantic").TypeAdapter(responses.ResponseStreamEvent)
    events = [adapter.validate_python(event) for event in data(RESPONSES.events(said("a b")))]
    assert [event.type for event in events] == [
        "response.created",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == [0, 1, 2, 3]
    assert events[-1].response.output_text == "a b"


@pytest.mark.parametrize(
    ("finish", "stop", "status"),
    [("stop", "end_turn", "completed"), ("length", "max_tokens", "incomplete"), ("odd", "odd", "completed")],
)
def test_finish_reasons_are_translated(finish: str, stop: str, status: str) -> None:
    answer = formats.answer(ASKED, finish_reason=finish)
    assert CHAT.body(answer)["choices"][0]["finish_reason"] == finish
    assert MESSAGES.body(answer)["stop_reason"] == stop
    assert RESPONSES.body(answer)["status"] == status
    assert data(RESPONSES.events(answer))[-1]["type"] == f"response.{status}"


def test_models_satisfy_both_sdks() -> None:
    openai = pytest.importorskip("openai.types")
    anthropic = pytest.importorskip("anthropic.types")
    listed = formats.models("a", "b")
    for model in listed["data"]:
        assert openai.Model.model_validate(model).id == anthropic.ModelInfo.model_validate(model).id
    assert (listed["first_id"], listed["last_id"]) == ("a", "b")


@pytest.mark.parametrize("kind", sorted(refusals.ERRORS.keys() - {"too_large"}))  # documented, and unknown to the SDK
def test_errors_have_the_shape_of_each_provider(kind: str) -> None:
    types = pytest.importorskip("anthropic.types")
    openai = refusals.error_body(kind, model="m")["error"]
    assert openai.keys() == {"message", "type", "param", "code"}
    told = types.ErrorResponse.model_validate(refusals.error_body(kind, dialect="anthropic", model="m"))
    assert told.error.message


def test_errors_name_the_model() -> None:
    assert "`gpt-9`" in refusals.error_body("model_not_found", model="gpt-9")["error"]["message"]
    assert refusals.error_body("model_not_found", dialect="anthropic", model="c")["error"]["message"] == "model: c"


def test_a_spent_limit_is_told_apart_from_a_rate_limit() -> None:
    details = refusals.error_body("quota_exhausted", dialect="anthropic", model="m")["error"]["details"]
    assert details == {"error_code": "enforced_spend_limit_reached"}
    assert "details" not in refusals.error_body("rate_limited", dialect="anthropic", model="m")["error"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "bad_request"), (404, "model_not_found"), (418, "bad_request"), (503, "server_error"), (529, "overloaded")],
)
def test_statuses_mean_an_error(status: int, kind: str) -> None:
    assert refusals.error_kind(status) == kind
