from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from perfkit.providers.wire.failures import Complaint, complaint, failure_class

OPENROUTER = {"error": {"code": 429, "message": "Provider returned error", "metadata": {"raw": "slow down"}}}
LLAMA = {"error": {"code": 400, "message": "too big", "type": "exceed_context_size_error", "n_ctx": 2048}}
MISTRAL = {"object": "error", "message": {"detail": [{"type": "extra_forbidden"}]}, "type": "invalid_request_error"}
SPENT = {"type": "rate_limit_error", "message": "x", "details": {"error_code": "enforced_spend_limit_reached"}}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"error": {"message": "m", "type": "t", "param": None, "code": "c"}}, Complaint("m", "c", "t")),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "O"}},
            Complaint("O", None, "overloaded_error"),
        ),
        ({"type": "error", "error": SPENT}, Complaint("x", "enforced_spend_limit_reached", "rate_limit_error")),
        (OPENROUTER, Complaint("Provider returned error: slow down", None, None, 429)),
        (LLAMA, Complaint("too big", None, "exceed_context_size_error", 400)),
        (MISTRAL, Complaint('{"detail": [{"type": "extra_forbidden"}]}', None, "invalid_request_error")),
        ({"error": "model 'x' not found"}, Complaint("model 'x' not found")),  # Ollama
        ({"detail": "Not Found"}, Complaint("Not Found")),  # FastAPI
        (
            [{"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}],
            Complaint("m", None, "UNAVAILABLE", 503),
        ),  # Gemini
        (
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid.",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"@type": "ErrorInfo", "reason": "API_KEY_INVALID"}],
                }
            },
            Complaint("API key not valid.", "API_KEY_INVALID", "INVALID_ARGUMENT", 400),
        ),
        (
            {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{}, {"retryDelay": "46s"}, 5]}},
            Complaint("", None, "RESOURCE_EXHAUSTED", 429, "46s"),
        ),
        ("<html>502</html>", Complaint("<html>502</html>")),
        ("", Complaint()),
        ([], Complaint()),
        ({}, Complaint()),
        (None, Complaint()),
        ({"error": {"message": None, "code": None}}, Complaint()),
    ],
)
def test_every_vendors_error_body_is_understood(document: Any, told: Complaint) -> None:
    assert complaint(document) == told


@pytest.mark.parametrize(
    ("status", "told", "cls"),
    [
        (401, Complaint("", "invalid_api_key", "invalid_request_error"), AuthenticationError),
        (402, Complaint(), AuthenticationError),
        (403, Complaint("Not allowed."), AuthenticationError),
        (403, Complaint("your input was flagged for violence"), ContentFilterError),
        (404, Complaint(), ModelNotFoundError),
        (408, Complaint(), ServerError),
        (429, Complaint("", "insufficient_quota"), AuthenticationError),
        (429, Complaint("", "project_spend_limit_exceeded", "insufficient_quota"), AuthenticationError),
        (429, Complaint("", "enforced_spend_limit_reached", "rate_limit_error"), AuthenticationError),
        (400, Complaint("You have reached your specified API usage limits. Regain", None, "x"), AuthenticationError),
        (429, Complaint("", None, "rate_limit_error"), RateLimitError),
        (500, Complaint("the context size is fine"), ServerError),
        (529, Complaint("Overloaded", None, "overloaded_error"), ServerError),
        (599, Complaint(), ServerError),
        (400, Complaint("Invalid request.", None, "invalid_request_error"), BadRequestError),
        (413, Complaint("", None, "request_too_large"), BadRequestError),
        (422, Complaint(), BadRequestError),
        (413, Complaint("Request too large", "rate_limit_exceeded", "tokens"), RateLimitError),  # Groq
        (400, Complaint("", "invalid_api_key"), AuthenticationError),
        (400, Complaint("", "model_decommissioned"), ModelNotFoundError),
        (400, Complaint("", "context_length_exceeded"), ContextWindowExceededError),
        (500, Complaint("", None, "exceed_context_size_error"), ContextWindowExceededError),
        (400, Complaint("prompt is too long: 9 tokens > 8 maximum"), ContextWindowExceededError),
        (
            400,
            Complaint("input length and `max_tokens` exceed context limit: 188240 + 21333"),
            ContextWindowExceededError,
        ),
        (400, Complaint("This model's maximum context length is 4096 tokens."), ContextWindowExceededError),
        (422, Complaint("`inputs` tokens + `max_new_tokens` must be <= 4097"), ContextWindowExceededError),
        (400, Complaint("max_tokens is too large: this model supports 4096 completion tokens"), BadRequestError),
        (400, Complaint("", "content_filter"), ContentFilterError),
        (400, Complaint("Output blocked by content filtering policy"), ContentFilterError),
        (405, Complaint(), ProviderError),
        (301, Complaint(), ProviderError),
        (200, Complaint("Overloaded", None, "overloaded_error"), ServerError),
        (200, Complaint("", None, "authentication_error"), AuthenticationError),
        (200, Complaint("", None, "rate_limit_error"), RateLimitError),
        (200, Complaint("bad field", None, "invalid_request_error"), BadRequestError),
        (200, Complaint("something"), ServerError),
    ],
)
def test_class_by_status_code_and_words(status: int, told: Complaint, cls: type[ProviderError]) -> None:
    assert failure_class(status, told) is cls


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "x"]), inner),
)


@given(JSON)
def test_no_error_body_breaks_it(document: Any) -> None:
    told = complaint(document)
    assert issubclass(failure_class(400, told), ProviderError)
    assert all(part is None or isinstance(part, str) for part in told[:3])
