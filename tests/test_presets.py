from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from _servers import environment

import perfkit
from perfkit.config import Config
from perfkit.errors import ConfigError
from perfkit.presets import PRESETS
from perfkit.testing import FaultServer, faults


def told(config: Config, setting: str) -> tuple[object, str]:
    [row] = [row for row in config.explain() if row["setting"] == setting]
    return row["value"], row["source"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid(name: str) -> None:
    Config({"app": {"preset": name}}, environ={})


def test_production_has_the_numbers_of_the_guide() -> None:
    config = Config({"app": {"preset": "production"}}, environ={})
    assert config.table("agents").warm_up == {"customer_support": 10, "data_analyst": 5}
    providers = config.named("providers")
    assert [(p.kind, p.weight, p.priority) for p in providers.values()] == [
        ("openai_responses", 3, 1),
        ("anthropic", 1, 2),
    ]
    assert (config.table("cache").ttl, config.table("cache").max_bytes) == (3600, 500 * 2**20)
    assert config.table("client").budget_per_request == config.table("web").request_budget == 0.01
    assert config.table("client").prefer_fast_models
    assert (config.table("gc").workload, config.table("gc").compaction) == ("high_throughput", True)


def test_all_that_is_set_elsewhere_stands_above_the_preset() -> None:
    config = Config(
        {"app": {"preset": "production"}},
        file={"cache": {"ttl": 60}},
        environ={"PERFKIT_CLIENT__BUDGET_PER_REQUEST": "1"},
    )
    assert told(config, "cache.ttl") == (60.0, "file")
    assert told(config, "client.budget_per_request") == (1.0, "environment")
    assert told(config, "cache.max_bytes") == (500 * 2**20, "preset")
    assert told(config, "cache.policy") == ("smart", "default")


def test_providers_of_a_preset_count_only_where_none_are_named() -> None:
    config = Config({"app": {"preset": "production"}, "providers": {"mine": {"kind": "groq"}}}, environ={})
    assert list(config.named("providers")) == ["mine"]


def test_what_a_preset_limits_can_be_unlimited() -> None:
    config = Config(
        {"app": {"preset": "production"}, "client": {"budget_per_request": None}},
        file={"gc": {"workload": "none"}},
        environ={"PERFKIT_WEB__REQUEST_BUDGET": "none"},
    )
    off = (config.table("client").budget_per_request, config.table("gc").workload, config.table("web").request_budget)
    assert off == (None, None, None)


def test_what_is_said_of_a_provider_of_a_preset_completes_it() -> None:
    given = {"openai_primary": {"base_url": "http://127.0.0.1:1/v1"}}
    config = Config({"app": {"preset": "production"}, "providers": given}, environ={})
    assert told(config, "providers.openai_primary.base_url") == ("http://127.0.0.1:1/v1", "argument")
    assert told(config, "providers.openai_primary.kind") == ("openai_responses", "preset")
    assert list(config.named("providers")) == ["openai_primary", "anthropic_backup"]
    both = Config({"app": {"preset": "production"}, "providers": {**given, "mine": {"kind": "groq"}}}, environ={})
    assert told(both, "providers.openai_primary.kind") == ("openai_responses", "preset")
    assert sorted(both.named("providers")) == ["mine", "openai_primary"]


def test_in_production_the_primary_answers_and_the_backup_where_it_fails(fault: FaultServer) -> None:
    with FaultServer() as spare:
        rows = {"openai_primary": fault.base_url, "anthropic_backup": spare.base_url}
        perfkit.configure(
            app={"preset": "production"},
            providers={name: {"kind": "openai", "base_url": url, "api_key": "k"} for name, url in rows.items()},
            tokens={"fallback_price": {"input": 1.0, "output": 1.0}},
        )
        spare.behave(faults.status(500))  # whoever asks the backup in vain, is seen
        assert {perfkit.chat(f"q {n}", model="m").provider for n in range(20)} == {"openai_primary"}
        assert spare.stats()["requests"] == 0
        spare.reset()
        fault.behave(faults.status(500))
        assert perfkit.chat("q", model="m").provider == "anthropic_backup"


def test_an_environment_variable_chooses_the_preset() -> None:
    assert Config({}, environ={"PERFKIT_APP__PRESET": "testing"}).table("cache").policy == "never"


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'production'"):
        Config({"app": {"preset": "prodution"}}, environ={})


def test_simple_questions_without_a_model_go_to_the_fast_one(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        client={"default_model": "big", "fast_model": "small", "prefer_fast_models": True},
    )
    long = " ".join(["word"] * 20)
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "so"},
    ]
    asked: list[Any] = ["What is HTTP?", [{"role": "user", "content": "What is HTTP?"}], long, "Explain HTTP", turns]
    assert [perfkit.chat(one).model for one in asked] == ["small", "small", "big", "big", "big"]
    assert perfkit.chat("What is HTTP?", model="big").model == "big"


def test_a_call_may_cost_what_the_configuration_says(fault: FaultServer) -> None:
    perfkit.configure(
        providers={"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        client={"default_model": "m", "budget_per_request": 0.01},
        tokens={"fallback_price": {"input": 1e6, "output": 1e6}},
    )
    with pytest.raises(perfkit.BudgetExceededError):
        perfkit.chat("hi")
    assert perfkit.chat("hi", budget=1000.0).text == "echo: hi"
    assert fault.stats()["requests"] == 1


def test_preparation_fills_pools_and_sets_the_collector_and_survives_what_fails() -> None:
    code = """
import gc, perfkit, threading
perfkit.configure(agents={"warm_up": {"ready": 2, "unknown": 1}}, gc={"workload": "low_latency"})
perfkit.agent_pool.register("ready", list, size=3)
assert gc.get_freeze_count() == 0 and threading.active_count() == 1
done = perfkit.prepare()
assert done["agents.ready"] == 2 and done["gc.workload"] == "low_latency", done
assert isinstance(done["agents.unknown"], KeyError)
assert gc.get_freeze_count() > 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_only_agents_asked_for_by_yourself_are_missed(caplog: pytest.LogCaptureFixture) -> None:
    off: dict[str, Any] = {"workload": None, "compaction": False}  # as any test, it shares its process
    perfkit.configure(app={"preset": "production"}, gc=off, router={"warm_up": 0})
    perfkit.agent_pool.register("data_analyst", list, size=5)
    done = perfkit.prepare()
    assert (len(done), done["agents.data_analyst"]) == (2, 5)
    assert isinstance(done["agents.customer_support"], KeyError)
    assert not caplog.records
    perfkit.configure(agents={"warm_up": {"customer_support": 1}})
    perfkit.prepare()
    assert "no agent type 'customer_support'" in caplog.text


def test_the_first_request_prepares_the_process_once() -> None:
    from perfkit.startup import _once, prepare_beside

    made: list[int] = []
    finished = threading.Event()

    def make() -> object:
        made.append(1)
        finished.set()
        return object()

    perfkit.agent_pool.register("slow", make, size=1)
    perfkit.configure(agents={"warm_up": {"slow": 1}})
    _once._after_fork()
    for _ in range(5):
        prepare_beside()
    assert finished.wait(10)
    assert made == [1]
