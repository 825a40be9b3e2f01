"""OpenAI Responses: requests and answers translated from and to the form of Chat Completions, perfkit's own.

Messages become items, tool calls and their results items of their own, parts get the names of this interface. Nothing
is kept at OpenAI (`store` is false) unless the caller says otherwise in `extra`, as with Chat Completions.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perfkit.providers.wire.parts import function_of
from perfkit.providers.wire.reply import ErrorReply, Reply, number, tool_call
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from perfkit.providers.wire.reply import Event, ToolCall
    from perfkit.values import ChatRequest

__all__ = ["Reader", "payload", "reply"]

_FINISH = {"max_output_tokens": "length"}
_DELTAS = ("response.output_text.delta", "response.refusal.delta")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


# --- requests ---------------------------------------------------------------------------------------------------------


def payload(request: ChatRequest, *, stream: bool) -> dict[str, Any]:
    """Return the body of POST /responses.

    Args:
        request: what is asked; its `extra` goes over all but `stream`, after Chat Completions' `max_completion_tokens`,
            `reasoning_effort` and `tool_choice` in it were translated.
        stream: whether events are wanted.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "input": [item for message in request.messages for item in _items(message)],
        "store": False,
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.tools is not None:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.response_format is not None:
        body["text"] = {"format": _format(request.response_format)}
    body.update(_extra(request.extra))
    body.pop("stream", None)
    if stream:
        body["stream"] = True
    return body


def _items(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    role, content = message["role"], message.get("content")
    if role == "tool":
        yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": _output(content)}
        return
    if content:
        yield {"type": "message", "role": role, "content": [_part(part, role) for part in _parts(content)]}
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield {
            "type": "function_call",
            "call_id": call["id"],
            "name": function["name"],
            "arguments": function.get("arguments") or "{}",
        }


def _parts(content: Any) -> Iterable[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _output(content: Any) -> Any:
    return content if isinstance(content, str) else [_part(part, "user") for part in content or ()]


def _part(part: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    """Return a part under its name here; those that have one already go through."""
    kind = part.get("type")
    if kind == "text":
        return {"type": "output_text" if role == "assistant" else "input_text", "text": part["text"]}
    if kind == "image_url":
        told = part["image_url"]
        return {"type": "input_image", **({"image_url": told} if isinstance(told, str) else _image(told))}
    if kind == "file":
        return {"type": "input_file", **part["file"]}
    return part


def _image(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"image_url": told["url"], "detail": told.get("detail", "auto")}


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool in flat form; `strict` is true here unless it is told, and false in Chat Completions."""
    function = function_of(tool)
    return tool if function is None else {"type": "function", "strict": False, **function}


def _format(response_format: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = response_format.get("type")
    return {"type": kind, **response_format["json_schema"]} if kind == "json_schema" else response_format


def _extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    body = dict(extra)
    if "max_completion_tokens" in body:
        body["max_output_tokens"] = body.pop("max_completion_tokens")
    if "reasoning_effort" in body:
        body["reasoning"] = {**body.get("reasoning", {}), "effort": body.pop("reasoning_effort")}
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and "function" in choice:
        body["tool_choice"] = {"type": "function", "name": choice["function"]["name"]}
    return body


# --- answers ----------------------------------------------------------------------------------------------------------


def reply(document: Mapping[str, Any]) -> Reply:
    """Read the body of a reply.

    Raises:
        ErrorReply: it failed.
        LookupError, TypeError, AttributeError, ValueError: there is no answer in it.
    """
    status = document["status"]
    if status == "failed":
        raise ErrorReply(document)
    if status not in ("completed", "incomplete"):
        raise ValueError(f"status {status!r} is no end")
    items = document["output"]
    calls = [_tool_call(item) for item in items if item["type"] == "function_call"]
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    refusal = "".join([part["refusal"] for part in parts if part["type"] == "refusal"])
    text = "".join([part["text"] for part in parts if part["type"] == "output_text"])
    reason = _reason(document, calls) if text or not refusal else "content_filter"
    return Reply(text or refusal, calls, _usage(document.get("usage")), document.get("model"), reason, document["id"])


def _reason(document: Mapping[str, Any], calls: list[ToolCall]) -> str:
    if document["status"] == "incomplete":
        told: str = (document.get("incomplete_details") or {}).get("reason") or "incomplete"
        return _FINISH.get(told, told)
    return "tool_calls" if calls else "stop"


def _tool_call(item: Mapping[str, Any]) -> ToolCall:
    return tool_call(item["call_id"], item["name"], item["arguments"])


def _usage(told: Any) -> Usage | None:
    if not told or type(told.get("input_tokens")) is not int:
        return None
    before, after = told.get("input_tokens_details") or {}, told.get("output_tokens_details") or {}
    return Usage(
        number(told, "input_tokens"),
        number(told, "output_tokens"),
        number(before, "cached_tokens"),
        number(before, "cache_write_tokens"),
        number(after, "reasoning_tokens"),
    )


class Reader:
    """Reads the events of one stream; see `perfkit.providers.wire.reply.Reader`."""

    __slots__ = ("_heard", "done", "said")

    def __init__(self) -> None:
        self.said = Reply()
        self.done = False
        self._heard = False

    def feed(self, event: Event) -> str:
        """Take one event and return the text it adds; a refusal is text too."""
        data = json.loads(event.data)
        kind = data.get("type")
        if kind in _DELTAS:
            self._heard = True
            text: str = data["delta"]
            return text
        if kind == "error" or event.event == "error" or data.get("error"):
            raise ErrorReply(data)
        if kind in _ENDS:
            self.said = reply(data["response"])
            self.done = True
            return "" if self._heard else self.said.text  # some servers send no deltas
        return ""

    def finish(self, text: str) -> Reply:
        """Return the whole answer."""
        if not self.done:
            raise ValueError("the stream ended without response.completed")
        self.said.text = text
        return self.said
