"""Which models a provider offers, and what it calls them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import perfkit
from perfkit.errors import ConfigError, UnknownModelError
from perfkit.providers import create_provider

if TYPE_CHECKING:
    from perfkit.testing import FaultServer


@pytest.mark.parametrize(
    ("kind", "own", "foreign"),
    [("openai", "gpt-5-mini", "claude-haiku-4-5"), ("anthropic", "claude-haiku-4-5", "gpt-5-mini")],
)
def test_a_vendor_is_asked_for_its_own_models_only(kind: str, own: str, foreign: str) -> None:
    vendor = create_provider(kind, api_key="k")
    assert vendor.offers(own)
    assert not vendor.offers(foreign)
    elsewhere = create_provider(kind, base_url="http://127.0.0.1:9/v1")
    assert elsewhere.offers(foreign)


def test_listed_models_are_all_there_are() -> None:
    vendor = create_provider("openai", api_key="k", models=["mine"])
    assert (vendor.offers("mine"), vendor.offers("gpt-5")) == (True, False)


def test_one_word_means_the_like_model_of_each_vendor(fault: FaultServer) -> None:
    perfkit.configure(
        providers={
            "one": {"kind": "openai", "base_url": fault.base_url, "models": {"fast": "gpt-5-mini"}, "priority": 1},
            "two": {
                "kind": "anthropic",
                "base_url": fault.base_url,
                "models": {"fast": "claude-haiku-4-5"},
                "priority": 2,
            },
        },
        router={"strategy": "priority"},
    )
    perfkit.chat("hi", model="fast")
    perfkit.chat("hi", model="fast", provider="two")
    "".join(perfkit.stream("hi", model="fast"))
    asked = [json.loads(request["body"])["model"] for request in fault.stats()["recent"]]
    assert asked == ["gpt-5-mini", "claude-haiku-4-5", "gpt-5-mini"]
    with pytest.raises(UnknownModelError, match="offered: fast"):
        perfkit.chat("hi", model="gpt-5-mini")


def test_the_router_leaves_vendors_out_that_do_not_have_the_model() -> None:
    perfkit.configure(providers={"openai": {"api_key": "k"}, "anthropic": {"api_key": "k"}})
    assert perfkit.router.route_request({"model": "claude-haiku-4-5"}) == "anthropic"
    assert perfkit.router.route_request({"model": "gpt-5-mini"}) == "openai"
    with pytest.raises(UnknownModelError):
        perfkit.router.route_request({"model": "llama-3"})


def test_the_address_may_come_from_the_environment_as_for_the_vendors_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9/v1" in repr(create_provider("openai"))
    assert "http://127.0.0.1:9/v1" in repr(create_provider("anthropic"))
    assert "http://127.0.0.1:8/v1" in repr(create_provider("openai", base_url="http://127.0.0.1:8/v1"))


@pytest.mark.parametrize("models", ["tiny", 3, ["tiny", ""], {"fast": ""}, {"fast": 3}])
def test_models_that_are_no_names_are_refused(models: object) -> None:
    with pytest.raises(ConfigError, match="models"):
        create_provider("openai", api_key="k", models=models)  # type: ignore[arg-type]
