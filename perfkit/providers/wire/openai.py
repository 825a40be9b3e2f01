"""OpenAI Chat Completions, as OpenAI defines it and as the many servers that follow it really send it.

Known deviations read here: content as a list of parts (Mistral), usage in a chunk with choices or under `x_groq`,
reasoning tokens beside the completion's (xAI), `prompt_cache_hit_tokens` (DeepSeek), tool calls without an index or
several under one, other words for why the answer ended, no `[DONE]`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perfkit.providers.wire.reply import ErrorReply, Reply, number, tool_call
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perfkit.providers.wire.reply import Event, ToolCall
    from perfkit.values import ChatRequest

__all__ = ["Reader", "payload", "reply"]

_FINISH = {"eos": "stop", "model_length": "length", "function_call": "tool_calls"}
_LEGITIMATELY_EMPTY = ("length", "content_filter")  # a reasoning model may spend all its tokens before the first word


def payload(
    request: ChatRequest, *, stream: bool, max_tokens_field: str = "max_tokens", include_usage: bool = True
) -> dict[str, Any]:
    """Return the body of POST /chat/completions.

    Args:
        request: what is asked; its `extra` goes over all but `stream`.
        stream: whether events are wanted.
        max_tokens_field: what the server calls the bound of the answer.
        include_usage: ask for usage at the end of a stream (servers that send it anyway may refuse the question).
    """
    body: dict[str, Any] = {"model": request.model, "messages": request.messages}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body[max_tokens_field] = request.max_tokens
    if request.tools is not None:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.response_format is not None:
        body["response_format"] = request.response_format
    body.update(request.extra)
    body.pop("stream", None)
    if stream:
        body["stream"] = True
        _ask_for_usage(body, include_usage)
    return body


def _ask_for_usage(body: dict[str, Any], include_usage: bool) -> None:
    """Add `include_usage` unless the caller said something about it, `stream_options=None` included."""
    options = body.get("stream_options", {})
    if options is None:
        del body["stream_options"]
    elif include_usage or options:
        body["stream_options"] = {"include_usage": include_usage, **options}


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool in OpenAI's form; those written for Anthropic are translated."""
    if "input_schema" not in tool:
        return tool
    function = {key: tool[key] for key in ("name", "description", "strict") if key in tool}
    return {"type": "function", "function": function | {"parameters": tool["input_schema"]}}


def reply(document: Mapping[str, Any]) -> Reply:
    """Read the body of a reply.

    Raises:
        ErrorReply: the choice is an error (OpenRouter).
        LookupError, TypeError, AttributeError, ValueError: there is no answer in it.
    """
    choice = document["choices"][0]
    _raise_error(choice)
    message = choice["message"]
    finish = choice.get("finish_reason")
    said = Reply(_text(message.get("content")), [], _usage(document.get("usage")), document.get("model"), finish)
    said.id = document.get("id")
    if message.get("tool_calls"):
        said.tool_calls = _tool_calls(message["tool_calls"])
    _settle(said, message.get("refusal"))
    if message.get("content") is None and not (said.text or said.tool_calls):
        _require_reason(said)
    return said


def _settle(said: Reply, refusal: str | None) -> None:
    """Put the reason into perfkit's words; a refusal is the text, and the reason."""
    said.finish_reason = _FINISH.get(said.finish_reason or "", said.finish_reason)
    if refusal and not said.text:
        said.text, said.finish_reason = refusal, "content_filter"


def _require_reason(said: Reply) -> None:
    if said.finish_reason not in _LEGITIMATELY_EMPTY:
        raise ValueError(f"neither content nor tool calls (finish_reason {said.finish_reason!r})")


def _raise_error(choice: Mapping[str, Any]) -> None:
    if choice.get("error"):
        raise ErrorReply(choice)


def _text(content: Any) -> str:
    """Return the text of a content, which is a string, null or a list of parts (of which thoughts are none)."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or () if part.get("type") == "text")


def _tool_calls(calls: Iterable[Mapping[str, Any]]) -> list[ToolCall]:
    return [
        tool_call(call.get("id") or "", call["function"]["name"], _arguments(call["function"].get("arguments")))
        for call in calls
    ]


def _arguments(told: Any) -> str:
    return told if isinstance(told, str) else "" if told is None else json.dumps(told, ensure_ascii=False)


def _usage(told: Any) -> Usage | None:
    """Read usage; None when there is none, or none that makes sense."""
    if not told or type(told.get("prompt_tokens")) is not int:
        return None
    prompt, completion = number(told, "prompt_tokens"), number(told, "completion_tokens")
    prompt_details = told.get("prompt_tokens_details") or {}
    completion_details = told.get("completion_tokens_details") or {}
    reasoning = number(completion_details, "reasoning_tokens")
    if reasoning and number(told, "total_tokens") == prompt + completion + reasoning:
        completion += reasoning  # xAI and Gemini count thoughts beside the answer
    cached = number(prompt_details, "cached_tokens") or number(told, "prompt_cache_hit_tokens")
    return Usage(prompt, completion, cached, number(prompt_details, "cache_write_tokens"), reasoning)


class Reader:
    """Reads the chunks of one stream; see `perfkit.providers.wire.reply.Reader`."""

    __slots__ = ("_calls", "_refusal", "done", "said")

    def __init__(self) -> None:
        self.said = Reply()
        self.done = False
        self._calls: dict[int, ToolCall] = {}  # by index, where several of one index are kept one after the other
        self._refusal: list[str] = []

    def feed(self, event: Event) -> str:
        """Take one event and return the text it adds."""
        data = event.data
        if data.strip() == "[DONE]":
            self.done = True
            return ""
        chunk = json.loads(data)
        if chunk.get("error") or event.event == "error":
            raise ErrorReply(chunk)
        self._take_frame(chunk)
        return self._take_choice(chunk["choices"][0]) if chunk.get("choices") else ""

    def _take_frame(self, chunk: Mapping[str, Any]) -> None:
        said = self.said
        if said.id is None:
            said.id, said.model = chunk.get("id"), chunk.get("model")
        told = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")
        if told:
            said.usage = _usage(told)

    def _take_choice(self, choice: Mapping[str, Any]) -> str:
        _raise_error(choice)
        if choice.get("finish_reason"):
            self.said.finish_reason = choice["finish_reason"]
        delta = choice.get("delta") or {}
        if delta.get("tool_calls"):
            for part in delta["tool_calls"]:
                self._merge(part)
        if delta.get("refusal"):
            self._refusal.append(delta["refusal"])
        return _text(delta.get("content"))

    def _merge(self, part: Mapping[str, Any]) -> None:
        """Add a piece of a tool call to the call it belongs to; a new id begins a new call."""
        calls, call_id = self.said.tool_calls, part.get("id")
        call = self._calls.get(index) if (index := part.get("index")) is not None else calls[-1] if calls else None
        if call is None or (call_id and call["id"] and call_id != call["id"]):
            call = tool_call("", "", "")
            calls.append(call)
            self._calls[len(calls) - 1 if index is None else index] = call
        function = part.get("function") or {}
        call["id"] = call_id or call["id"]
        call["function"]["name"] = function.get("name") or call["function"]["name"]
        call["function"]["arguments"] += _arguments(function.get("arguments"))

    def finish(self, text: str) -> Reply:
        """Return the whole answer."""
        said = self.said
        if not self.done and said.finish_reason is None:
            raise ValueError("the stream ended without finish_reason and [DONE]")
        said.text = text
        _settle(said, "".join(self._refusal))
        if not (said.text or said.tool_calls or said.finish_reason):
            _require_reason(said)
        return said
