"""Gemini generateContent: requests and answers translated from and to the form of OpenAI, which is perfkit's own.

System messages become the system instruction, messages contents with parts, and parameters the generation config. What
is in Gemini's form already (parts without a type, tools without a function) goes through as it is. A thought's
signature travels with its tool call in `extra_content`, as in Google's own OpenAI endpoint, because Gemini 3 wants it
back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perfkit.providers.wire.parts import arguments_of, function_of, media_of, renamed, schema_of, text_of
from perfkit.providers.wire.reply import ErrorReply, Reply, number, tool_call
from perfkit.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from perfkit.providers.wire.reply import Event, ToolCall
    from perfkit.values import ChatRequest

__all__ = ["Reader", "payload", "reply"]

_SYSTEM = ("system", "developer")
_FILTERED = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY")
_FINISH = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "FUNCTION_CALL": "tool_calls",
    **dict.fromkeys(_FILTERED, "content_filter"),
}
_CHOICES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_NAMES = {
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "stop": "stopSequences",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "max_completion_tokens": "maxOutputTokens",
}


# --- requests ---------------------------------------------------------------------------------------------------------


def payload(request: ChatRequest) -> dict[str, Any]:
    """Return the body of POST /models/<model>:generateContent and :streamGenerateContent, which are alike.

    Args:
        request: what is asked; its `extra` goes over all, after OpenAI's names in it (`top_p`, `stop`, `tool_choice`
            and such) were translated; `generationConfig` in it is laid over ours.

    Raises:
        BadRequestError: something of the request has no counterpart at Gemini.
    """
    body: dict[str, Any] = {"contents": _contents(request.messages)}
    system = [_text(text_of(m["content"])) for m in request.messages if m["role"] in _SYSTEM]
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools is not None:
        body["tools"] = _tools(request.tools)
    moved, rest = renamed(request.extra, _NAMES)
    if isinstance(moved.get("stopSequences"), str):
        moved["stopSequences"] = [moved["stopSequences"]]
    config = {**_config(request), **moved, **rest.pop("generationConfig", {})}
    if config:
        body["generationConfig"] = config
    choice = rest.pop("tool_choice", None)
    if choice is not None:
        body["toolConfig"] = {"functionCallingConfig": _choice(choice)}
    rest.pop("stream", None)
    return {**body, **rest}


def _config(request: ChatRequest) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if request.temperature is not None:
        config["temperature"] = request.temperature
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.response_format is not None and request.response_format.get("type") != "text":
        config["responseMimeType"] = "application/json"
        schema = schema_of(request.response_format)
        if schema is not None:
            config["responseJsonSchema"] = schema
    return config


def _contents(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the turns; what follows in the same role is one turn: Gemini wants all results of tools together."""
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the functions called, by id of the call: a result has to name its function
    for message in messages:
        if message["role"] in _SYSTEM:
            continue
        role = "model" if message["role"] == "assistant" else "user"
        parts = [_result(message, names)] if message["role"] == "tool" else _said(message, names)
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def _said(message: Mapping[str, Any], names: dict[str, str]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    parts = [_text(content)] if isinstance(content, str) and content else [_part(part) for part in content or ()]
    for call in message.get("tool_calls") or ():
        names[call.get("id") or ""] = call["function"]["name"]
        parts.append(_call(call))
    return parts


def _text(text: str) -> Mapping[str, Any]:
    return {"text": text}


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    if part.get("type") == "text":
        return _text(part["text"])
    media = media_of(part)
    if media is None:
        return part
    if media.data:
        return {"inlineData": {"mimeType": media.type, "data": media.data}}
    return {"fileData": {"fileUri": media.url}}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": {"name": call["function"]["name"], "args": arguments_of(call)}}
    signature = ((call.get("extra_content") or {}).get("google") or {}).get("thought_signature")
    return part if signature is None else {**part, "thoughtSignature": signature}


def _result(message: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    content, name = message.get("content"), message.get("name") or names.get(message["tool_call_id"])
    if name is None:
        raise KeyError(f"call {message['tool_call_id']!r} to be the answer of: no message before has it")
    return {"functionResponse": {"name": name, "response": _object(text_of(content))}}


def _object(text: str) -> dict[str, Any]:
    """Return a tool's result as the object Gemini wants."""
    try:
        told = json.loads(text)
    except ValueError:
        told = text
    return told if isinstance(told, dict) else {"result": told}


def _tools(tools: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    functions, own = [], []
    for tool in tools:
        function = function_of(tool)
        if function is None:
            own.append(tool)
        else:
            kept = {key: function[key] for key in ("name", "description") if function.get(key) is not None}
            schema = function.get("parameters")
            functions.append(kept if not schema else {**kept, "parametersJsonSchema": schema})
    return [{"functionDeclarations": functions}, *own] if functions else own


def _choice(choice: Any) -> dict[str, Any]:
    if isinstance(choice, str):
        return {"mode": _CHOICES.get(choice, choice)}
    if "function" in choice:
        return {"mode": "ANY", "allowedFunctionNames": [choice["function"]["name"]]}
    return dict(choice)


# --- answers ----------------------------------------------------------------------------------------------------------


def reply(document: Mapping[str, Any]) -> Reply:
    """Read the body of a reply.

    Raises:
        ErrorReply: the prompt was blocked.
        LookupError, TypeError, AttributeError, ValueError: there is no answer in it.
    """
    reader = Reader()
    return reader.finish(reader.take(document))


def _usage(told: Any) -> Usage | None:
    """Read usage: thoughts are counted beside the answer, and what tools brought beside the prompt."""
    if not told or type(told.get("promptTokenCount")) is not int:
        return None
    thoughts = number(told, "thoughtsTokenCount")
    return Usage(
        number(told, "promptTokenCount") + number(told, "toolUsePromptTokenCount"),
        number(told, "candidatesTokenCount") + thoughts,
        number(told, "cachedContentTokenCount"),
        0,
        thoughts,
    )


class Reader:
    """Reads the events of one stream, each a document of its own; see `perfkit.providers.wire.reply.Reader`."""

    __slots__ = ("done", "said")

    def __init__(self) -> None:
        self.said = Reply()
        self.done = False  # there is no last event: the stream ends

    def feed(self, event: Event) -> str:
        """Take one event and return the text it adds."""
        return self.take(json.loads(event.data))

    def take(self, document: Mapping[str, Any]) -> str:
        """Take one document and return the text it adds."""
        if document.get("error"):
            raise ErrorReply(document)
        self._take_frame(document)
        candidates = document.get("candidates")
        if not candidates:
            return _nothing(document.get("promptFeedback") or {})
        return self._take_candidate(candidates[0])

    def _take_frame(self, document: Mapping[str, Any]) -> None:
        said = self.said
        said.id = document.get("responseId") or said.id
        said.model = document.get("modelVersion") or said.model
        said.usage = _usage(document.get("usageMetadata")) or said.usage

    def _take_candidate(self, candidate: Mapping[str, Any]) -> str:
        said, texts = self.said, []
        for part in (candidate.get("content") or {}).get("parts") or ():
            if "functionCall" in part:
                said.tool_calls.append(_tool_call(part, len(said.tool_calls)))
            elif "text" in part and not part.get("thought"):
                texts.append(part["text"])
        reason = candidate.get("finishReason")
        if reason:
            said.finish_reason = _FINISH.get(reason, reason)
        return "".join(texts)

    def finish(self, text: str) -> Reply:
        """Return the whole answer."""
        said = self.said
        if said.finish_reason is None:
            raise ValueError("it ended without a candidate that has a finishReason")
        said.text = text
        if said.tool_calls and said.finish_reason == "stop":
            said.finish_reason = "tool_calls"
        return said


def _nothing(feedback: Mapping[str, Any]) -> str:
    reason = feedback.get("blockReason")
    if reason:
        words = feedback.get("blockReasonMessage") or f"the prompt was blocked: {reason}"
        raise ErrorReply({"error": {"message": words, "type": "content_filter"}})
    return ""


def _tool_call(part: Mapping[str, Any], index: int) -> ToolCall:
    told = part["functionCall"]
    call = tool_call(told.get("id") or f"call_{index}", told["name"], json.dumps(told.get("args") or {}))
    if "thoughtSignature" in part:
        call["extra_content"] = {"google": {"thought_signature": part["thoughtSignature"]}}
    return call
