"""Agent types from a mapping, a file or a function, as RAAF loads them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

import perfkit
from perfkit.agents import Agent, AgentPool
from perfkit.errors import ConfigError, UnknownNameError

ROW: dict[str, Any] = {
    "instructions": "Be brief.",
    "model": "tiny",
    "tools": ["os.path:basename"],
    "pool": {"size": 2, "timeout": 0.1},
}
TOML = """
[support]
instructions = "Be brief."
model = "tiny"
tools = ["os.path:basename"]
pool = { size = 2, timeout = 0.1 }
"""


def lookup(agent_type: str) -> dict[str, Any] | None:
    return ROW if agent_type == "support" else None


def the_support_of(pool: AgentPool) -> Agent:
    with pool.get_agent("support") as agent:
        assert isinstance(agent, Agent)
        return agent


@pytest.mark.parametrize("form", ["mapping", "toml", "json", "callable"])
def test_a_type_is_made_from_its_row(form: str, tmp_path: Path) -> None:
    (tmp_path / "types.toml").write_text(TOML)
    (tmp_path / "types.json").write_text(json.dumps({"support": ROW}))
    source: Any = {
        "mapping": {"support": ROW},
        "toml": tmp_path / "types.toml",
        "json": str(tmp_path / "types.json"),
        "callable": lookup,
    }[form]
    pool = AgentPool()
    pool.load_types(source)
    agent = the_support_of(pool)
    assert (agent.name, agent.instructions, agent.model) == ("support", "Be brief.", "tiny")
    assert [tool.name for tool in agent.tools] == ["basename"]
    assert pool.stats()["support"]["size"] == 2
    with pytest.raises(UnknownNameError, match="no agent type 'suport'; known: support; did you mean 'support'"):
        pool.get_agent("suport")


@pytest.mark.parametrize("source", ["types.toml", "agents.test_configured:lookup"])
def test_the_shared_pool_reads_its_types_from_the_configuration(source: str, tmp_path: Path) -> None:
    (tmp_path / "types.toml").write_text(TOML)
    perfkit.configure(agents={"types_from": source, "warm_up": {"support": 2}})
    assert perfkit.prepare()["agents.support"] == 2
    assert the_support_of(perfkit.agent_pool).model == "tiny"


def test_a_table_of_the_configuration_file_is_a_type(tmp_path: Path) -> None:
    (tmp_path / "perfkit.toml").write_text(TOML.replace("[support]", "[agents.types.support]"))
    perfkit.reset()
    assert the_support_of(perfkit.agent_pool).instructions == "Be brief."


def test_a_changed_row_replaces_the_agents_of_its_type_and_no_other() -> None:
    rows = {"support": ROW, "other": {"model": "tiny"}}
    perfkit.configure(agents={"types": rows})
    first = the_support_of(perfkit.agent_pool)
    with perfkit.agent_pool.get_agent("other") as other:
        pass
    perfkit.configure(agents={"types": {**rows, "support": {**ROW, "model": "large"}}})
    assert the_support_of(perfkit.agent_pool) is not first
    assert the_support_of(perfkit.agent_pool).model == "large"
    with perfkit.agent_pool.get_agent("other") as again:
        assert again is other


def test_a_registered_type_goes_before_a_configured_one() -> None:
    pool = AgentPool(types={"support": ROW})
    pool.register("support", lambda: Agent("mine"))
    assert the_support_of(pool).name == "mine"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"modle": "tiny"}, "unknown setting agents.types.support.modle; .* did you mean 'model'"),
        ({"pool": {"sise": 3}}, "unknown setting agents.types.support.pool.sise; .* did you mean 'size'"),
        ("tiny", "must be a table of settings, not str"),
    ],
)
def test_a_wrong_row_is_refused_when_configured(row: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AgentPool(types={"support": row})
    with pytest.raises(ConfigError, match=message):
        AgentPool().load_types({"support": row})


def test_a_missing_file_is_told_when_a_type_is_asked_for() -> None:
    pool = AgentPool(types_from="nowhere.toml")
    with pytest.raises(ConfigError, match=r"cannot read agent types from nowhere\.toml"):
        pool.get_agent("support")


def test_what_holds_no_types_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="agent types are a mapping, the path of a file or a function, not 3"):
        AgentPool().load_types(3)  # type: ignore[arg-type]
    path = tmp_path / "types.json"
    path.write_text("[]")
    with pytest.raises(ConfigError, match="must hold a table for each agent type"):
        AgentPool().load_types(path)


def test_threads_that_ask_first_at_once_share_one_type() -> None:
    pool, together = AgentPool(), threading.Barrier(8)

    def slow(agent_type: str) -> dict[str, Any] | None:
        together.wait(20)
        return lookup(agent_type)

    pool.load_types(slow)
    loans = list(perfkit.agents.map_bounded(lambda _: pool.get_agent("support"), range(8), 8))
    assert len({id(loan.value._lender) for loan in loans if loan.value is not None}) == 1
