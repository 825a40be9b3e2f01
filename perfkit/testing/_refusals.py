"""The providers' refusals from the server's side: one table of errors, and the body of each in every vendor's shape."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["ERRORS", "Error", "error_body", "error_kind"]


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

_GRPC = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
}

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


def error_body(kind: str, *, dialect: str = "openai", model: str) -> dict[str, Any]:
    """Return the error body in a dialect: "openai", "anthropic", "gemini" or "ollama"."""
    error = ERRORS[kind]
    if dialect == "anthropic":
        told = {"type": error.anthropic_type, "message": error.anthropic_message.format(model=model)}
        details = {"details": {"error_code": error.anthropic_code}} if error.anthropic_code else {}
        return {"type": "error", "error": told | details}
    message = error.message.format(model=model)
    if dialect == "ollama":
        return {"error": message}
    if dialect == "gemini":
        otherwise = "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL"  # noqa: PLR2004 - where server errors begin
        return {"error": {"code": error.status, "message": message, "status": _GRPC.get(error.status, otherwise)}}
    return {"error": {"message": message, "type": error.type, "param": None, "code": error.code}}
