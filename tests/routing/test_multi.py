"""RecoAgent's configuration of several providers, and its documentation's code with another import."""

from __future__ import annotations

from typing import Any

import pytest

from perfkit.errors import ConfigError
from perfkit.providers.http import HTTPProvider
from perfkit.routing import ProviderFactory, ProviderRouter
from perfkit.routing.multi import MultiLLMConfig, ProviderConfig, plan_of
from perfkit.testing import FaultServer

DOCUMENTATION = """
from packages.llm import MultiLLMConfig, AnthropicConfig, GoogleConfig

# Complete configuration
config = MultiLLMConfig(
    primary_provider="openai",
    routing_strategy="cost",
    enable_fallback=True,
    fallback_providers=["anthropic", "google", "groq"],

    # Provider-specific configs
    anthropic=AnthropicConfig(
        api_key="your-anthropic-key",
        model="claude-3-opus-20240229",
        temperature=0.1,
        max_tokens=2000
    ),

    google=GoogleConfig(
        api_key="your-google-key",
        model="gemini-pro",
        temperature=0.1,
        max_tokens=2000
    ),

    # Cost limits
    cost_limit_per_provider={
        "openai": 0.10,
        "anthropic": 0.12,
        "google": 0.08,
        "groq": 0.05
    },

    # Timeout and retry
    timeout_seconds=30.0,
    max_retries=3
)
"""


def documented() -> Any:
    names: dict[str, Any] = {}
    exec(DOCUMENTATION.replace("packages.llm", "perfkit.routing"), names)
    return names["config"]


def test_the_documented_block_runs_with_the_import_changed_and_every_field_is_taken() -> None:
    router = ProviderFactory(documented()).router
    assert router.list_providers() == ("openai", "anthropic", "google", "groq")
    assert (router.strategy, router.settings.timeout, router.settings.max_attempts) == ("cost", 30.0, 3)
    assert router.settings.primary == "openai"
    anthropic, google = router.get_provider("anthropic"), router.get_provider("google")
    assert isinstance(anthropic, HTTPProvider)
    assert isinstance(google, HTTPProvider)
    assert (anthropic.options.temperature, anthropic.options.max_tokens) == (0.1, 2000)
    assert anthropic.own_name("default") == "claude-3-opus-20240229"
    assert (google.own_name("default"), google.base_url) == (
        "gemini-pro",
        "https://generativelanguage.googleapis.com/v1beta",
    )
    limits = {name: one.terms.cost_limit_per_request for name, one in router._candidates.items()}
    assert limits == {"openai": 0.10, "anthropic": 0.12, "google": 0.08, "groq": 0.05}
    assert [one.priority for one in router._candidates.values()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("strategy", "chosen"),
    [("cost", {"openai"}), ("quality", {"anthropic"}), ("manual", {"google"}), ("latency", None), (None, {"google"})],
)
def test_each_documented_strategy_chooses(strategy: str | None, chosen: set[str] | None) -> None:
    named = {"openai": "gpt-5-nano", "anthropic": "claude-opus-5", "groq": "llama-3.1-8b", "google": "gemini-2.5-pro"}
    config = MultiLLMConfig(
        routing_strategy=strategy,
        primary_provider="google",
        **{name: ProviderConfig(model=model) for name, model in named.items()},  # type: ignore[arg-type]
    )
    factory = ProviderFactory(config)
    assert factory.get_provider().name in (chosen or factory.list_providers())


def test_the_documented_loops_run() -> None:
    factory = ProviderFactory(documented())
    assert factory.get_best_quality_provider() == "anthropic"
    assert {factory.get_cheapest_provider(), factory.get_fastest_provider()} <= set(factory.list_providers())
    assert factory.get_provider_info("anthropic")["model"] == "claude-3-opus-20240229"
    assert {state["status"] for state in factory.health_check().values()} == {"healthy"}
    usage = {"input_tokens": 1000, "output_tokens": 1000}
    assert factory.get_request_cost("anthropic", usage) == pytest.approx(0.09)


def test_manual_switches_at_run_time() -> None:
    config = {"routing_strategy": "manual", "primary_provider": "anthropic", "fallback_providers": ["openai"]}
    router = ProviderRouter().from_config(config)
    assert router.route_request() == "anthropic"
    router.configure(primary="openai")
    assert router.route_request() == "openai"


def test_a_mapping_with_the_same_fields_does_as_well() -> None:
    told = {"primary_provider": "a", "providers": {"a": {"kind": "ollama", "model": "llama3", "temperature": 0}}}
    plan = plan_of(told)
    assert plan.settings == {"strategy": "priority", "timeout": 30.0, "max_attempts": 3, "primary": "a"}
    assert plan.providers == {
        "a": {
            "kind": "ollama",
            "api_key": None,
            "base_url": None,
            "models": {"llama3": "llama3", "default": "llama3"},
            "temperature": 0,
        }
    }


def test_fallback_can_be_switched_off_and_days_can_be_bounded() -> None:
    plan = plan_of(
        {"primary_provider": "groq", "enable_fallback": False, "daily_cost_limit_per_provider": {"groq": 20}}
    )
    assert plan.settings["max_attempts"] == 1
    assert plan.terms == {"groq": {"priority": 1, "cost_limit_per_day": 20}}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"primary": "x"}, "unknown config.primary; known: primary_provider.*did you mean 'primary_provider'"),
        ({"primary_provider": "openai", "openai": {"modle": "x"}}, "unknown config.openai.modle.*did you mean 'model'"),
        ({}, "names no provider"),
        (5, "must be a MultiLLMConfig"),
        ({"openai": 5}, "config.openai must be"),
    ],
)
def test_what_is_not_understood_is_named(config: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_of(config)


def test_a_key_is_in_no_repr() -> None:
    assert "sk-secret" not in repr(MultiLLMConfig(openai=ProviderConfig(api_key="sk-secret")))


def test_a_second_configuration_takes_the_place_of_the_first_and_leaves_the_rest() -> None:
    router = ProviderRouter()
    router.register_provider("mine", object_with_chat())
    router.from_config({"primary_provider": "openai", "fallback_providers": ["groq"]})
    kept = router.get_provider("groq")
    router.from_config({"primary_provider": "groq"})
    assert set(router.list_providers()) == {"mine", "groq"}
    assert router.get_provider("groq") is kept


def object_with_chat() -> Any:
    class Mine:
        def chat_completion(self, request: Any) -> Any:
            return None

    return Mine()


def test_perfkits_own_tables_are_read_too(tmp_path: Any, fault: FaultServer) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(
        '[router]\nstrategy = "priority"\nmax_attempts = 2\n'
        f'[providers.local]\nkind = "openai"\nbase_url = "{fault.base_url}"\nmodels = ["m"]\n'
    )
    router = ProviderRouter().from_config(file)
    assert (router.list_providers(), router.settings.max_attempts) == (("local",), 2)


def test_temperature_and_bound_go_with_requests_that_have_none(fault: FaultServer) -> None:
    import json

    from perfkit.values import ChatRequest

    section = {"kind": "openai", "base_url": fault.base_url, "model": "m", "temperature": 0.1, "max_tokens": 20}
    router = ProviderRouter().from_config({"primary_provider": "x", "providers": {"x": section}})
    request = ChatRequest("hi", "default")
    for asked in (request, request.evolve(temperature=0.9, max_tokens=5)):
        router.execute_with_fallback(asked)
    sent = [json.loads(one["body"]) for one in fault.stats()["recent"]]
    assert [(s["model"], s["temperature"], s["max_tokens"]) for s in sent] == [("m", 0.1, 20), ("m", 0.9, 5)]
