from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from providers.asking import asked

from perfkit.errors import BadRequestError
from perfkit.providers import create_provider
from perfkit.values import ChatRequest

if TYPE_CHECKING:
    from perfkit.testing.faults import FaultServer


UNWRITABLE = [
    ("openai", asked(extra={"x": object()}), "object values cannot be written as JSON"),
    ("openai", asked(extra={"x": float("nan")}), "Out of range float"),
    ("openai", asked([{"role": "user", "content": "x", "when": {1, 2}}]), "set values cannot"),
    ("anthropic", asked([{"role": "tool", "content": "7"}]), "no 'tool_call_id'"),
    ("anthropic", asked(response_format={"type": "json_object"}), "json_object"),
]


@pytest.mark.parametrize(("kind", "request_", "words"), UNWRITABLE)
def test_what_cannot_be_written_is_refused_before_anything_is_sent(
    fault: FaultServer, kind: str, request_: ChatRequest, words: str
) -> None:
    provider = create_provider(kind, base_url=fault.base_url)
    for call in (
        lambda: provider.chat_completion(request_),
        lambda: next(provider.stream(request_)),
    ):
        with pytest.raises(BadRequestError, match=words) as caught:
            call()
        assert (caught.value.provider, caught.value.model) == (kind, "m")
    assert fault.stats()["requests"] == 0


def test_mappings_that_are_no_dicts_are_written(fault: FaultServer) -> None:
    message = MappingProxyType({"role": "user", "content": "read-only"})
    provider = create_provider("openai", base_url=fault.base_url)
    assert provider.chat_completion(asked([message])).text == "echo: read-only"


def test_headers_go_with_every_request_and_over_those_of_the_format(fault: FaultServer) -> None:
    headers = {"X-Title": "my app", "anthropic-version": "2023-06-01", "anthropic-beta": "x"}
    provider = create_provider("anthropic", base_url=fault.base_url, headers=headers)
    provider.chat_completion(asked())
    provider.list_models()
    for sent in fault.stats()["recent"]:
        assert {name.lower(): text for name, text in headers.items()}.items() <= sent["headers"].items()
        assert "x-api-key" not in sent["headers"]


def test_bodies_are_compressed_on_request_only(fault: FaultServer) -> None:
    for compress in (False, True):
        provider = create_provider("openai", base_url=fault.base_url, compress_requests=compress)
        provider.list_models()
        try:
            provider.chat_completion(asked("word " * 1000))
        except BadRequestError:
            assert compress  # this server reads no compressed bodies
        assert ("content-encoding" in fault.stats()["recent"][-1]["headers"]) is compress


def test_the_version_of_anthropics_api_is_sent(fault: FaultServer) -> None:
    create_provider("anthropic", base_url=fault.base_url).chat_completion(asked())
    assert fault.stats()["recent"][-1]["headers"]["anthropic-version"] == "2026-10-21"
    create_provider("anthropic", base_url=fault.base_url, version="2023-06-01", max_tokens=7).chat_completion(asked())
    sent = fault.stats()["recent"][-1]
    assert sent["headers"]["anthropic-version"] == "2023-06-01"
    assert '"max_tokens":7' in sent["body"]
