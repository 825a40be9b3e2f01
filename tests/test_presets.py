from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from _servers import environment

import perfkit
from perfkit import cli
from perfkit.config import Config
from perfkit.doctor.settings import settings as examined
from perfkit.errors import ConfigError
from perfkit.presets import PRESETS
from perfkit.testing import FaultServer, faults


def told(config: Config, setting: str) -> tuple[object, str]:
    [row] = [row for row in config.explain() if row["setting"] == setting]
    return row["value"], row["source"]


PROMPTS_AS_THEY_ARE = {"tokens.layout": False, "tokens.compress": False}
SETS: dict[str, dict[str, Any]] = {
    "production": {  # the guide's numbers
        "gc.workload": "high_throughput",
        "gc.compaction": True,
        "agents.warm_up": {"customer_support": 10, "data_analyst": 5},
        "providers.openai_primary.kind": "openai_responses",
        "providers.openai_primary.weight": 3.0,
        "providers.openai_primary.priority": 1,
        "providers.anthropic_backup.kind": "anthropic",
        "providers.anthropic_backup.weight": 1.0,
        "providers.anthropic_backup.priority": 2,
        "router.strategy": "priority",
        "router.warm_up": 1,
        "cache.ttl": 3600.0,
        "cache.max_bytes": 500 * 2**20,
        "client.budget_per_request": 0.01,
        "client.prefer_fast_models": True,
        "tokens.detect": True,
        "web.request_budget": 0.01,
        "web.collect_garbage": True,
        **PROMPTS_AS_THEY_ARE,
    },
    "development": {  # the guide: profiling and detailed logging
        "metrics.detailed_logging": True,
        "metrics.flush_interval": 1.0,
        "profiler.slow_capture": "on",
        "router.timeout": 60.0,
        "router.open_seconds": 5.0,
        "tokens.detect": True,
        **PROMPTS_AS_THEY_ARE,
    },
    "testing": {
        "cache.policy": "never",
        "router.timeout": 10.0,
        "router.open_seconds": 0.1,
        "tokens.detect": False,
        "alerts.defaults": False,
        "profiler.slow_capture": "off",
        **PROMPTS_AS_THEY_ARE,
    },
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_this_and_nothing_else(name: str) -> None:
    rows = Config({"app": {"preset": name}}, environ={}).explain()
    assert {row["setting"]: row["value"] for row in rows if row["source"] == "preset"} == SETS[name]


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


def production(fault: FaultServer, **client: Any) -> None:
    """Configure the preset with its own providers, the fault server in the primary's place."""
    here: dict[str, Any] = {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}
    perfkit.configure(
        app={"preset": "production"},
        providers={"openai_primary": here, "anthropic_backup": {"base_url": fault.root_url, "api_key": "k"}},
        client={"default_model": "gpt-4o", **client},
    )


def test_in_production_simple_questions_go_to_the_fast_model_that_is_named(
    fault: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    production(fault, fast_model="gpt-4o-mini")
    asked = ["What is HTTP?", "Compare HTTP with gRPC in detail, and explain when to choose which of them."]
    assert [perfkit.chat(one).model for one in asked] == ["gpt-4o-mini", "gpt-4o"]
    assert not caplog.records


def test_a_preference_without_a_fast_model_is_told_of(
    fault: FaultServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    production(fault)
    assert [perfkit.chat("What is HTTP?").model for _ in "12"] == ["gpt-4o"] * 2
    [said] = [record.getMessage() for record in caplog.records if record.name == "perfkit.client"]
    assert "client.prefer_fast_models does nothing: client.fast_model names no model" in said
    assert cli.main(["config", "show"]) == 0
    assert said in capsys.readouterr().err
    assert [(found.level, found.found) for found in examined()] == [("warning", said)]
    perfkit.configure(client={"fast_model": "gpt-4o-mini"})
    assert [found.level for found in examined()] == ["ok"]


def test_the_doctor_tells_of_settings_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFKIT_CACHE__TLL", "60")
    monkeypatch.setattr("perfkit._shared._state.config", None)
    [found] = examined()
    assert (found.level, "did you mean 'ttl'" in found.found) == ("problem", True)


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
    perfkit.configure(app={"preset": "production"}, client={"fast_model": "m"}, gc=off, router={"warm_up": 0})
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
