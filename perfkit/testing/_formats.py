"""The providers' wire formats from the server's side: pure functions that build replies and events.

One `Answer` is what is said; each format puts it into its own fields. Everything is a function of the request, so that
a test can tell whose answer it got. The shapes are those of OpenAI Chat Completions and Responses, Anthropic Messages,
Gemini generateContent and Ollama chat.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["FORMATS", "MODEL", "Answer", "Format", "answer", "event", "models", "question", "tags"]

CREATED = 1_700_000_000  # every reply is of this moment: a clock would make replies differ
MODEL = "test-model"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said, before any wire format; `usage` has all five counts, prompt_tokens includes cached ones."""

    id: str
    model: str
    text: str
    finish_reason: str
    usage: Mapping[str, int]
    include_usage: bool = False

    @property
    def pieces(self) -> list[str]:
        """The text in words with the spaces after them; joined they are the text."""
        return re.findall(r"^\s+|\S+\s*", self.text)


def _asked(request: Mapping[str, Any]) -> bool:
    return bool(request.get("stream"))


class Format(NamedTuple):
    """One wire format.

    Attributes:
        body: makes the whole body.
        events: makes the events of a stream.
        dialect: of its errors.
        streams: whether a request wants a stream.
        content_type: of a stream.
    """

    body: Callable[[Answer], dict[str, Any]]
    events: Callable[[Answer], Iterator[bytes]]
    dialect: str = "openai"
    streams: Callable[[Mapping[str, Any]], bool] = _asked
    content_type: str = "text/event-stream"


def answer(
    request: Mapping[str, Any],
    *,
    text: str | None = None,
    usage: Mapping[str, int] | None = None,
    finish_reason: str = "stop",
) -> Answer:
    """Build the answer to `request`; what is not given is derived from it (an echo, and word counts)."""
    text = f"echo: {question(request)}" if text is None else text
    counts = {"prompt_tokens": _words(*_texts(request)), "completion_tokens": _words(text)}
    details = {"cached_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0}
    return Answer(
        id=hashlib.sha256(repr(request).encode()).hexdigest()[:12],
        model=str(request.get("model", MODEL)),
        text=text,
        finish_reason=finish_reason,
        usage=counts | details | dict(usage or {}),
        include_usage=bool((request.get("stream_options") or {}).get("include_usage")),
    )


def question(request: Mapping[str, Any]) -> str:
    """Return the text of the last user message, empty if there is none."""
    users = (_said(message) for message in reversed(_messages(request)) if message.get("role") == "user")
    return next(users, "")


def _messages(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = request.get("messages", request.get("input", request.get("contents", [])))
    return [{"role": "user", "content": found}] if isinstance(found, str) else list(found)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def _said(message: Mapping[str, Any]) -> str:
    return _text(message.get("content", message.get("parts")))


def _texts(request: Mapping[str, Any]) -> list[str]:
    frame = [_text(request.get("system")), _text(request.get("instructions"))]
    frame.append(_said(request.get("systemInstruction", {})))
    return frame + [_said(message) for message in _messages(request)]


def _words(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


def event(data: Any, name: str = "") -> bytes:
    """Return one server-sent event."""
    prefix = f"event: {name}\n" if name else ""
    return f"{prefix}data: {json.dumps(data)}\n\n".encode()


def _typed(data: dict[str, Any]) -> bytes:
    return event(data, data["type"])


# --- OpenAI Chat Completions ------------------------------------------------------------------------------------------


def _chat_usage(usage: Mapping[str, int]) -> dict[str, Any]:
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
        "prompt_tokens_details": {name: usage[name] for name in ("cached_tokens", "cache_write_tokens")},
        "completion_tokens_details": {"reasoning_tokens": usage["reasoning_tokens"]},
    }


def _chat_head(said: Answer, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{said.id}", "object": kind, "created": CREATED, "model": said.model}


def _chat_body(said: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": said.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish_reason}
    return _chat_head(said, "chat.completion") | {"choices": [choice], "usage": _chat_usage(said.usage)}


def _chat_events(said: Answer) -> Iterator[bytes]:
    head = _chat_head(said, "chat.completion.chunk")
    unused = {"usage": None} if said.include_usage else {}

    def chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]} | unused)

    yield chunk({"role": "assistant", "content": ""})
    for piece in said.pieces:
        yield chunk({"content": piece})
    yield chunk({}, said.finish_reason)
    if said.include_usage:
        yield event(head | {"choices": [], "usage": _chat_usage(said.usage)})
    yield b"data: [DONE]\n\n"


# --- Anthropic Messages -----------------------------------------------------------------------------------------------

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def _message_usage(usage: Mapping[str, int]) -> dict[str, int]:
    cached, written = usage["cached_tokens"], usage["cache_write_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"] - cached - written,  # Anthropic does not count cached tokens as input
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "output_tokens": usage["completion_tokens"],
    }


def _message_body(said: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_{said.id}",
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": [{"type": "text", "text": said.text}],
        "stop_reason": _STOP_REASONS.get(said.finish_reason, said.finish_reason),
        "stop_sequence": None,
        "usage": _message_usage(said.usage),
    }


def _message_events(said: Answer) -> Iterator[bytes]:
    whole = _message_body(said)
    begun = {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 1}}
    yield _typed({"type": "message_start", "message": whole | begun})
    yield _typed({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    yield _typed({"type": "ping"})
    for piece in said.pieces:
        yield _typed({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
    yield _typed({"type": "content_block_stop", "index": 0})
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _typed({"type": "message_delta", "delta": ended, "usage": {"output_tokens": whole["usage"]["output_tokens"]}})
    yield _typed({"type": "message_stop"})


# --- OpenAI Responses -------------------------------------------------------------------------------------------------


def _response_usage(usage: Mapping[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {name: usage[name] for name in ("cached_tokens", "cache_write_tokens")},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage["reasoning_tokens"]},
        "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"],
    }


def _response_body(said: Answer) -> dict[str, Any]:
    part = {"type": "output_text", "text": said.text, "annotations": []}
    item = {"id": f"msg_{said.id}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    cut = said.finish_reason == "length"
    return {
        "id": f"resp_{said.id}",
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None,
        "model": said.model,
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": _response_usage(said.usage),
    }


def _response_events(said: Answer) -> Iterator[bytes]:
    whole = _response_body(said)
    begun = whole | {"status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    where = {"item_id": f"msg_{said.id}", "output_index": 0, "content_index": 0}
    yield _typed({"type": "response.created", "sequence_number": 0, "response": begun})
    for number, piece in enumerate(said.pieces, 1):
        delta = {"sequence_number": number, "delta": piece, "logprobs": []}
        yield _typed({"type": "response.output_text.delta"} | where | delta)
    last = len(said.pieces) + 1
    yield _typed({"type": f"response.{whole['status']}", "sequence_number": last, "response": whole})


# --- Gemini generateContent -------------------------------------------------------------------------------------------

_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


def _content(said: Answer, text: str, finish_reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if finish_reason is not None:
        candidate["finishReason"] = _REASONS.get(finish_reason, finish_reason)
    usage = said.usage
    told = {
        "promptTokenCount": usage["prompt_tokens"],
        "candidatesTokenCount": usage["completion_tokens"] - usage["reasoning_tokens"],
        "thoughtsTokenCount": usage["reasoning_tokens"],  # beside the candidates
        "cachedContentTokenCount": usage["cached_tokens"],
        "totalTokenCount": usage["prompt_tokens"] + usage["completion_tokens"],
    }
    head = {"modelVersion": said.model, "responseId": said.id}
    return {"candidates": [candidate], "usageMetadata": told} | head


def _content_body(said: Answer) -> dict[str, Any]:
    return _content(said, said.text, said.finish_reason)


def _content_events(said: Answer) -> Iterator[bytes]:
    pieces = said.pieces or [""]
    for number, piece in enumerate(pieces, 1):
        yield event(_content(said, piece, said.finish_reason if number == len(pieces) else None))


# --- Ollama chat ------------------------------------------------------------------------------------------------------


def _line(said: Answer, text: str, **end: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"model": said.model, "created_at": "2023-11-14T22:13:20Z", "message": message, "done": bool(end)} | end


def _line_end(said: Answer) -> dict[str, Any]:
    durations = dict.fromkeys(("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"), 1000)
    counts = {"prompt_eval_count": said.usage["prompt_tokens"], "eval_count": said.usage["completion_tokens"]}
    return {"done_reason": said.finish_reason} | durations | counts


def _line_body(said: Answer) -> dict[str, Any]:
    return _line(said, said.text, **_line_end(said)) | {"done": True}


def _line_events(said: Answer) -> Iterator[bytes]:
    for piece in said.pieces:
        yield json.dumps(_line(said, piece)).encode() + b"\n"
    yield json.dumps(_line(said, "", **_line_end(said)) | {"done": True}).encode() + b"\n"


# By the end of the path; Gemini's names the way of the answer, the others' requests do.
FORMATS = {
    "/chat/completions": Format(_chat_body, _chat_events),
    "/messages": Format(_message_body, _message_events, "anthropic"),
    "/responses": Format(_response_body, _response_events),
    ":generateContent": Format(_content_body, _content_events, "gemini", lambda _: False),
    ":streamGenerateContent": Format(_content_body, _content_events, "gemini", lambda _: True),
    "/chat": Format(
        _line_body, _line_events, "ollama", lambda asked: bool(asked.get("stream", True)), "application/x-ndjson"
    ),
}


def models(*names: str) -> dict[str, Any]:
    """Return the list of models with the fields of OpenAI, Anthropic and Gemini."""
    openai = {"object": "model", "created": CREATED, "owned_by": "perfkit"}
    anthropic = {"type": "model", "created_at": "2023-11-14T22:13:20Z", "lifecycle": "active"}
    data = [{"id": name, "display_name": name} | openai | anthropic for name in names or (MODEL,)]
    own = [{"name": f"models/{row['id']}", "displayName": row["id"]} for row in data]
    return {
        "object": "list",
        "data": data,
        "models": own,
        "has_more": False,
        "first_id": data[0]["id"],
        "last_id": data[-1]["id"],
    }


def tags(*names: str) -> dict[str, Any]:
    """Return the list of models as Ollama has it."""
    return {"models": [{"name": name, "model": name} for name in names or (MODEL,)]}
