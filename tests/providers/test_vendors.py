"""Gemini's and Ollama's formats against what we did not write: the vendors' SDKs, and aimock.

The SDKs judge our test server's replies, and what they send is what we have to send. aimock judges our requests and
makes replies of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from _daemons import free_port
from _draining import drained
from _parts import needs_aimock, needs_module
from _servers import polled

from perfkit.errors import BadRequestError, ContentFilterError, RateLimitError
from perfkit.providers import create_provider
from perfkit.testing import faults
from perfkit.values import ChatRequest, Usage

if TYPE_CHECKING:
    from perfkit.testing import FaultServer

FUNCTION: dict[str, Any] = {
    "name": "get_weather",
    "description": "d",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
PNG = "iVBORw0KGgo="
LOOK = [
    {"type": "text", "text": "what is it?"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
]
ASKED = ChatRequest(
    [{"role": "system", "content": "be brief"}, {"role": "user", "content": LOOK}],
    "m",
    temperature=0.5,
    max_tokens=7,
    response_format=FORM,
    extra={"top_p": 0.9},
)
USAGE = {"prompt_tokens": 30, "completion_tokens": 9, "cached_tokens": 20, "reasoning_tokens": 4}


def asked(messages: Any, model: str, **settings: Any) -> ChatRequest:
    return ChatRequest(messages, model, **settings)


def sent(fault: FaultServer, number: int = -1) -> Any:
    return json.loads(fault.stats()["recent"][number]["body"])


def camel(value: Any) -> Any:
    """Return a JSON value with its keys in the spelling of Google's documents: their SDK mixes both."""
    if isinstance(value, dict):
        words = {key: key.split("_") for key in value}
        return {head + "".join(map(str.title, rest)): camel(value[key]) for key, (head, *rest) in words.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


# --- the SDKs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def google(fault: FaultServer) -> Iterator[Any]:
    needs_module("google.genai")
    from google import genai

    with genai.Client(api_key="k", http_options={"base_url": fault.root_url, "api_version": "v1beta"}) as client:
        yield client


def test_googles_sdk_reads_the_test_server_and_sends_what_we_send(google: Any, fault: FaultServer) -> None:
    fault.behave(faults.ok("one two", usage=USAGE))
    config = {
        "system_instruction": "be brief",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 7,
        "response_mime_type": "application/json",
        "response_json_schema": SCHEMA,
    }
    picture = {"inline_data": {"mime_type": "image/png", "data": PNG}}
    contents = [{"role": "user", "parts": [{"text": "what is it?"}, picture]}]
    reply = google.models.generate_content(model="m", contents=contents, config=config)
    assert (reply.text, reply.model_version) == ("one two", "m")
    told = reply.usage_metadata
    assert (told.prompt_token_count, told.candidates_token_count, told.thoughts_token_count) == (30, 5, 4)
    theirs = sent(fault)
    ours = create_provider("gemini", base_url=f"{fault.root_url}/v1beta", api_key="k")
    assert ours.chat_completion(ASKED).usage == Usage(30, 9, 20, 0, 4)
    mine = sent(fault)
    assert mine.pop("systemInstruction")["parts"] == theirs.pop("systemInstruction")["parts"]
    assert mine == camel(theirs)
    paths = [request["path"] for request in fault.stats()["recent"][-2:]]
    assert paths == ["/v1beta/models/m:generateContent"] * 2


def test_googles_sdk_streams_and_calls_tools_as_we_do(google: Any, fault: FaultServer) -> None:
    fault.behave(faults.ok("one two"))
    declared = {"name": "get_weather", "description": "d", "parameters_json_schema": FUNCTION["parameters"]}
    config = {"tools": [{"function_declarations": [declared]}]}
    chunks = list(google.models.generate_content_stream(model="m", contents="hi", config=config))
    assert "".join(chunk.text or "" for chunk in chunks) == "one two"
    theirs = sent(fault)
    request = asked("hi", "m", tools=[{"type": "function", "function": FUNCTION}])
    text, whole = drained(create_provider("gemini", base_url=f"{fault.root_url}/v1beta", api_key="k").stream(request))
    assert text == whole.text == "one two"
    assert sent(fault) | {"generationConfig": {}} == camel(theirs)
    assert [r["query"] for r in fault.stats()["recent"][-2:]] == ["alt=sse"] * 2


def test_googles_sdk_lists_the_models_we_list(google: Any, fault: FaultServer) -> None:
    assert [model.name for model in google.models.list()] == ["models/test-model"]
    assert create_provider("gemini", base_url=f"{fault.root_url}/v1beta", api_key="k").list_models() == ["test-model"]


@pytest.fixture
def ollama(fault: FaultServer) -> Iterator[Any]:
    needs_module("ollama")
    import ollama

    client = ollama.Client(host=fault.root_url)
    yield client
    client._client.close()


def test_ollamas_sdk_reads_the_test_server_and_sends_what_we_send(ollama: Any, fault: FaultServer) -> None:
    fault.behave(faults.ok("one two", usage=USAGE))
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what is it?", "images": [PNG]},
    ]
    options = {"temperature": 0.5, "num_predict": 7, "top_p": 0.9}
    reply = ollama.chat(
        "m", messages, format=SCHEMA, options=options, tools=[{"type": "function", "function": FUNCTION}]
    )
    assert (reply.message.content, reply.done_reason, reply.prompt_eval_count) == ("one two", "stop", 30)
    theirs = sent(fault)
    ours = create_provider("ollama", base_url=f"{fault.root_url}/api")
    ours.chat_completion(ASKED.evolve(tools=({"type": "function", "function": FUNCTION},)))
    assert sent(fault) == theirs
    assert [r["path"] for r in fault.stats()["recent"][-2:]] == ["/api/chat"] * 2


def test_ollamas_sdk_streams_and_lists_as_we_do(ollama: Any, fault: FaultServer) -> None:
    fault.behave(faults.ok("one two"))
    parts = ollama.chat("m", [{"role": "user", "content": "hi"}], stream=True)
    assert "".join(part.message.content for part in parts) == "one two"
    theirs = sent(fault)
    ours = create_provider("ollama", base_url=f"{fault.root_url}/api")
    assert drained(ours.stream(asked("hi", "m")))[0] == "one two"
    assert sent(fault) == {key: value for key, value in theirs.items() if key != "tools"}  # it sends an empty list
    assert [model.model for model in ollama.list().models] == ours.list_models() == ["test-model"]


# --- aimock -----------------------------------------------------------------------------------------------------------

WEATHER = [{"name": "get_weather", "arguments": '{"city": "Brno"}'}]
REFUSAL = {"error": {"message": "Rate limited", "type": "rate_limit_error"}, "status": 429}
SAID = {
    "weather": {"toolCalls": WEATHER},
    "fail": REFUSAL,
    "hello": {"content": "Hi there, žluťoučký kůň!"},
    "what is it?": {"content": '{"ok": true}'},
}
FIXTURES = {"fixtures": [{"match": {"userMessage": asked}, "response": said} for asked, said in SAID.items()]}
PREFIXES = {"gemini": "/v1beta", "ollama": "/api", "openai_responses": "/v1", "openai": "/v1", "anthropic": "/v1"}


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    node, program = needs_aimock()
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_text(json.dumps(FIXTURES))
    port = free_port()
    command = [node, str(program), "-p", str(port), "-f", str(fixtures), "--log-level", "warn", "--strict"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        polled(lambda: answers(f"{url}/health"))
        yield url
    finally:
        process.kill()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(params=sorted(PREFIXES))
def peer(request: pytest.FixtureRequest, aimock: str) -> Any:
    kind = str(request.param)
    return create_provider(kind, base_url=aimock + PREFIXES[kind], api_key="k")


def test_aimock_understands_us_and_we_it(peer: Any) -> None:
    for stream in (False, True):
        request = asked("hello", "gpt-x", max_tokens=50, temperature=0)
        text, whole = drained(peer.stream(request)) if stream else ("", peer.chat_completion(request))
        assert whole.text == "Hi there, žluťoučký kůň!"
        assert not stream or text == whole.text
        assert whole.finish_reason == "stop"


def test_aimock_calls_tools(peer: Any) -> None:
    request = asked("weather", "gpt-x", max_tokens=50, tools=[{"type": "function", "function": FUNCTION}])
    for whole in (peer.chat_completion(request), drained(peer.stream(request))[1]):
        (call,) = whole.tool_calls
        assert call["function"]["name"] == "get_weather"
        assert json.loads(call["function"]["arguments"]) == {"city": "Brno"}
        assert whole.finish_reason == "tool_calls"


def test_aimock_takes_pictures_and_schemas(peer: Any) -> None:
    assert json.loads(peer.chat_completion(ASKED.evolve(model="gpt-x")).text) == {"ok": True}


def test_aimocks_refusals_have_their_class(peer: Any) -> None:
    for ask in (peer.chat_completion, lambda request: drained(peer.stream(request))):
        with pytest.raises(RateLimitError):
            ask(asked("fail", "gpt-x", max_tokens=5))


# --- what no peer here does -------------------------------------------------------------------------------------------


def test_gemini_asks_to_wait_in_the_body_only(fault: FaultServer) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "46s"}]
    body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota", "details": details}}
    fault.behave(faults.status(429, body=body))
    with pytest.raises(RateLimitError) as caught:
        create_provider("gemini", base_url=fault.base_url, api_key="k").chat_completion(asked("hi", "m"))
    assert caught.value.retry_after == 46.0


def test_a_blocked_prompt_is_a_content_filter(fault: FaultServer) -> None:
    fault.behave(faults.status(200, body={"promptFeedback": {"blockReason": "SAFETY"}}))
    with pytest.raises(ContentFilterError, match="blocked: SAFETY"):
        create_provider("gemini", base_url=fault.base_url, api_key="k").chat_completion(asked("hi", "m"))


def test_a_failed_response_is_its_error(fault: FaultServer) -> None:
    failed = {"id": "r", "status": "failed", "output": [], "error": {"code": "rate_limit_exceeded", "message": "slow"}}
    told = {"type": "response.failed", "response": failed}
    fault.behave(faults.status(200, body=failed), faults.sse(told))
    provider = create_provider("openai_responses", base_url=fault.base_url, api_key="k")
    for ask in (provider.chat_completion, lambda request: drained(provider.stream(request))):
        with pytest.raises(RateLimitError, match="slow"):
            ask(asked("hi", "m"))


def test_pictures_ollama_cannot_fetch_are_refused_before_anything_is_sent(fault: FaultServer) -> None:
    link = [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    with pytest.raises(BadRequestError, match="address"):
        create_provider("ollama", base_url=fault.base_url).chat_completion(
            ChatRequest([{"role": "user", "content": link}], "m")
        )
    assert fault.stats()["requests"] == 0
