from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from providers.asking import asked

from perfkit.errors import AuthenticationError, ConfigError, UnknownNameError
from perfkit.providers import PROVIDERS, Provider, create_provider
from perfkit.providers.http import HTTPProvider
from perfkit.providers.openai import OpenAIProvider
from perfkit.providers.presets import PRESETS
from perfkit.testing import FaultServer
from perfkit.values import ChatRequest, ChatResponse, Usage

KEY = "sk-1234567890abcdef"


OWN = {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/"}


@pytest.mark.parametrize("kind", sorted(PRESETS))
def test_every_preset_makes_a_provider_without_io(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, address in OWN.items():
        monkeypatch.setenv(variable, address)
    provider, preset = create_provider(kind), PRESETS[kind]
    assert isinstance(provider, HTTPProvider)
    assert (provider.name, provider.base_url) == (kind, preset.base_url or "https://mine.openai.azure.com/openai/v1")
    assert f"{type(provider).__module__}:{type(provider).__name__}" == preset.provider
    assert preset.is_local or provider.base_url.startswith("https://")


def test_a_customers_own_address_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="base_url of provider 'azure' is missing"):
        create_provider("azure")


@pytest.mark.parametrize(
    ("kind", "variable", "told", "base_url"),
    [
        ("azure", "AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com/openai/v1/", "https://mine.openai.azure.com/openai/v1"),
        ("gemini", "GOOGLE_GEMINI_BASE_URL", "https://proxy", "https://proxy/v1beta"),
        ("gemini", "GEMINI_BASE_URL", "https://proxy/v1", "https://proxy/v1"),
        ("ollama", "OLLAMA_HOST", "box:11434", "http://box:11434/api"),
        ("ollama", "OLLAMA_HOST", "http://box:11434", "http://box:11434/api"),
        ("openai_responses", "OPENAI_BASE_URL", "http://box/v1", "http://box/v1"),
    ],
)  # fmt: skip
def test_the_address_is_where_the_vendors_sdk_finds_it(
    kind: str, variable: str, told: str, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, told)
    assert f", {base_url})" in repr(create_provider(kind))


def test_azure_gets_its_own_header(fault: FaultServer) -> None:
    create_provider("azure", base_url=fault.base_url, api_key=KEY).chat_completion(asked())
    headers = fault.stats()["recent"][-1]["headers"]
    assert headers["api-key"] == KEY
    assert "authorization" not in headers


def test_nothing_is_retried_below_the_router() -> None:
    provider = create_provider("openai", api_key=KEY)
    assert isinstance(provider, HTTPProvider)
    assert provider._client.retries == 0


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no provider kind 'grok'; known: anthropic, .*did you mean 'groq'"):
        create_provider("grok")


def test_what_is_given_goes_over_the_preset() -> None:
    provider = create_provider(
        "groq", name="g", base_url="http://127.0.0.1:1/v1/", models=["a", "a"], max_tokens_field="n", timeout=3
    )
    assert isinstance(provider, OpenAIProvider)
    assert (provider.name, provider.base_url, provider.supported_models) == (
        "g",
        "http://127.0.0.1:1/v1",
        frozenset({"a"}),
    )
    assert (provider.options.max_tokens_field, provider.options.timeout) == ("n", 3)
    assert provider.options.key_variable == "GROQ_API_KEY"


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"max_token": 1}, "unknown setting 'max_token' in .providers.*known: timeout"),
        ({"timeout": 0}, "timeout must be a finite number above 0"),
        ({"timeout": "soon"}, "timeout"),
        ({"headers": "x"}, "headers"),
        ({"base_url": "nowhere"}, "base_url of provider"),
        ({"models": "gpt"}, "models of provider"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(kind: str, option: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_provider(kind, **option)


@pytest.mark.parametrize("kind", [kind for kind, preset in PRESETS.items() if not preset.is_local])
def test_a_call_that_has_no_key_names_the_variable_and_sends_nothing(kind: str) -> None:
    base_url = None if PRESETS[kind].base_url else "https://mine.openai.azure.com/openai/v1"
    provider = create_provider(kind, base_url=base_url, key_required=True)
    request = asked("hi")
    for call in (
        lambda: provider.chat_completion(request),
        lambda: next(provider.stream(request)),
        provider.list_models,
        provider.validate,
    ):
        with pytest.raises(AuthenticationError, match=f"{kind} has no key: set {PRESETS[kind].key_variable}"):
            call()


@pytest.mark.parametrize(
    ("base_url", "given", "field"),
    [
        ("https://api.openai.com/v1", None, "max_completion_tokens"),
        ("https://x.openai.azure.com/openai/v1", None, "max_completion_tokens"),
        ("http://127.0.0.1:1/v1", None, "max_tokens"),
        ("https://notopenai.com/v1", None, "max_tokens"),
        ("http://127.0.0.1:1/v1", "max_completion_tokens", "max_completion_tokens"),
    ],
)
def test_the_bound_of_the_answer_is_called_as_the_host_knows_it(base_url: str, given: str | None, field: str) -> None:
    options: dict[str, Any] = {"max_tokens_field": given} if given else {}
    provider = create_provider("openai", base_url=base_url, **options)
    assert isinstance(provider, OpenAIProvider)
    assert provider._payload(asked("hi", max_tokens=3), stream=False)[field] == 3


def test_mistral_is_not_asked_for_usage() -> None:
    provider = create_provider("mistral")
    assert isinstance(provider, OpenAIProvider)
    assert "stream_options" not in provider._payload(asked("hi"), stream=True)


class Parrot(Provider):
    def __init__(self, name: str, *, models: Any = None, **settings: Any) -> None:
        super().__init__(name, models=models)
        self.settings = settings

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        return ChatResponse("polly", Usage(1, 1), request.model, self.name)


def test_ones_own_kind_is_registered_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROVIDERS, "_entries", dict(PROVIDERS._entries))
    PROVIDERS.register("parrot", Parrot)
    provider = create_provider("parrot", models=("a",), colour="green")
    assert isinstance(provider, Parrot)
    assert provider.supported_models == frozenset({"a"})
    assert provider.settings["colour"] == "green"
    assert set(provider.settings) == {"base_url", "api_key", "connections", "tracker", "colour"}


def test_the_key_is_in_no_repr() -> None:
    provider = create_provider("openai", api_key=KEY, headers={"api-key": "other-secret-1"})
    shown = repr(provider) + repr(provider.__dict__) + repr(vars(provider._client))  # type: ignore[attr-defined]
    assert KEY not in shown
    assert "other-secret-1" not in shown


def test_importing_the_package_loads_no_http_and_making_a_provider_opens_nothing() -> None:
    code = """
import sys, socket, threading
def refuse(*a, **k): raise AssertionError("socket")
import perfkit.providers
assert "urllib3" not in sys.modules and "perfkit.transport" not in sys.modules
socket.socket.connect = socket.getaddrinfo = refuse
perfkit.providers.create_provider("openai", api_key="x" * 20)
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
