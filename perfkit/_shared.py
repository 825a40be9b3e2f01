"""Shared instances: each of the big classes has one per process, and as many private ones as you construct.

`Cls.instance()` always returns the same object; `configure()` and `reset()` change it in place, so that a reference
imported anywhere stays good for the life of the process.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

from perfkit import _process
from perfkit.config import NAMED_TABLES, TABLES, Config, build, from_file, merged

__all__ = ["Shared", "configure", "current_config", "reset", "start_over"]


class _State:
    """The shared objects and the configuration they were made from."""

    def __init__(self) -> None:
        self.objects: dict[type[Shared], Shared] = {}
        self.config: Config | None = None
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self.lock = threading.RLock()  # guards objects and config; re-entrant: making one object may make another


_state = _State()


class Shared(ABC):
    """A configurable class with one shared instance a process.

    Subclasses name their configuration table and take its keys as keyword arguments; `_apply` is called with valid
    settings at construction and at every later change, and `reset` forgets all state in place.
    """

    _table: ClassVar[str]
    settings: Any

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.settings = build(TABLES[self._table], given, where=self._table)
        _process.bind(self)

    @classmethod
    def instance(cls) -> Self:
        """Return the process's shared instance, made on first use from the configuration."""
        found = _state.objects.get(cls)
        if found is None:
            with _state.lock:
                found = _state.objects.get(cls)
                if found is None:
                    config = current_config()
                    found = cls(**config.given(cls._table))
                    found._configured(config)
                    _state.objects[cls] = found  # last: other threads look without the lock
        return found  # type: ignore[return-value]

    def configure(self, **settings: Any) -> None:
        """Change settings in place; those not given stay as they are.

        Raises:
            ConfigError: a name or value is wrong; nothing has changed then.
        """
        _process.check()
        current = asdict(self.settings)
        self.settings = build(TABLES[self._table], {**current, **settings}, where=self._table)
        self._apply()

    def _configured(self, config: Config) -> None:  # noqa: B027 - most classes have one table only
        """Take what further tables of the configuration say to this shared instance."""

    @abstractmethod
    def _apply(self) -> None:
        """Make `self.settings` effective; called at every change."""

    @abstractmethod
    def _after_fork(self) -> None:
        """Make locks new and drop what belongs to the parent; idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Flush and let go of threads and sockets; the instance may be used again afterwards."""

    @abstractmethod
    def reset(self) -> None:
        """Close and forget all state, in place; settings stay."""


def current_config() -> Config:
    """Return the active configuration, read from file and environment on first use."""
    config = _state.config  # replaced as a whole, so that no lock is needed, which a bare fork may have left locked
    if config is not None:
        return config
    _process.check()
    with _state.lock:
        if _state.config is None:
            _state.config = Config()
        return _state.config


def configure(
    mapping_or_path: Mapping[str, Any] | str | Path | None = None, **tables: Mapping[str, Any] | None
) -> None:
    """Set the configuration of all shared instances, in place; may be called again, and changes only what it names.

    Args:
        mapping_or_path: tables by name, or the path of a TOML file that takes the place of ./perfkit.toml.
        **tables: single tables, for example `cache={"ttl": 60}`; they win over `mapping_or_path`.

    Raises:
        ConfigError: an unknown table or key (the nearest known one is named) or a bad value; nothing has changed then.
    """
    _process.check()
    with _state.lock:
        before = _state.config
        arguments = dict(before.arguments) if before is not None else {}
        file = before.file if before is not None else None
        if isinstance(mapping_or_path, str | Path):
            file = from_file(Path(mapping_or_path))
        elif isinstance(mapping_or_path, Mapping):
            arguments = merged(arguments, mapping_or_path)
        elif mapping_or_path is not None:
            kind = type(mapping_or_path).__name__  # type: ignore[unreachable]
            raise TypeError(f"configure() takes a mapping of tables or the path of a TOML file, not {kind}")
        _state.config = config = Config(merged(arguments, tables), file=file)
        try:
            _spread(config, before)
        except Exception:
            _state.config = before
            if before is not None:
                _spread(before, config)
            raise


def _spread(config: Config, before: Config | None) -> None:
    """Tell the shared instances what differs from `before`, and nothing else: they may have been set by hand since."""
    for cls, shared in list(_state.objects.items()):
        settings = asdict(config.table(cls._table))
        old = asdict(before.table(cls._table)) if before is not None else {}
        changed = {key: value for key, value in settings.items() if key not in old or old[key] != value}
        if changed:
            shared.configure(**changed)
        if before is None or any(config.named(table) != before.named(table) for table in NAMED_TABLES):
            shared._configured(config)  # noqa: SLF001 - the framework calls its own hook


def reset() -> None:
    """Close and forget every shared instance's state and the configuration, in place: for tests and reloads."""
    start_over(None)


def start_over(config: Config | None) -> None:
    """Forget every shared instance's state and go on with `config`; None reads file and environment anew."""
    _process.check()
    with _state.lock:
        _state.config = config
        shared_objects = list(_state.objects.values())
    for shared in shared_objects:
        shared.reset()
    _spread(current_config(), None)
