"""Ollama's own chat interface: requests and answers translated from and to the form of OpenAI, perfkit's own.

Parameters become `options`, a schema becomes `format`, pictures go beside the text as bare base64. A stream is a JSON
document a line. `options`, `think` and `keep_alive` in `extra` go through: remember that Ollama cuts a prompt that is
longer than `options["num_ctx"]` without a word.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perfkit.errors import BadRequestError
from perfkit.providers.wire.parts import arguments_of, function_of, media_of, renamed, schema_of, text_of
from perfkit.providers.wire.reply import ErrorReply, Reply, number, tool_call
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.providers.wire.reply import Event, ToolCall
    from perfkit.values import ChatRequest

__all__ = ["Reader", "payload", "reply"]

_OPTIONS = ("top_p", "top_k", "seed", "stop", "presence_penalty", "frequency_penalty", "num_ctx")
_NAMES = {**{name: name for name in _OPTIONS}, "max_completion_tokens": "num_predict"}


# --- requests ---------------------------------------------------------------------------------------------------------


def payload(request: ChatRequest, *, stream: bool) -> dict[str, Any]:
    """Return the body of POST /chat.

    Args:
        request: what is asked; its `extra` goes over all but `stream`, after OpenAI's parameters in it became options.
        stream: whether lines are wanted as they come; Ollama streams unless it is told not to.

    Raises:
        BadRequestError: something of the request has no counterpart at Ollama.
    """
    names: dict[str, str] = {}
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message, names) for message in request.messages],
    }
    if request.tools is not None:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.response_format is not None and request.response_format.get("type") != "text":
        body["format"] = schema_of(request.response_format) or "json"
    moved, rest = renamed(request.extra, _NAMES)
    options = {**_options(request), **moved, **rest.pop("options", {})}
    if options:
        body["options"] = options
    return {**body, **rest, "stream": stream}


def _options(request: ChatRequest) -> dict[str, Any]:
    told = {"temperature": request.temperature, "num_predict": request.max_tokens}
    return {name: value for name, value in told.items() if value is not None}


def _message(message: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    role, content = message["role"], message.get("content")
    said: dict[str, Any] = {"role": "system" if role == "developer" else role, "content": text_of(content)}
    images = [_image(part) for part in content if part.get("type") != "text"] if isinstance(content, list) else []
    if images:
        said["images"] = images
    calls = message.get("tool_calls")
    if calls:
        names.update((call.get("id") or "", call["function"]["name"]) for call in calls)
        said["tool_calls"] = [{"function": _function(call)} for call in calls]
    if role == "tool":
        name = message.get("name") or names.get(message["tool_call_id"])
        said |= {} if name is None else {"tool_name": name}
    return said


def _function(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": call["function"]["name"], "arguments": arguments_of(call)}


def _image(part: Mapping[str, Any]) -> str:
    media = media_of(part)
    if media is None or media.kind != "image" or not media.data:
        kind = f"a {part.get('type')!r} part" if media is None or media.data else "a picture by its address"
        raise BadRequestError(f"Ollama does not take {kind}; it takes text, and pictures as data:image/...;base64,...")
    return media.data


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = function_of(tool)
    return tool if function is None else {"type": "function", "function": function}


# --- answers ----------------------------------------------------------------------------------------------------------


def reply(document: Mapping[str, Any]) -> Reply:
    """Read the body of a reply.

    Raises:
        LookupError, TypeError, AttributeError, ValueError: there is no answer in it.
    """
    reader = Reader()
    return reader.finish(reader.take(document))


def _usage(told: Mapping[str, Any]) -> Usage | None:
    if type(told.get("prompt_eval_count")) is not int or type(told.get("eval_count")) is not int:
        return None
    return Usage(number(told, "prompt_eval_count"), number(told, "eval_count"))


class Reader:
    """Reads the lines of one stream; see `perfkit.providers.wire.reply.Reader`."""

    __slots__ = ("done", "said")

    def __init__(self) -> None:
        self.said = Reply()
        self.done = False

    def feed(self, event: Event) -> str:
        """Take one line and return the text it adds."""
        return self.take(json.loads(event.data))

    def take(self, document: Mapping[str, Any]) -> str:
        """Take one document and return the text it adds."""
        if document.get("error"):
            raise ErrorReply(document)
        message, said = document["message"], self.said
        for call in message.get("tool_calls") or ():
            said.tool_calls.append(_tool_call(call, len(said.tool_calls)))
        if document.get("done"):
            self.done = True
            said.model, said.usage = document.get("model"), _usage(document)
            said.finish_reason = "tool_calls" if said.tool_calls else document.get("done_reason") or "stop"
        return message.get("content") or ""

    def finish(self, text: str) -> Reply:
        """Return the whole answer."""
        if not self.done:
            raise ValueError("it ended without a line that says done")
        self.said.text = text
        return self.said


def _tool_call(call: Mapping[str, Any], index: int) -> ToolCall:
    function = call["function"]
    told = call.get("id") or function.get("id") or f"call_{index}"
    return tool_call(told, function["name"], json.dumps(function.get("arguments") or {}, ensure_ascii=False))
