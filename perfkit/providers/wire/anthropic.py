"""Anthropic Messages: requests and answers translated from and to the form of OpenAI, which is perfkit's own.

System messages move to the top, tool calls and their results become content blocks, data URLs become sources. What is
in Anthropic's form already (content blocks, tools with `input_schema`, `tool_choice` as a table) goes through as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perfkit.errors import BadRequestError
from perfkit.providers.wire.parts import arguments_of, media_of
from perfkit.providers.wire.reply import ErrorReply, Reply, number, tool_call
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from perfkit.providers.wire.reply import Event, ToolCall
    from perfkit.values import ChatRequest

__all__ = ["Reader", "payload", "reply"]

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_SYSTEM = ("system", "developer")
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


# --- requests ---------------------------------------------------------------------------------------------------------


def payload(request: ChatRequest, *, stream: bool, max_tokens: int) -> dict[str, Any]:
    """Return the body of POST /messages.

    Args:
        request: what is asked; its `extra` goes over all but `stream`, after OpenAI's `stop`, `tool_choice`,
            `parallel_tool_calls` and `max_completion_tokens` in it were translated.
        stream: whether events are wanted.
        max_tokens: bound of the answer when the request has none; Anthropic requires one.

    Raises:
        BadRequestError: something of the request has no counterpart at Anthropic.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": max_tokens if request.max_tokens is None else request.max_tokens,
        "messages": _messages(request.messages),
    }
    system = _system([message["content"] for message in request.messages if message["role"] in _SYSTEM])
    if system:
        body["system"] = system
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.tools is not None:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.response_format is not None:
        body.update(_output_config(request.response_format))
    if request.extra:
        body.update(_extra(request.extra))
    body.pop("stream", None)
    if stream:
        body["stream"] = True
    return body


def _system(contents: Sequence[Any]) -> Any:
    """Return the system prompt: one string as it is, anything else as blocks, so that `cache_control` is kept."""
    if len(contents) == 1 and isinstance(contents[0], str):
        return contents[0]
    return [block for content in contents for block in _blocks(content)]


def _messages(messages: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the turns; results of tools that follow each other have to be one turn of the user's."""
    turns: list[Mapping[str, Any]] = []
    results: list[dict[str, Any]] | None = None
    for message in messages:
        role = message["role"]
        if role == "tool":
            if results is None:
                results = []
                turns.append({"role": "user", "content": results})
            results.append(_tool_result(message))
        elif role not in _SYSTEM:
            results = None
            turns.append(_turn(message))
    return turns


def _turn(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    calls = message.get("tool_calls")
    if calls:
        content = [*_blocks(content), *(_tool_use(call) for call in calls)]
    elif not isinstance(content, str):
        content = _blocks(content)
    return {"role": message["role"], "content": content}


def _blocks(content: Any) -> list[Mapping[str, Any]]:
    """Return a content as blocks; empty text is left out, Anthropic refuses it."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [_block(part) for part in content or ()]


def _block(part: Mapping[str, Any]) -> Mapping[str, Any]:
    media = media_of(part)
    if media is None:
        return part
    if media.kind == "audio":
        raise BadRequestError("Anthropic takes no audio; ask a model of another provider, or send the words")
    source = {"type": "url", "url": media.url}
    if media.data:
        source = {"type": "base64", "media_type": media.type, "data": media.data}
    if media.kind == "image":
        return {"type": "image", "source": source}
    return {"type": "document", "source": source, **({"title": media.name} if media.name else {})}


def _tool_use(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments_of(call)}


def _tool_result(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    result = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
    return result | {"content": content if isinstance(content, str) else _blocks(content)}


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    if function is None:
        return tool
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    kept = {key: function[key] for key in ("name", "description", "strict") if function.get(key) is not None}
    return {**kept, "input_schema": schema}


def _output_config(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """Return structured output as Anthropic has it: by schema only."""
    kind = response_format.get("type")
    if kind == "text":
        return {}
    if kind != "json_schema":
        raise BadRequestError(
            f"Anthropic has no response_format {kind!r}; use json_schema, or ask for it in the prompt"
        )
    return {"output_config": {"format": {"type": "json_schema", "schema": response_format["json_schema"]["schema"]}}}


def _extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Translate what OpenAI's callers say in `extra`; the rest is sent as it is."""
    body = dict(extra)
    if "stop" in body:
        stop = body.pop("stop")
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if "max_completion_tokens" in body:
        body["max_tokens"] = body.pop("max_completion_tokens")
    choice = _tool_choice(body.get("tool_choice"))
    if body.pop("parallel_tool_calls", True) is False:
        choice = {"type": "auto", **(choice or {}), "disable_parallel_tool_use": True}
    if choice is not None:
        body["tool_choice"] = choice
    return body


def _tool_choice(choice: Any) -> dict[str, Any] | None:
    if isinstance(choice, str):
        return {"type": _CHOICES.get(choice, choice)}
    if choice and choice.get("type") == "function":
        return {"type": "tool", "name": choice["function"]["name"]}
    return choice  # type: ignore[no-any-return]


# --- answers ----------------------------------------------------------------------------------------------------------


def reply(document: Mapping[str, Any]) -> Reply:
    """Read the body of a reply.

    Raises:
        LookupError, TypeError, AttributeError, ValueError: there is no answer in it.
    """
    blocks = document["content"]
    reason = document["stop_reason"]
    text = "".join([block["text"] for block in blocks if block["type"] == "text"])
    calls = [_tool_call(block) for block in blocks if block["type"] == "tool_use"]
    usage = _usage(document.get("usage") or {})
    return Reply(text, calls, usage, document.get("model"), _FINISH.get(reason, reason), document.get("id"))


def _tool_call(block: Mapping[str, Any]) -> ToolCall:
    return tool_call(block["id"], block["name"], json.dumps(block["input"], ensure_ascii=False))


def _usage(told: Mapping[str, Any]) -> Usage | None:
    """Read usage: what was read from and written to the cache is counted beside `input_tokens`."""
    if type(told.get("input_tokens")) is not int or type(told.get("output_tokens")) is not int:
        return None
    cached, written = number(told, "cache_read_input_tokens"), number(told, "cache_creation_input_tokens")
    thinking = number(told.get("output_tokens_details") or {}, "thinking_tokens")
    prompt = number(told, "input_tokens") + cached + written
    return Usage(prompt, number(told, "output_tokens"), cached, written, thinking)


class Reader:
    """Reads the events of one stream; see `perfkit.providers.wire.reply.Reader`."""

    __slots__ = ("_calls", "_told", "done", "said")

    def __init__(self) -> None:
        self.said = Reply()
        self.done = False
        self._calls: dict[int, ToolCall] = {}  # by index of the content block
        self._told: dict[str, Any] = {}  # usage: message_delta's counts are cumulative and go over message_start's

    def feed(self, event: Event) -> str:
        """Take one event and return the text it adds."""
        data = json.loads(event.data)
        kind = data.get("type")
        if kind == "content_block_delta":
            return self._take_delta(data["index"], data["delta"])
        if kind == "content_block_start":
            return self._begin_block(data["index"], data["content_block"])
        if kind == "error" or event.event == "error":
            raise ErrorReply(data)
        self._take_frame(kind, data)
        return ""

    def _take_frame(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take the message around the blocks; pings and events not known yet are passed over, as Anthropic asks."""
        said = self.said
        if kind == "message_start":
            message = data["message"]
            said.id, said.model = message.get("id"), message.get("model")
            self._take_usage(message)
        elif kind == "message_delta":
            reason = data["delta"].get("stop_reason")
            said.finish_reason = _FINISH.get(reason, reason)
            self._take_usage(data)
        elif kind == "message_stop":
            self.done = True

    def _take_usage(self, data: Mapping[str, Any]) -> None:
        self._told.update((key, value) for key, value in (data.get("usage") or {}).items() if value is not None)

    def _begin_block(self, index: int, block: Mapping[str, Any]) -> str:
        if block["type"] == "tool_use":
            call = tool_call(block["id"], block["name"], "")
            self._calls[index] = call
            self.said.tool_calls.append(call)
        return block.get("text") or "" if block["type"] == "text" else ""

    def _take_delta(self, index: int, delta: Mapping[str, Any]) -> str:
        if delta["type"] == "text_delta":
            text: str = delta["text"]
            return text
        if delta["type"] == "input_json_delta" and index in self._calls:
            self._calls[index]["function"]["arguments"] += delta["partial_json"]
        return ""

    def finish(self, text: str) -> Reply:
        """Return the whole answer."""
        said = self.said
        if not self.done and said.finish_reason is None:
            raise ValueError("the stream ended without stop_reason and message_stop")
        said.text = text
        said.usage = _usage(self._told)
        for call in said.tool_calls:
            call["function"]["arguments"] = call["function"]["arguments"] or "{}"
        return said
