"""Pictures, sounds, documents, tools and schemas in every format's own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from providers.asking import asked

from perfkit.errors import BadRequestError
from perfkit.providers.wire import anthropic, gemini, ollama, openai, responses
from perfkit.values import ChatRequest

PNG = "iVBORw0KGgo="
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
LINK = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}}
PAPER = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"x": 1}'}}
FUNCTION = {"name": "get", "description": "d", "parameters": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
TALK: list[dict[str, Any]] = [
    {"role": "developer", "content": "be brief"},
    {"role": "user", "content": "what is x?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "7"},
    {"role": "assistant", "content": "seven"},
    {"role": "user", "content": "and y?"},
]


def shown(*parts: dict[str, Any]) -> ChatRequest:
    return asked([{"role": "user", "content": [{"type": "text", "text": "see"}, *parts]}])


# --- content ----------------------------------------------------------------------------------------------------------


def test_openai_takes_every_part_as_it_is() -> None:
    sent = openai.payload(shown(IMAGE, LINK, SOUND, PAPER), stream=False)["messages"][0]["content"]
    assert sent[1:] == [IMAGE, LINK, SOUND, PAPER]


def test_responses_has_names_of_its_own() -> None:
    sent = responses.payload(shown(IMAGE, LINK, PAPER), stream=False)["input"][0]["content"]
    assert sent == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"},
    ]


def test_anthropic_has_sources_and_no_sound() -> None:
    sent = anthropic.payload(shown(IMAGE, LINK, PAPER), stream=False, max_tokens=1)["messages"][0]["content"]
    assert sent[1:] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            "title": "a.pdf",
        },
    ]
    with pytest.raises(BadRequestError, match="no audio"):
        anthropic.payload(shown(SOUND), stream=False, max_tokens=1)


def test_gemini_has_inline_data() -> None:
    sent = gemini.payload(shown(IMAGE, LINK, SOUND, PAPER, {"videoMetadata": {}}))["contents"][0]["parts"]
    assert sent == [
        {"text": "see"},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"fileData": {"fileUri": "https://x/y.png"}},
        {"inlineData": {"mimeType": "audio/mpeg", "data": "UklG"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBE"}},
        {"videoMetadata": {}},
    ]


def test_ollama_has_pictures_beside_the_text() -> None:
    assert ollama.payload(shown(IMAGE), stream=False)["messages"] == [
        {"role": "user", "content": "see", "images": [PNG]}
    ]


@pytest.mark.parametrize(("part", "words"), [(LINK, "by its address"), (SOUND, "input_audio"), (PAPER, "'file'")])
def test_what_ollama_cannot_see_or_hear_is_refused(part: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        ollama.payload(shown(part), stream=False)


@pytest.mark.parametrize("url", ["data:image/png,x", "data:;base64,x", "data:image/png;base64"])
@pytest.mark.parametrize("write", [gemini.payload, lambda r: ollama.payload(r, stream=False)])
def test_a_data_url_that_is_none_is_refused(url: str, write: Any) -> None:
    with pytest.raises(BadRequestError, match="data URL"):
        write(shown({"type": "image_url", "image_url": url}))


# --- turns with tools -------------------------------------------------------------------------------------------------


def test_responses_has_items() -> None:
    body = responses.payload(asked(TALK, tools=({"type": "function", "function": FUNCTION},)), stream=True)
    assert body["input"] == [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "what is x?"}]},
        {"type": "function_call", "call_id": "c1", "name": "get", "arguments": '{"x": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "7"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "seven"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and y?"}]},
    ]
    assert body["tools"] == [{"type": "function", "strict": False, **FUNCTION}]
    assert (body["store"], body["stream"]) == (False, True)


def test_gemini_has_contents() -> None:
    body = gemini.payload(asked(TALK, tools=({"type": "function", "function": FUNCTION}, {"googleSearch": {}})))
    assert body["systemInstruction"] == {"parts": [{"text": "be brief"}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "what is x?"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "get", "args": {"x": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "get", "response": {"result": 7}}}]},
        {"role": "model", "parts": [{"text": "seven"}]},
        {"role": "user", "parts": [{"text": "and y?"}]},
    ]
    declared = {"name": "get", "description": "d", "parametersJsonSchema": {"type": "object"}}
    assert body["tools"] == [{"functionDeclarations": [declared]}, {"googleSearch": {}}]


def test_gemini_gets_results_of_several_tools_in_one_turn_and_a_result_needs_its_call() -> None:
    talk = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL, {**CALL, "id": "c2"}]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"x": 1}'},
        {"role": "tool", "tool_call_id": "c2", "content": "no JSON"},
    ]
    last = gemini.payload(asked(talk))["contents"][-1]
    assert [part["functionResponse"]["response"] for part in last["parts"]] == [{"x": 1}, {"result": "no JSON"}]
    with pytest.raises(KeyError, match="c9"):
        gemini.payload(asked([{"role": "tool", "tool_call_id": "c9", "content": "7"}]))


def test_a_thoughts_signature_goes_back_to_gemini() -> None:
    part = {"functionCall": {"name": "get", "args": {"x": 1}}, "thoughtSignature": "sig=="}
    said = gemini.reply({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]})
    (call,) = said.tool_calls
    assert said.finish_reason == "tool_calls"
    back = gemini.payload(asked([{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [call]}]))
    assert back["contents"][1]["parts"] == [part]


def test_ollama_has_objects_for_arguments() -> None:
    body = ollama.payload(asked(TALK, tools=({"name": "get", "input_schema": {"type": "object"}},)), stream=False)
    assert body["messages"][:4] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what is x?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "get", "arguments": {"x": 1}}}]},
        {"role": "tool", "content": "7", "tool_name": "get"},
    ]
    assert body["tools"] == [{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}]
    assert body["stream"] is False


@pytest.mark.parametrize("write", [gemini.payload, lambda r: ollama.payload(r, stream=False)])
def test_arguments_that_are_no_object_are_refused(write: Any) -> None:
    call = {**CALL, "function": {"name": "get", "arguments": "[1]"}}
    with pytest.raises(BadRequestError, match="no JSON object"):
        write(asked([{"role": "assistant", "content": None, "tool_calls": [call]}]))


# --- schemas and parameters -------------------------------------------------------------------------------------------


def test_a_schema_has_its_place_in_every_format() -> None:
    request = asked(response_format=FORM)
    assert openai.payload(request, stream=False)["response_format"] == FORM
    assert responses.payload(request, stream=False)["text"] == {
        "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}
    }
    assert anthropic.payload(request, stream=False, max_tokens=1)["output_config"]["format"]["schema"] == SCHEMA
    assert gemini.payload(request)["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }
    assert ollama.payload(request, stream=False)["format"] == SCHEMA


def test_any_json_and_plain_text_are_forms_too() -> None:
    any_json, text = asked(response_format={"type": "json_object"}), asked(response_format={"type": "text"})
    assert responses.payload(any_json, stream=False)["text"] == {"format": {"type": "json_object"}}
    assert gemini.payload(any_json)["generationConfig"] == {"responseMimeType": "application/json"}
    assert ollama.payload(any_json, stream=False)["format"] == "json"
    assert "generationConfig" not in gemini.payload(text)
    assert "format" not in ollama.payload(text, stream=False)
    with pytest.raises(BadRequestError, match="grammar"):
        gemini.payload(asked(response_format={"type": "grammar"}))


def test_openais_parameters_are_said_in_each_formats_words() -> None:
    extra = {"top_p": 0.5, "stop": "END", "seed": 1, "tool_choice": "required"}
    request = asked(temperature=0, max_tokens=5, extra=extra)
    assert gemini.payload(request)["generationConfig"] == {
        "temperature": 0,
        "maxOutputTokens": 5,
        "topP": 0.5,
        "stopSequences": ["END"],
        "seed": 1,
    }
    assert gemini.payload(request)["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    options = {"temperature": 0, "num_predict": 5, "top_p": 0.5, "stop": "END", "seed": 1}
    assert ollama.payload(request, stream=True)["options"] == options
    one = {"type": "function", "function": {"name": "get"}}
    told = responses.payload(asked(max_tokens=5, extra={"tool_choice": one, "reasoning_effort": "low"}), stream=False)
    assert told["max_output_tokens"] == 5
    assert told["tool_choice"] == {"type": "function", "name": "get"}
    assert told["reasoning"] == {"effort": "low"}
    named = gemini.payload(asked(extra={"tool_choice": one}))["toolConfig"]["functionCallingConfig"]
    assert named == {"mode": "ANY", "allowedFunctionNames": ["get"]}


def test_extra_wins_over_all_but_stream() -> None:
    extra = {"stream": True, "generationConfig": {"temperature": 1}, "options": {"temperature": 1, "num_ctx": 9}}
    request = asked(temperature=0, extra=extra)
    assert gemini.payload(request)["generationConfig"] == {"temperature": 1}
    assert ollama.payload(request, stream=False)["options"] == {"temperature": 1, "num_ctx": 9}
    assert ollama.payload(request, stream=False)["stream"] is False
    assert "stream" not in gemini.payload(request)
    assert "stream" not in responses.payload(request, stream=False)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_responses_calls_and_refusals_are_read() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "get", "arguments": '{"x": 1}'}
    said = responses.reply({"id": "r", "status": "completed", "output": [{"type": "reasoning"}, call]})
    assert (said.tool_calls, said.finish_reason, said.usage) == ([CALL], "tool_calls", None)
    parts = [{"type": "refusal", "refusal": "I cannot"}]
    said = responses.reply({"id": "r", "status": "completed", "output": [{"type": "message", "content": parts}]})
    assert (said.text, said.finish_reason) == ("I cannot", "content_filter")


@pytest.mark.parametrize(
    ("reason", "ours"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("OTHER", "OTHER")],
)
def test_geminis_reasons(reason: str, ours: str) -> None:
    parts = [{"text": "thinking", "thought": True}, {"text": "x"}]
    said = gemini.reply({"candidates": [{"content": {"parts": parts}, "finishReason": reason}]})
    assert (said.text, said.finish_reason) == ("x", ours)


def test_geminis_thoughts_and_tools_are_counted() -> None:
    told = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 3,
        "candidatesTokenCount": 4,
        "thoughtsTokenCount": 5,
        "cachedContentTokenCount": 6,
    }
    said = gemini.reply({"candidates": [{"finishReason": "STOP"}], "usageMetadata": told})
    assert said.usage is not None
    assert said.usage.to_dict() == {
        "prompt_tokens": 13,
        "completion_tokens": 9,
        "cached_tokens": 6,
        "cache_write_tokens": 0,
        "reasoning_tokens": 5,
        "estimated": False,
    }


def test_ollamas_calls_are_read() -> None:
    calls = [{"function": {"name": "get", "arguments": {"x": 1}}}] * 2
    said = ollama.reply({"message": {"content": "", "tool_calls": calls}, "done": True, "done_reason": "stop"})
    assert said.finish_reason == "tool_calls"
    assert [call["id"] for call in said.tool_calls] == ["call_0", "call_1"]
    assert json.loads(said.tool_calls[0]["function"]["arguments"]) == {"x": 1}
