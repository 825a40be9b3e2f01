"""The providers' wire formats from the server's side: pure functions that build replies, events and error bodies.

One `Answer` is what is said; each format puts it into its own fields. Everything is a function of the request, so that
a test can tell whose answer it got. The shapes are those of OpenAI Chat Completions and Responses and of Anthropic
Messages.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["ERRORS", "FORMATS", "Answer", "Format", "answer", "error_body", "error_kind", "event", "models", "question"]

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


class Format(NamedTuple):
    """One wire format: the whole body, and the events of a stream."""

    body: Callable[[Answer], dict[str, Any]]
    events: Callable[[Answer], Iterator[bytes]]


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
    users = (_text(message["content"]) for message in reversed(_messages(request)) if message.get("role") == "user")
    return next(users, "")


def _messages(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = request.get("messages", request.get("input", []))
    return [{"role": "user", "content": found}] if isinstance(found, str) else list(found)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


def _texts(request: Mapping[str, Any]) -> list[str]:
    frame = [_text(request.get("system")), _text(request.get("instructions"))]
    return frame + [_text(message.get("content")) for message in _messages(request)]


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


FORMATS = {
    "/chat/completions": Format(_chat_body, _chat_events),
    "/messages": Format(_message_body, _message_events),
    "/responses": Format(_response_body, _response_events),
}


def models(*names: str) -> dict[str, Any]:
    """Return the list of models with the fields of both OpenAI and Anthropic."""
    openai = {"object": "model", "created": CREATED, "owned_by": "perfkit"}
    anthropic = {"type": "model", "created_at": "2023-11-14T22:13:20Z", "lifecycle": "active"}
    data = [{"id": name, "display_name": name} | openai | anthropic for name in names or (MODEL,)]
    return {"object": "list", "data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}


# --- errors -----------------------------------------------------------------------------------------------------------


class Error(NamedTuple):
    """One error in both tongues; `{model}` in a message stands for the model asked for."""

    status: int
    type: str
    code: str | None
    message: str
    anthropic_type: str
    anthropic_message: str
    anthropic_code: str | None = None


_BAD, _QUOTA = "invalid_request_error", "insufficient_quota"
_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
_FILTERED = "Your request was rejected as a result of our safety system."
_BROKE = "You exceeded your current quota, please check your plan and billing details."
_SPENT = "Your organization has reached its enforced spend limit."
_UNKNOWN = "The model `{model}` does not exist or you do not have access to it."

# The first of a status is what that status means unless told otherwise.
ERRORS = {
    "bad_request": Error(400, _BAD, None, "Invalid request.", _BAD, "Invalid request."),
    "context_overflow": Error(
        400, _BAD, "context_length_exceeded", _LONG, _BAD, "prompt is too long: 9000 tokens > 8192 maximum"
    ),
    "content_filtered": Error(
        400, _BAD, "content_policy_violation", _FILTERED, _BAD, "Output blocked by content filtering policy"
    ),
    "unauthorized": Error(
        401, _BAD, "invalid_api_key", "Incorrect API key provided.", "authentication_error", "invalid x-api-key"
    ),
    "billing": Error(402, _QUOTA, _QUOTA, _BROKE, "billing_error", "Your credit balance is too low."),
    "forbidden": Error(403, _BAD, "forbidden", "Not allowed.", "permission_error", "Not allowed."),
    "model_not_found": Error(404, _BAD, "model_not_found", _UNKNOWN, "not_found_error", "model: {model}"),
    "no_route": Error(404, _BAD, "unknown_url", "Unknown request URL.", "not_found_error", "Not found."),
    "too_large": Error(413, _BAD, None, "Request too large.", "request_too_large", "Request exceeds the maximum size"),
    "rate_limited": Error(
        429, "requests", "rate_limit_exceeded", "Rate limit reached.", "rate_limit_error", "Rate limit reached."
    ),
    "quota_exhausted": Error(
        429, _QUOTA, _QUOTA, _BROKE, "rate_limit_error", _SPENT, anthropic_code="enforced_spend_limit_reached"
    ),
    "server_error": Error(500, "server_error", None, "The server had an error.", "api_error", "Internal server error"),
    "overloaded": Error(
        529, "server_error", "overloaded", "The engine is overloaded.", "overloaded_error", "Overloaded"
    ),
}


def error_kind(status: int) -> str:
    """Return the key of `ERRORS` that a status means by itself."""
    otherwise = "server_error" if status >= 500 else "bad_request"  # noqa: PLR2004 - where server errors begin
    return next((kind for kind, error in ERRORS.items() if error.status == status), otherwise)


def error_body(kind: str, *, anthropic: bool = False, model: str = MODEL) -> dict[str, Any]:
    """Return the error body of OpenAI, or of Anthropic."""
    error = ERRORS[kind]
    if anthropic:
        told = {"type": error.anthropic_type, "message": error.anthropic_message.format(model=model)}
        details = {"details": {"error_code": error.anthropic_code}} if error.anthropic_code else {}
        return {"type": "error", "error": told | details}
    message = error.message.format(model=model)
    return {"error": {"message": message, "type": error.type, "param": None, "code": error.code}}
