"""Agent types that stand in the configuration: a mapping, a file, or a function that knows them.

    [agents.types.customer_support]
    instructions = "You are a helpful customer support agent."
    model = "gpt-4o-mini"
    tools = ["shop.tools:knowledge_base_search"]
    pool = { size = 10 }

Each row has the arguments of `Agent`, and as `pool` those of `AgentPool.register`. Tools are looked up when the first
agent is made, so that configuring imports nothing.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from perfkit._registry import load
from perfkit.agents.agent import Agent
from perfkit.errors import ConfigError, nearest

if TYPE_CHECKING:
    from perfkit._settings import AgentsSettings

__all__ = ["Source", "Types", "terms_of"]

Rows: TypeAlias = Callable[[str], Mapping[str, Any] | None]  # agent type to its row; None: there is no such type
Source: TypeAlias = Mapping[str, Any] | str | Path | Rows

_AGENT = ("name", "instructions", "model", "tools", "client", "max_rounds", "tool_timeout", "options")
_POOL = ("size", "min_idle", "max_waiting", "max_idle", "max_lifetime", "timeout", "nested", "leak_after")


class Types:
    """The rows a pool knows, from its settings and from `AgentPool.load_types`; what came last counts first."""

    def __init__(self) -> None:
        self._loaded: tuple[tuple[Rows, tuple[str, ...]], ...] = ()
        self._set: tuple[tuple[Rows, tuple[str, ...]], ...] = ()
        self._unread: str | None = None

    def load(self, source: Source) -> None:
        """Add a source; see `AgentPool.load_types`."""
        self._loaded = (_rows_of(source), *self._loaded)

    def configure(self, settings: AgentsSettings) -> None:
        """Take `types` and `types_from` of the settings; the latter is read when a type is asked for."""
        self._set = (_rows_of(settings.types),)
        self._unread = settings.types_from

    def forget(self) -> None:
        """Drop what was loaded; settings stay."""
        self._loaded = ()

    def _all(self) -> tuple[tuple[Rows, tuple[str, ...]], ...]:
        unread = self._unread
        if unread is not None:  # two threads may both read it, with the same result
            self._set, self._unread = (self._set[0], _rows_of(unread)), None
        return (*self._loaded, *self._set)

    def row(self, agent_type: str) -> Mapping[str, Any] | None:
        """Return the row of a type, None when nobody knows it."""
        found = (rows(agent_type) for rows, _ in self._all())
        return next((row for row in found if row is not None), None)

    def known(self) -> list[str]:
        """Return the types that can be named."""
        return [name for _, names in self._all() for name in names]


def _rows_of(source: Source) -> tuple[Rows, tuple[str, ...]]:
    """Return what finds the row of a type, and the types that are known beforehand.

    Args:
        source: rows by type, the path of a .toml or .json file that has them, a function from a type to its row or
            None, or "module:name" of one of these.

    Raises:
        ConfigError: a row or a file cannot be used.
        TypeError: it is none of these.
    """
    if isinstance(source, str) and re.fullmatch(r"[\w.]+:\w+", source):
        source = load(source)
    if isinstance(source, str | Path):
        source = _read(Path(source))
    if isinstance(source, Mapping):
        for agent_type, row in source.items():
            terms_of(agent_type, row)
        return source.get, tuple(source)
    if not callable(source):
        raise TypeError(f"agent types are a mapping, the path of a file or a function, not {source!r}")
    return source, ()


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read agent types from {path}: {error}", key=str(path)) from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold a table for each agent type", key=str(path))
    return found


def terms_of(agent_type: str, row: Any) -> dict[str, Any]:
    """Return the factory and the pool's settings that a row stands for.

    Raises:
        ConfigError: it is no mapping, or has an unknown key; the nearest known one is named.
    """
    where = f"agents.types.{agent_type}"
    given = _checked(where, row, (*_AGENT, "pool"))
    pool = _checked(f"{where}.pool", given.pop("pool", {}), _POOL)
    return {"factory": partial(Agent, **{"name": agent_type, **given}), **pool}


def _checked(where: str, row: Any, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise ConfigError(f"[{where}] must be a table of settings, not {type(row).__name__}", key=where)
    for key in row:
        if key not in known:
            raise ConfigError(
                f"unknown setting {where}.{key}; known: {', '.join(known)}{nearest(key, known)}", key=f"{where}.{key}"
            )
    return dict(row)
