"""What every wire format owes: the same answers, the same errors, one request each, and no secret anywhere.

Against the fault server for what goes wrong, and against a real llama.cpp server for what has to go right.
"""

from __future__ import annotations

import functools
import json
import logging
import pickle
import re
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from _draining import drain
from _parts import REPOSITORY, needs_module

from perfkit.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextWindowExceededError,
    DeadlineExceeded,
    ModelNotFoundError,
    NetworkError,
    PerfkitError,
    ProviderError,
    RateLimitError,
    ResponseFormatError,
    ServerError,
    StreamInterruptedError,
)
from perfkit.providers import PROVIDERS, Provider, create_provider
from perfkit.testing import faults
from perfkit.transport import ConnectionPool
from perfkit.values import ChatRequest, ChatResponse, Usage

if TYPE_CHECKING:
    from perfkit.testing.faults import FaultServer
    from perfkit.testing.llm import LlamaServer

MODELS = ("*/models*", "*/tags")  # where models are listed
KEY = "sk-contract/0123456789abcdef"
TEXT = "one two three four"


class Format(NamedTuple):
    """What differs on the wire."""

    path: str
    key_header: str
    error: dict[str, Any]  # an event that is one
    without_usage: list[Any]  # the events of a stream that tells no usage
    before_text: int  # events of a stream before the first text
    code: str | None = "overloaded_error"  # of `error`
    quota: str | None = "insufficient_quota"  # code of a used up quota
    bound: tuple[str, ...] = ("max_tokens",)  # where max_tokens goes
    counts: Usage = Usage(30, 4, 20, 5)
    id: str | None = "id"  # where a reply has its id
    variable: str = ""  # of the key
    ends: bool = True  # there is a last event
    probes: bool = True  # validate() asks for a chat
    real: bool = True  # llama.cpp speaks it
    sse: bool = True  # else lines
    cut_short: str = "length"  # what llama.cpp says of an answer that met its bound; "completed" in Responses

    def path_of(self, *, stream: bool) -> str:
        return self.path.format("streamGenerateContent" if stream else "generateContent")

    def events(self, *events: Any) -> Any:
        """Return a stream of events, each a document, or text as it is."""
        if self.sse:
            return faults.sse(*events)
        lines = [event if isinstance(event, str) else json.dumps(event) + "\n" for event in events]
        return faults.sse(*lines, headers={"content-type": "application/x-ndjson"})

    @property
    def broken(self) -> str:
        """An event that is an error."""
        return f"event: error\ndata: {json.dumps(self.error)}\n\n" if self.sse else json.dumps(self.error) + "\n"

    @property
    def begun(self) -> list[Any]:
        """The events of a stream that does not come to its end."""
        return self.without_usage[:-1][:2]


def _typed(**data: Any) -> str:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n"


def _chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"id": "i", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _part(text: str, finish: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}}
    return {
        "responseId": "i",
        "modelVersion": "m",
        "candidates": [candidate | ({"finishReason": finish} if finish else {})],
    }


def _line(text: str) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", "content": text}, "done": False}


FORMATS = {
    "openai": Format(
        "/chat/completions",
        "authorization",
        {"error": {"message": "Overloaded", "type": "overloaded_error", "code": None}},
        [_chunk(content="one "), _chunk(content="two"), _chunk("stop"), "data: [DONE]\n\n"],
        1,
    ),
    "anthropic": Format(
        "/messages",
        "x-api-key",
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        [
            _typed(type="message_start", message={"id": "i", "model": "m"}),
            _typed(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "one two"}),
            _typed(type="message_delta", delta={"stop_reason": "end_turn"}),
            _typed(type="message_stop"),
        ],
        3,
        quota="enforced_spend_limit_reached",
    ),
    "openai_responses": Format(
        "/responses",
        "authorization",
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        [
            _typed(type="response.output_text.delta", delta="one "),
            _typed(type="response.output_text.delta", delta="two"),
            _typed(type="response.completed", response={"id": "i", "model": "m", "status": "completed", "output": []}),
        ],
        1,
        bound=("max_output_tokens",),
        variable="OPENAI_API_KEY",
        cut_short="stop",
    ),
    "gemini": Format(
        "/models/m:{}",
        "x-goog-api-key",
        {"error": {"code": 503, "status": "UNAVAILABLE", "message": "Overloaded"}},
        [_part("one "), _part("two", "STOP")],
        0,
        code="UNAVAILABLE",
        quota="RESOURCE_EXHAUSTED",
        bound=("generationConfig", "maxOutputTokens"),
        counts=Usage(30, 4, 20),
        id="responseId",
        ends=False,
        probes=False,
        real=False,
    ),
    "ollama": Format(
        "/chat",
        "authorization",
        {"error": "Overloaded"},
        [_line("one "), _line("two"), _line("") | {"done": True, "done_reason": "stop"}],
        0,
        code=None,
        quota=None,
        bound=("options", "num_predict"),
        counts=Usage(30, 4),
        id=None,
        real=False,
        sse=False,
    ),
}


def documented() -> str:
    """Return the code of the provider that the documents show how to write."""
    text = (REPOSITORY / "docs/providers.md").read_text()
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return next(code for code in blocks if "class House" in code)


exec(documented())  # registers "house"
FORMATS["house"] = FORMATS["openai"]._replace(variable="HOUSE_API_KEY")
OPTIONS: dict[str, dict[str, Any]] = {"house": {"key_variable": "HOUSE_API_KEY"}}


def test_the_documented_provider_is_written_in_twenty_lines() -> None:
    lines = [line for line in documented().splitlines() if line.strip()]
    assert len(lines) <= 20


def made(kind: str, **settings: Any) -> Provider:
    return create_provider(kind, **OPTIONS.get(kind, {}), **settings)


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def form(kind: str) -> Format:
    return FORMATS[kind]


def variable(kind: str) -> str:
    return FORMATS[kind].variable or f"{kind.upper()}_API_KEY"


@pytest.fixture
def connections() -> Iterator[ConnectionPool]:
    pool = ConnectionPool()
    yield pool
    pool.close()


@pytest.fixture
def provider(kind: str, fault: FaultServer, connections: ConnectionPool) -> Provider:
    return made(kind, base_url=fault.base_url, api_key=KEY, connections=connections, timeout=10)


def request(messages: Any = "hi", model: str = "m", **settings: Any) -> ChatRequest:
    return ChatRequest(messages, model, **settings)


def fail(provider: Provider, *, stream: bool) -> PerfkitError:
    with pytest.raises(PerfkitError) as caught:
        drain(provider.stream(request())) if stream else provider.chat_completion(request())
    return caught.value


def test_every_kind_speaks_a_format_tested_here() -> None:
    assert {PROVIDERS.get(kind) for kind in PROVIDERS} == {PROVIDERS.get(kind) for kind in FORMATS}


# --- answers ----------------------------------------------------------------------------------------------------------

TOLD = {"prompt_tokens": 30, "completion_tokens": 4, "cached_tokens": 20, "cache_write_tokens": 5}


def test_an_answer_is_whole(provider: Provider, kind: str, form: Format, fault: FaultServer) -> None:
    fault.behave(faults.ok(TEXT, usage=TOLD, finish_reason="length"))
    response = provider.chat_completion(request())
    assert response.text == TEXT
    assert response.usage == form.counts
    assert (response.model, response.provider, response.finish_reason) == ("m", kind, "length")
    assert response.raw is not None
    assert response.id == (form.id and response.raw[form.id])
    assert pickle.loads(pickle.dumps(response)) == response
    assert ChatResponse.from_dict(json.loads(json.dumps(response.to_dict()))) == response


def test_a_stream_comes_in_pieces_and_says_the_same(provider: Provider, fault: FaultServer) -> None:
    fault.behave(faults.ok(TEXT, usage=TOLD))
    whole = provider.chat_completion(request())
    pieces, streamed = drain(provider.stream(request()))
    assert pieces == ["one ", "two ", "three ", "four"]
    same = ("text", "usage", "model", "provider", "tool_calls", "finish_reason")
    assert [getattr(streamed, name) for name in same] == [getattr(whole, name) for name in same]


def test_the_request_is_compact_utf8_and_carries_the_key(provider: Provider, form: Format, fault: FaultServer) -> None:
    provider.chat_completion(request("žluťoučký 🐎 \ud83d", max_tokens=5))
    sent = fault.stats()["recent"][-1]
    assert sent["path"] == f"/v1{form.path_of(stream=False)}"
    assert KEY in sent["headers"][form.key_header]
    assert sent["headers"]["content-type"] == "application/json"
    assert "žluťoučký 🐎 \\ud83d" in sent["body"]
    assert ": " not in sent["body"]
    assert functools.reduce(dict.__getitem__, form.bound, json.loads(sent["body"])) == 5


def test_a_server_that_tells_no_usage_gets_an_estimate(provider: Provider, form: Format, fault: FaultServer) -> None:
    fault.behave(form.events(*form.without_usage))
    _, response = drain(provider.stream(request("how many tokens is this")))
    assert response.text == "one two"
    assert response.usage.estimated
    assert response.usage.prompt_tokens > 3
    assert 1 <= response.usage.completion_tokens <= 4


def test_a_server_that_streams_to_nobody_is_understood(provider: Provider, fault: FaultServer) -> None:
    fault.behave(faults.ok(TEXT))
    raw = provider.chat_completion(request()).raw
    fault.behave(faults.status(200, body=raw))
    pieces, response = drain(provider.stream(request()))
    assert pieces == [TEXT]
    assert response.raw == raw
    fault.behave(faults.ok(""))
    raw = provider.chat_completion(request()).raw
    fault.behave(faults.status(200, body=raw))
    assert drain(provider.stream(request()))[0] == []


def test_threads_share_a_provider_and_get_their_own_answers(provider: Provider) -> None:
    def ask(number: int) -> str:
        asked = request(f"question {number}")
        return drain(provider.stream(asked))[1].text if number % 2 else provider.chat_completion(asked).text

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(40))) == [f"echo: question {number}" for number in range(40)]


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSALS = [
    (faults.unauthorized(), AuthenticationError, 401),
    (faults.status(402), AuthenticationError, 402),
    (faults.status(403), AuthenticationError, 403),
    (faults.model_not_found(), ModelNotFoundError, 404),
    (faults.rate_limited(), RateLimitError, 429),
    (faults.status(400), BadRequestError, 400),
    (faults.status(413), BadRequestError, 413),
    (faults.status(422), BadRequestError, 422),
    (faults.context_overflow(), ContextWindowExceededError, 400),
    (faults.content_filtered(), ContentFilterError, 400),
    (faults.server_error(), ServerError, 500),
    (faults.server_error(503), ServerError, 503),
    (faults.overloaded(), ServerError, 529),
    (faults.status(418, body=""), ProviderError, 418),
    (faults.status(502, body="<html>Bad Gateway</html>", headers={"content-type": "text/html"}), ServerError, 502),
    (faults.status(301, body="", headers={"location": "https://elsewhere/"}), ProviderError, 301),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("refusal", REFUSALS, ids=[f"{cls.__name__}-{status}" for _, cls, status in REFUSALS])
def test_a_refusal_has_its_class_and_is_asked_once(
    provider: Provider, kind: str, fault: FaultServer, stream: bool, refusal: tuple[Any, type[ProviderError], int]
) -> None:
    behaviour, cls, status = refusal
    fault.behave(behaviour)
    error = fail(provider, stream=stream)
    assert type(error) is cls
    assert isinstance(error, ProviderError)
    assert (error.status, error.provider, error.model) == (status, kind, "m")
    assert str(error).startswith(f"{kind} answered {status}")
    assert error.request_id == "req_1"
    assert fault.stats()["requests"] == 1
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("stream", [False, True])
def test_an_account_without_money_is_no_matter_of_waiting(
    provider: Provider, form: Format, fault: FaultServer, stream: bool
) -> None:
    fault.behave(faults.quota_exhausted())
    error = fail(provider, stream=stream)
    if form.quota in (None, "RESOURCE_EXHAUSTED"):  # Ollama and Gemini tell no more than that it is too much
        assert type(error) is RateLimitError
    else:
        assert type(error) is AuthenticationError
        assert "its account may not spend more: add credit or raise the limit there" in str(error)


@pytest.mark.parametrize(("told", "means"), [("true", True), ("false", False), ("perhaps", None)])
def test_the_providers_word_on_asking_again_is_kept(
    provider: Provider, fault: FaultServer, told: str, means: bool | None
) -> None:
    fault.behave(faults.status(503, headers={"x-should-retry": told}))
    error = fail(provider, stream=False)
    assert isinstance(error, ProviderError)
    assert error.should_retry is means


def test_what_the_provider_said_is_told_with_what_to_do(provider: Provider, kind: str, fault: FaultServer) -> None:
    fault.behave(faults.unauthorized())
    assert f"check the key given by {variable(kind)} or api_key=" in str(fail(provider, stream=False))
    fault.behave(faults.model_not_found())
    assert "base_url" not in str(fail(provider, stream=False))
    fault.behave(faults.status(404, body={"detail": "Not Found"}))
    assert f"is base_url right? It is {fault.base_url} and needs the version prefix" in str(
        fail(provider, stream=False)
    )
    fault.behave(faults.status(301, body="", headers={"location": "https://elsewhere/"}))
    assert "redirects to https://elsewhere/" in str(fail(provider, stream=False))
    fault.behave(faults.rate_limited(7))
    assert "it asks to wait 7 s" in str(fail(provider, stream=False))


def test_a_code_is_kept(provider: Provider, form: Format, fault: FaultServer) -> None:
    fault.behave(faults.quota_exhausted())
    assert fail(provider, stream=False).code == form.quota  # type: ignore[attr-defined]


WAITS = [
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after": "9"}, 9.0),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12ms"}, 0.012),
    ({}, None),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("headers", "seconds"), WAITS)
def test_the_wait_asked_for_is_known(
    provider: Provider, fault: FaultServer, stream: bool, headers: dict[str, str], seconds: float | None
) -> None:
    fault.behave(faults.rate_limited(headers=headers))
    error = fail(provider, stream=stream)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == seconds


def test_a_wait_until_a_moment(provider: Provider, fault: FaultServer) -> None:
    moment = time.time() + 100
    rfc3339 = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    for headers in (
        {"retry-after": formatdate(moment, usegmt=True)},
        {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": rfc3339},
    ):
        fault.behave(faults.rate_limited(headers=headers))
        error = fail(provider, stream=False)
        assert isinstance(error, RateLimitError)
        assert error.retry_after is not None
        assert 60 < error.retry_after <= 100


def test_a_wait_in_words_and_one_of_an_overloaded_server(provider: Provider, fault: FaultServer) -> None:
    fault.behave(faults.status(429, body={"error": {"message": "Please try again in 5.289s. Visit", "type": "tokens"}}))
    assert fail(provider, stream=False).retry_after == 5.289  # type: ignore[attr-defined]
    fault.behave(faults.status(503, headers={"retry-after": "3", "x-ratelimit-reset-tokens": "9s"}))
    assert fail(provider, stream=False).retry_after == 3.0  # type: ignore[attr-defined]
    fault.behave(faults.status(503, headers={"x-ratelimit-reset-tokens": "9s"}))
    assert fail(provider, stream=False).retry_after is None  # type: ignore[attr-defined]


# --- nonsense ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("garbage", ["html", "json", "empty"])
def test_a_reply_that_is_no_answer_is_shown(provider: Provider, fault: FaultServer, stream: bool, garbage: str) -> None:
    fault.behave(faults.garbage(garbage))
    error = fail(provider, stream=stream)
    assert isinstance(error, ResponseFormatError)
    assert error.status == 200
    shown = {"html": "text/html", "json": "half an ans", "empty": "it is empty"}
    assert shown[garbage] in str(error)


@pytest.mark.parametrize(
    "document", [{}, [], 5, {"choices": []}, {"content": None}, {"choices": [{}], "content": [{}]}]
)
def test_json_without_an_answer_is_nonsense(provider: Provider, fault: FaultServer, document: Any) -> None:
    fault.behave(faults.status(200, body=json.dumps(document) + " " * 300 + "the end"))
    error = fail(provider, stream=False)
    assert isinstance(error, ResponseFormatError)
    assert "the end" not in str(error)


@pytest.mark.parametrize("status", [200, 400])
def test_endless_replies_are_shown_in_part(provider: Provider, fault: FaultServer, status: int) -> None:
    for body in ("[" * 100_000, {"error": {"message": "x" * 10_000}}):
        fault.behave(faults.status(status, body=body))
        assert len(str(fail(provider, stream=False))) < 1000


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_with_status_200_is_an_error(
    provider: Provider, form: Format, fault: FaultServer, stream: bool
) -> None:
    fault.behave(faults.status(200, body=form.error))
    error = fail(provider, stream=stream)
    assert type(error) is ServerError
    assert error.code == form.code
    fault.behave(faults.status(200, body={"error": {"code": 429, "message": "slow down"}}))
    error = fail(provider, stream=stream)
    assert type(error) is RateLimitError
    assert error.status == 429


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "spoilt", [faults.garbage("bytes"), faults.close(), faults.reset(), faults.cut(after_events=0)]
)
def test_what_does_not_come_back_is_a_network_error(
    provider: Provider, fault: FaultServer, stream: bool, spoilt: Any
) -> None:
    fault.behave(spoilt)
    assert isinstance(fail(provider, stream=stream), NetworkError)


def test_a_truncated_body_is_a_network_error(provider: Provider, fault: FaultServer) -> None:
    fault.behave(faults.truncated())
    assert isinstance(fail(provider, stream=False), NetworkError)


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_is_kept(provider: Provider, fault: FaultServer, stream: bool) -> None:
    fault.behave(faults.hang(seconds=3))
    asked = request(timeout=0.2)
    with pytest.raises(DeadlineExceeded):
        drain(provider.stream(asked)) if stream else provider.chat_completion(asked)


# --- broken streams ---------------------------------------------------------------------------------------------------


def broken(provider: Provider) -> tuple[list[str], PerfkitError]:
    pieces: list[str] = []
    with pytest.raises(PerfkitError) as caught:
        pieces.extend(provider.stream(request()))  # keeps what came before the error
    return pieces, caught.value


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_stream_cut_before_its_first_text(provider: Provider, form: Format, fault: FaultServer, how: str) -> None:
    fault.behave(faults.cut(faults.ok(TEXT), after_events=form.before_text, how=how))
    pieces, error = broken(provider)
    assert pieces == []
    assert isinstance(error, NetworkError)
    assert fault.stats()["requests"] == 1


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_stream_cut_after_text(provider: Provider, kind: str, form: Format, fault: FaultServer, how: str) -> None:
    fault.behave(faults.stall(faults.ok(TEXT), after_events=form.before_text + 2))
    stream = provider.stream(request())
    assert [next(stream), next(stream)] == ["one ", "two "]
    fault.disconnect(how=how)
    with pytest.raises(StreamInterruptedError) as caught:
        next(stream)
    error = caught.value
    assert (error.partial, error.provider, error.model) == ("one two ", kind, "m")
    assert isinstance(error.__cause__, NetworkError)
    assert pickle.loads(pickle.dumps(error)).partial == "one two "


def test_a_stream_that_ends_politely_without_its_end(provider: Provider, form: Format, fault: FaultServer) -> None:
    fault.behave(form.events(*form.begun))
    pieces, error = broken(provider)
    assert "".join(pieces).startswith("one ")
    assert type(error) is StreamInterruptedError
    fault.behave(form.events())
    assert type(broken(provider)[1]) is ResponseFormatError


def test_a_malformed_event(provider: Provider, form: Format, fault: FaultServer) -> None:
    before = form.before_text
    fault.behave(faults.malformed_sse(faults.ok(TEXT), after_events=before))
    pieces, error = broken(provider)
    assert (pieces, type(error)) == ([], ResponseFormatError)
    assert '{"choices": [{"delta"' in str(error)
    fault.behave(faults.malformed_sse(faults.ok(TEXT), after_events=before + 1))
    pieces, error = broken(provider)
    assert (pieces, type(error)) == (["one "], StreamInterruptedError)


def test_an_error_inside_a_stream(provider: Provider, form: Format, fault: FaultServer) -> None:
    fault.behave(form.events(form.broken))
    pieces, error = broken(provider)
    assert (pieces, type(error)) == ([], ServerError)
    assert error.code == form.code  # type: ignore[attr-defined]
    fault.behave(form.events(*form.begun, form.broken))
    pieces, error = broken(provider)
    assert isinstance(error, StreamInterruptedError)
    assert (error.partial, error.code) == ("".join(pieces), form.code)
    assert type(error.__cause__) is ServerError


def test_a_deadline_inside_a_stream_keeps_what_was_heard(provider: Provider, form: Format, fault: FaultServer) -> None:
    fault.behave(faults.stall(faults.ok(TEXT), after_events=form.before_text + 1))
    stream = provider.stream(request(timeout=1))
    assert next(stream) == "one "
    with pytest.raises(DeadlineExceeded) as caught:
        next(stream)
    assert caught.value.partial == "one "  # type: ignore[attr-defined]
    fault.release(drop=True)


def test_a_stream_that_has_begun_may_outlast_its_first_token_timeout(
    provider: Provider, form: Format, fault: FaultServer
) -> None:
    fault.behave(faults.stall(faults.ok(TEXT), after_events=form.before_text + 1, seconds=1.05))
    request = ChatRequest("hi", "tiny", timeout=10.0, first_token_timeout=1.0)
    assert "".join(provider.stream(request)) == TEXT


def test_a_stream_that_does_not_begin_is_given_up(provider: Provider, fault: FaultServer) -> None:
    fault.behave(faults.hang())
    request = ChatRequest("hi", "tiny", timeout=30.0, first_token_timeout=0.1)
    with pytest.raises(DeadlineExceeded):
        next(provider.stream(request))


def test_leaving_early_ends_the_connection_at_once(provider: Provider, kind: str, fault: FaultServer) -> None:
    fault.behave(faults.ok("word " * 500, interval=0.01))
    stream = provider.stream(request())
    assert next(stream) == "word "
    stream.close()
    counters = fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)
    assert counters["completed"] == 0


def test_a_stream_not_begun_sends_nothing(provider: Provider, fault: FaultServer) -> None:
    provider.stream(request()).close()
    assert fault.stats()["requests"] == 0


@pytest.mark.usefixtures("patient")
def test_finished_calls_give_their_connection_back(provider: Provider, fault: FaultServer) -> None:
    before = fault.stats()["connections"]
    for _ in range(3):
        drain(provider.stream(request()))
        provider.chat_completion(request())
        fault.behave(faults.server_error(), faults.ok())
        assert isinstance(fail(provider, stream=True), ServerError)
    assert fault.stats()["connections"] - before == 1


@pytest.mark.parametrize("kind", [kind for kind, form in FORMATS.items() if form.ends])
def test_a_server_that_goes_on_after_the_end_is_not_waited_for(
    provider: Provider, form: Format, fault: FaultServer
) -> None:
    events = form.without_usage
    fault.behave(faults.stall(form.events(*events, ": ping\n\n"), after_events=len(events)))
    assert drain(provider.stream(request(timeout=8)))[1].text == "one two"
    fault.release(drop=True)


# --- models and credentials -------------------------------------------------------------------------------------------


def test_models_are_listed_bare_too(fault: FaultServer) -> None:
    fault.behave(faults.status(200, body=[{"id": "a"}, {"id": "b"}]))  # Together
    assert create_provider("together", base_url=fault.base_url).list_models() == ["a", "b"]


def test_models_are_listed(provider: Provider, fault: FaultServer) -> None:
    assert provider.list_models() == ["test-model"]
    for nonsense in ({}, {"data": [5]}, "text"):
        fault.behave(faults.status(200, body=json.dumps(nonsense)))
        with pytest.raises(ResponseFormatError):
            provider.list_models()


def test_validate_tells_a_wrong_key_even_where_models_are_public(
    provider: Provider, kind: str, form: Format, fault: FaultServer
) -> None:
    provider.validate()
    if form.probes:
        fault.behave(faults.unauthorized(), path=f"*{form.path}")
        with pytest.raises(AuthenticationError, match=variable(kind)):
            provider.validate()
    fault.behave(faults.unauthorized())
    with pytest.raises(AuthenticationError):
        provider.validate()


@pytest.mark.parametrize("kind", [kind for kind, form in FORMATS.items() if form.probes])
def test_validate_lets_pass_who_may_chat_but_not_list(provider: Provider, form: Format, fault: FaultServer) -> None:
    for refusal in (faults.status(403), faults.status(404)):
        for path in MODELS:
            fault.behave(refusal, path=path)
        fault.behave(faults.status(400), path=f"*{form.path}")
        provider.validate()
    fault.reset()
    fault.behave(faults.status(404, kind="no_route"))
    with pytest.raises(ModelNotFoundError, match="is base_url right"):
        provider.validate()


def test_validate_tells_of_a_server_that_is_not_well(provider: Provider, form: Format, fault: FaultServer) -> None:
    fault.behave(faults.close(), path=f"*{form.path}")
    provider.validate()  # breaking off at an empty request is no reason
    for path in MODELS:
        fault.behave(faults.server_error(), path=path)
    with pytest.raises(ServerError):
        provider.validate()


# --- secrets ----------------------------------------------------------------------------------------------------------

ECHOES = [
    faults.status(401, body={"error": {"message": f"Incorrect API key provided: {KEY}", "code": KEY}}),
    faults.status(400, body=f"<html>Authorization: Bearer {KEY}</html>"),
    faults.status(500, body=json.dumps({"error": KEY}).replace("/", "\\/")),
    faults.status(200, body="x" * 180 + KEY),
    faults.status(200, body={"error": {"message": KEY, "code": 429}}),
    faults.status(200, body={"choices": [{"error": {"message": KEY}}], "type": KEY}),
    faults.status(200, body="{", headers={"content-type": f"text/{KEY}"}),
    faults.sse({"error": {"message": KEY, "type": "server_error"}}),
    faults.sse(f"data: {KEY}\n\n"),
    faults.status(500, headers={"x-request-id": KEY, "request-id": KEY}),
    faults.status(301, body="", headers={"location": f"https://x/?key={KEY}"}),
    faults.garbage("bytes"),
    faults.close(),
]


def everything_shown(error: BaseException | None) -> str:
    """Return what any reporter could print of an error and of all those it came from."""
    if error is None:
        return ""
    shown = [f"{error!s} {error!r} {vars(error)!r} {error.args!r}", *traceback.format_exception(error)]
    return "".join([*shown, everything_shown(error.__cause__), everything_shown(error.__context__)])


def assert_unshown(text: str) -> None:
    assert "sk-contract" not in text  # its beginning is enough: a cut key is still a key


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("echo", ECHOES, ids=range(len(ECHOES)))
def test_no_error_log_or_repr_shows_the_key(
    provider: Provider, fault: FaultServer, caplog: pytest.LogCaptureFixture, echo: Any, stream: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    fault.behave(echo)
    error = fail(provider, stream=stream)
    assert_unshown(everything_shown(error))
    assert b"sk-contract" not in pickle.dumps(error)
    assert_unshown(caplog.text)
    assert_unshown(repr(provider) + repr(vars(provider)))


def test_the_raw_reply_does_not_hold_the_key_and_the_text_is_not_changed(
    provider: Provider, fault: FaultServer
) -> None:
    fault.behave(faults.ok(f"the key is {KEY}"))
    raw = provider.chat_completion(request()).raw
    assert raw is not None
    assert_unshown(repr(raw))
    fault.behave(faults.ok("fine"))
    raw = {**(provider.chat_completion(request()).raw or {}), "debug": {"headers": [f"Bearer {KEY}"]}}
    fault.behave(faults.status(200, body=raw))
    response = provider.chat_completion(request())
    assert_unshown(repr(response) + json.dumps(response.to_dict()))
    assert response.raw == {**raw, "debug": {"headers": ["Bearer ***"]}}


# --- a real server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked() -> Iterator[LlamaServer]:
    needs_module("xllamacpp")
    from perfkit.testing.llm import LlamaServer

    with LlamaServer(api_key=KEY, context=512) as server:
        yield server


SPOKEN = [kind for kind, form in FORMATS.items() if form.real]  # by llama.cpp


@pytest.fixture
def real(kind: str, locked: LlamaServer, connections: ConnectionPool) -> Provider:
    return made(kind, base_url=locked.base_url, api_key=KEY, connections=connections)


def long_question(salt: str) -> ChatRequest:
    messages = [
        {"role": "system", "content": f"{salt} " + "be brief. " * 40},
        {"role": "user", "content": "What is a cache?"},
    ]
    return request(messages, "tiny", temperature=0, max_tokens=8, extra={"seed": 1})


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_real_server_says_the_same_streaming_and_whole(real: Provider, form: Format) -> None:
    asked = request("What is a cache?", "tiny", temperature=0, max_tokens=12, extra={"cache_prompt": False})
    whole = real.chat_completion(asked)
    pieces, streamed = drain(real.stream(asked))
    assert whole.text == "".join(pieces) == streamed.text
    assert len(pieces) > 3
    uncached = [replace(answer.usage, cached_tokens=0) for answer in (whole, streamed)]  # others asked the same before
    assert uncached[0] == uncached[1]
    assert whole.usage.completion_tokens == 12
    assert not whole.usage.estimated
    assert (whole.finish_reason, streamed.finish_reason, whole.model) == (form.cut_short, form.cut_short, "tiny")


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_real_prompt_cache_is_counted_inside_the_prompt(real: Provider, kind: str) -> None:
    asked = long_question(kind)
    first, again = real.chat_completion(asked), real.chat_completion(asked)
    _, streamed = drain(real.stream(asked))
    assert first.usage.prompt_tokens == again.usage.prompt_tokens == streamed.usage.prompt_tokens
    assert first.usage.cached_tokens < 50
    assert again.usage.cached_tokens == streamed.usage.cached_tokens == again.usage.prompt_tokens - 1


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_real_refusal_of_the_key(locked: LlamaServer, kind: str) -> None:
    for key in ("sk-wrong-key-0000", None):
        provider = made(kind, base_url=locked.base_url, api_key=key)
        for stream in (False, True):
            assert type(fail(provider, stream=stream)) is AuthenticationError
        with pytest.raises(AuthenticationError, match=variable(kind)):
            provider.validate()


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_real_overflow(real: Provider) -> None:
    asked = request("word " * 600, "tiny", max_tokens=4)
    with pytest.raises(ContextWindowExceededError, match="exceeds the available context size") as caught:
        real.chat_completion(asked)
    assert (caught.value.status, caught.value.code) == (400, "exceed_context_size_error")
    with pytest.raises(ContextWindowExceededError):
        drain(real.stream(asked))


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_real_server_lists_and_validates(real: Provider) -> None:
    assert real.list_models() == ["tiny"]
    real.validate()


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_real_stream_left_early_frees_the_server(real: Provider) -> None:
    for _ in range(8):  # more than it has slots: each would be busy for 400 tokens
        stream = real.stream(request("go", "tiny", max_tokens=400, extra={"ignore_eos": True}))
        next(stream)
        stream.close()
    assert real.chat_completion(request("hi", "tiny", max_tokens=2)).usage.completion_tokens == 2


@pytest.mark.parametrize("kind", ["openai"])  # in the other formats llama.cpp ignores it
def test_a_real_answer_keeps_to_a_schema(real: Provider) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    response = real.chat_completion(request("What is a cache?", "tiny", response_format=form))
    assert isinstance(json.loads(response.text)["ok"], bool)


@pytest.mark.parametrize("kind", SPOKEN)
def test_a_real_server_takes_a_turn_with_tools(real: Provider) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"x": 1}'}}
    tool = {"type": "function", "function": {"name": "get", "description": "d", "parameters": {"type": "object"}}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "What is x?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "7"},
    ]
    response = real.chat_completion(request(messages, "tiny", tools=(tool,), max_tokens=4))
    assert response.text or response.tool_calls
