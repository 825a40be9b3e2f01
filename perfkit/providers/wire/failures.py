"""From a provider's refusal to the class of `perfkit.errors` that says what to do about it.

Tables decide: first codes that mean one thing at every vendor, then the status, then (as there is no code for it at
some vendors) the words for an overlong prompt or a content policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from perfkit.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextWindowExceededError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    ServerError,
)

__all__ = ["Complaint", "complaint", "failure_class"]

_OK, _SERVER = range(200, 300), range(500, 600)

_BY_CODE: dict[str, type[ProviderError]] = {
    # OpenAI, Groq, Cerebras; llama.cpp; Anthropic's stop reason of the same meaning
    "context_length_exceeded": ContextWindowExceededError,
    "exceed_context_size_error": ContextWindowExceededError,
    "model_context_window_exceeded": ContextWindowExceededError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "invalid_prompt": ContentFilterError,
    "invalid_api_key": AuthenticationError,
    "authentication_error": AuthenticationError,
    "permission_error": AuthenticationError,
    "model_not_found": ModelNotFoundError,
    "model_decommissioned": ModelNotFoundError,
    "invalid_model": ModelNotFoundError,
    "not_found_error": ModelNotFoundError,
    "rate_limit_exceeded": RateLimitError,  # Groq answers 413 with it when one request is above a minute's tokens
    "rate_limit_error": RateLimitError,
    "overloaded_error": ServerError,
    "api_error": ServerError,
    "server_error": ServerError,
    "timeout_error": ServerError,
    # Gemini, and what else speaks gRPC's words
    "API_KEY_INVALID": AuthenticationError,
    "UNAUTHENTICATED": AuthenticationError,
    "PERMISSION_DENIED": AuthenticationError,
    "NOT_FOUND": ModelNotFoundError,
    "RESOURCE_EXHAUSTED": RateLimitError,
    "UNAVAILABLE": ServerError,
    "INTERNAL": ServerError,
    "request_too_large": BadRequestError,
    "invalid_request_error": BadRequestError,  # the type of most of OpenAI's errors: below the status
}
# An account that may not spend more, whatever the status: waiting some seconds does not help (vendors' error guides).
SPENT = frozenset(
    {
        "insufficient_quota",  # OpenAI, as code or type, and the ones below with it
        "billing_error",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
        "enforced_spend_limit_reached",  # Anthropic, beside type "rate_limit_error"
    }
)
_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    402: AuthenticationError,
    403: AuthenticationError,
    404: ModelNotFoundError,
    408: ServerError,
    409: ServerError,
    425: ServerError,
    429: RateLimitError,
}
_REFUSED = (400, 413, 422)
_STATUS = re.compile(r"[45]\d\d")
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size|limit)|prompt is too long|input is too long|too many (?:input )?tokens"
    r"|input token count .{0,40}exceeds"
    r"|reduce the length of the (?:messages|prompt)|tokens \+ `?max_new_tokens",
    re.IGNORECASE,
)
_CAPPED = re.compile(r"you have reached your specified (?:workspace )?api usage limits", re.IGNORECASE)  # Anthropic
_FILTERED = re.compile(r"content[ _-]?(?:filter|policy|management)|safety system|flagged|usage polic", re.IGNORECASE)


class Complaint(NamedTuple):
    """A provider's error body, whatever its shape.

    Attributes:
        message: its words.
        code: its most exact name for the error.
        type: its name for the kind of error.
        status: the HTTP status it names in the place of a code (OpenRouter, llama.cpp, Gemini).
        wait: how long it asks to wait, in its own spelling (Gemini).
    """

    message: str = ""
    code: str | None = None
    type: str | None = None
    status: int | None = None
    wait: str | None = None

    @property
    def name(self) -> str | None:
        """The most exact of code and type."""
        return self.code if self.code is not None else self.type

    @property
    def spent(self) -> bool:
        """Whether the account may not spend more."""
        return self.code in SPENT or self.type in SPENT or _CAPPED.match(self.message) is not None


def complaint(document: Any) -> Complaint:
    """Read an error body: OpenAI's and Anthropic's {"error": {...}}, Ollama's {"error": "..."}, bare ones of others."""
    if isinstance(document, list):  # Gemini's OpenAI endpoint wraps it
        document = document[0] if document else {}
    if not isinstance(document, Mapping):
        return Complaint(_text(document))
    error = document.get("error") or document
    if not isinstance(error, Mapping):
        return Complaint(_text(error))
    metadata, (exact, wait) = error.get("metadata"), _details(error.get("details"))
    behind = metadata.get("raw") if isinstance(metadata, Mapping) else None  # OpenRouter: the words of the one behind
    words = [_text(part) for part in (error.get("message", error.get("detail")), behind) if part]
    code, kind = _name(error.get("code")), _name(error.get("type") or _grpc(error.get("status")))
    status = int(code) if code is not None and _STATUS.fullmatch(code) else None
    return Complaint(": ".join(words), _name(exact) or (code if status is None else None), kind, status, wait)


def _grpc(status: Any) -> str | None:
    return status if isinstance(status, str) and status.isupper() else None


def _details(details: Any) -> tuple[Any, str | None]:
    """Return the exact code and the wait among the details: Anthropic's are a table, Gemini's a list of tables."""
    if isinstance(details, Mapping):
        return details.get("error_code"), None
    rows = [row for row in details if isinstance(row, Mapping)] if isinstance(details, list) else []
    exact = next((row["reason"] for row in rows if row.get("reason") in _BY_CODE), None)
    wait = next((row["retryDelay"] for row in rows if isinstance(row.get("retryDelay"), str)), None)
    return exact, wait


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _name(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None


def failure_class(status: int, told: Complaint) -> type[ProviderError]:
    """Return the error class for an HTTP status (200 for errors inside a good reply) and what was told with it."""
    named = _BY_CODE.get(told.code or "") or _BY_CODE.get(told.type or "")
    if named in (ContextWindowExceededError, ContentFilterError):
        return named
    if told.spent:
        return AuthenticationError
    if status in _BY_STATUS:
        filtered = status == 403 and _FILTERED.search(told.message)  # noqa: PLR2004 - OpenRouter's moderation
        return ContentFilterError if filtered else _BY_STATUS[status]
    if status in _SERVER:
        return ServerError
    if status in _REFUSED or status in _OK:
        return _refusal(named, told.message) or (ServerError if status in _OK else BadRequestError)
    return ProviderError


def _refusal(named: type[ProviderError] | None, message: str) -> type[ProviderError] | None:
    if named is not None and named is not BadRequestError:
        return named
    if _TOO_LONG.search(message):
        return ContextWindowExceededError
    return ContentFilterError if _FILTERED.search(message) else named
