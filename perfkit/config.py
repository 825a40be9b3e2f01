"""The layers settings come from.

A setting is an argument of `configure()`, else a `PERFKIT_<TABLE>__<KEY>` variable, else a line of perfkit.toml (or of
[tool.perfkit] in pyproject.toml) in the working directory, else one of the preset that `[app] preset` names, else the
default written in perfkit._settings, which all of them are checked against.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from perfkit._settings import NAMED_TABLES, TABLES
from perfkit.errors import ConfigError, nearest
from perfkit.presets import PRESETS, preset
from perfkit.values import finite

__all__ = ["NAMED_TABLES", "TABLES", "Config", "build", "merged"]

S = TypeVar("S")
PREFIX = "PERFKIT_"
_SECRET = re.compile(
    r"(.*[_-])?(key|secret|password)|((api|access|auth)[_-])?token|authorization|headers|proxy|webhook", re.IGNORECASE
)
_USERINFO = re.compile(r"://\S*@|\?\S*")  # of addresses: user and password, and what may be a key after them


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def build(cls: type[S], values: Mapping[str, Any], *, where: str = "") -> S:
    """Return settings of `cls` from `values`, each checked and, when it is text from the environment, converted.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a missing one, a wrong type or a value out of bounds.
    """
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    unknown = next((key for key in values if key not in known), None)
    if unknown is not None:
        where_in = f" in [{where}]" if where else ""
        raise ConfigError(
            f"unknown setting {unknown!r}{where_in}; known: {', '.join(known)}{nearest(unknown, known)}",
            key=str(unknown),
        )
    missing = [k for k, f in known.items() if f.default is MISSING and f.default_factory is MISSING and k not in values]
    if missing:
        raise ConfigError(f"[{where}] needs {missing[0]!r}", key=missing[0])
    hints = _hints(typing.cast("Any", cls))
    checked = {key: _checked(_name(where, key), v, hints[key], known[key].metadata) for key, v in values.items()}
    return cls(**checked)


def _name(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _checked(name: str, value: Any, hint: Any, bounds: Mapping[str, Any]) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in kinds and (value is None or (value == "none" and (str not in kinds or bounds.get("none")))):
        return None
    kinds = tuple(typing.get_origin(kind) or kind for kind in kinds)
    kind = kinds[0]
    try:
        value = _as_container(value, kinds) if kind in (tuple, Mapping) else _as_kind(value, kind)
        if kind in (int, float):
            finite(name, value, above=bounds.get("above"), least=bounds.get("least"))
    except (TypeError, ValueError) as error:
        wanted = "" if name in str(error) else f"{name} must be {_spoken(kind)}: "
        raise ConfigError(f"{wanted}{error}", key=name) from None
    choices = bounds.get("choices")
    if choices and value not in choices:
        raise ConfigError(
            f"{name} must be one of {', '.join(choices)}, not {value!r}{nearest(value, choices)}", key=name
        )
    return value


def _spoken(kind: type[Any]) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "a table or list")


_SWITCHES = {**dict.fromkeys(("1", "true", "yes", "on"), True), **dict.fromkeys(("0", "false", "no", "off"), False)}


def _as_kind(value: Any, kind: type[Any]) -> Any:
    """Return `value` as `kind`; text is parsed, everything else must fit already."""
    if kind in (int, float) and not isinstance(value, str):
        return finite("value", value) if kind is float or isinstance(value, int) else _refuse(value)
    if kind in (int, float):
        return kind(value)
    if kind is bool:
        word = str(value).lower()
        return _SWITCHES[word] if word in _SWITCHES else _refuse(value)
    if isinstance(value, Path):  # BASE_DIR / "metrics"
        return str(value)
    return value if isinstance(value, str) else _refuse(type(value))  # the value may be a key


def _as_container(value: Any, kinds: tuple[Any, ...]) -> Any:
    parsed = json.loads(value) if isinstance(value, str) else value
    if isinstance(parsed, Mapping) and Mapping in kinds:
        return dict(parsed)
    return tuple(parsed) if isinstance(parsed, list | tuple) and tuple in kinds else _refuse(value)


def _refuse(value: Any) -> Any:
    raise ValueError(f"got {value!r}")


def from_environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return tables set by `PERFKIT_<TABLE>__<KEY>` or `PERFKIT_PROVIDERS__<NAME>__<KEY>`; other names are ignored.

    Raises:
        ConfigError: a variable is a setting but for its second underscore.
    """
    tables: dict[str, dict[str, Any]] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        if "__" not in variable:
            _refuse_nearly(variable)
            continue
        table, *path = variable.removeprefix(PREFIX).lower().split("__")
        if table in NAMED_TABLES and len(path) > 1:
            tables.setdefault(table, {}).setdefault(path[0], {})[path[1]] = value
        else:
            tables.setdefault(table, {})[path[0]] = value
    return tables


def _refuse_nearly(variable: str) -> None:
    table, _, key = variable.removeprefix(PREFIX).lower().partition("_")
    if table in TABLES and key in {f.name for f in fields(TABLES[table])}:
        meant = f"{PREFIX}{table}__{key}".upper()
        raise ConfigError(f"unknown variable {variable}; did you mean {meant}?", key=variable)


def from_file(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; of pyproject.toml only [tool.perfkit].

    Raises:
        ConfigError: it cannot be read or is not TOML.
    """
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", key=str(path)) from error
    if path.name == "pyproject.toml":
        data = data.get("tool", {}).get("perfkit", {})
    return data


def find_file(directory: Path) -> dict[str, Any]:
    """Return the tables of perfkit.toml or pyproject.toml in `directory`, or nothing."""
    for name in ("perfkit.toml", "pyproject.toml"):
        if (directory / name).is_file():
            return from_file(directory / name)
    return {}


class Config:
    """The layers merged: every table valid, or a ConfigError and nothing changed.

    Args:
        arguments: tables given to `configure()`.
        file: tables of a file; None looks into the working directory.
        environ: None means this process's environment.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any] | None = None,
        *,
        file: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.arguments = merged({}, arguments if arguments is not None else {})
        self.file = find_file(Path()) if file is None else file
        self._environment = from_environment(os.environ if environ is None else environ)
        given = merged(merged(merged({}, self.file), self._environment), self.arguments)
        name = given.get("app", {}).get("preset")
        self._preset = _below(preset(name), given) if name is not None else {}
        self._raw = merged(self._preset, given)
        self._settings = {name: build(cls, self._raw.get(name, {}), where=name) for name, cls in TABLES.items()}
        self._named = {name: self._build_named(name, cls) for name, cls in NAMED_TABLES.items()}

    def _build_named(self, table: str, cls: type[Any]) -> dict[str, Any]:
        rows = self._raw.get(table, {})
        for name, row in rows.items():
            if not isinstance(row, Mapping):
                kind = type(row).__name__  # its text may be a key that was put one level too high
                raise ConfigError(f"[{table}.{name}] must be a table of settings, not {kind}", key=f"{table}.{name}")
        return {name: build(cls, row, where=f"{table}.{name}") for name, row in rows.items()}

    def table(self, name: str) -> Any:
        """Return the settings of a table, for example `CacheSettings` of "cache"."""
        return self._settings[name]

    def named(self, name: str) -> dict[str, Any]:
        """Return the rows of "providers" or "routes" by name."""
        return self._named[name]

    def given(self, name: str) -> dict[str, Any]:
        """Return the raw values of a table that are set anywhere, without defaults."""
        return dict(self._raw.get(name, {}))

    def explain(self) -> list[dict[str, Any]]:
        """Return every setting with its value and source (argument, environment, file, preset, default); no secrets."""
        rows = []
        for table, settings in self._settings.items():
            rows += self._rows(table, settings, lambda layer, table=table: layer.get(table, {}))
        for table, named in self._named.items():
            for name, settings in named.items():
                rows += self._rows(
                    f"{table}.{name}", settings, lambda layer, t=table, n=name: layer.get(t, {}).get(n, {})
                )
        return rows

    def _rows(self, where: str, settings: Any, part: Any) -> list[dict[str, Any]]:
        names = ("argument", "environment", "file", "preset")
        layers = list(zip(names, (self.arguments, self._environment, self.file, self._preset), strict=True))
        rows = []
        for f in fields(settings):
            source = next((name for name, layer in layers if f.name in part(layer)), "default")
            value = getattr(settings, f.name)
            shown = _masked({f.name: value})[f.name]
            rows.append({"setting": f"{where}.{f.name}", "value": shown, "source": source})
        return rows


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return tables of `below` with those of `above` laid over, key by key, and in named tables row by row.

    A table of None leaves unchanged; so does a value of None, unless it turns off what is on by default or in a preset.

    Raises:
        ConfigError: an unknown table, or one that is no table.
    """
    result = {name: dict(table) for name, table in below.items()}
    for name, table in above.items():
        if table is None:
            continue
        if name not in TABLES and name not in NAMED_TABLES:
            known = (*TABLES, *NAMED_TABLES)
            raise ConfigError(f"unknown table {name!r}; known: {', '.join(known)}{nearest(name, known)}", key=name)
        if not isinstance(table, Mapping):
            such = " such as {'openai': {}}" if name == "providers" else ""
            raise ConfigError(f"[{name}] must be a table of settings{such}, not {type(table).__name__}", key=name)
        given = {key: value for key, value in table.items() if value is not None or _turns_off(name, key)}
        old = result.setdefault(name, {})
        old.update(_rows_over(old, given) if name in NAMED_TABLES else given)
    return result


def _turns_off(table: str, key: str) -> bool:
    """Whether None is a value of a setting that is on by default or in a preset."""
    cls: Any = TABLES.get(table)
    default = None if cls is None else next((f.default for f in fields(cls) if f.name == key), None)
    preset_too = cls is not None and any(key in preset(name).get(table, {}) for name in PRESETS)
    return (default is not None or preset_too) and type(None) in typing.get_args(_hints(cls).get(key))


def _rows_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {**below[name], **row} if isinstance(row, Mapping) and isinstance(below.get(name), Mapping) else row
        for name, row in above.items()
    }


def _below(tables: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a preset, of its named rows only those that are given too, where others are given."""

    def kept(name: str, rows: Mapping[str, Any]) -> Mapping[str, Any]:
        own = given.get(name, {})
        others = name in NAMED_TABLES and own.keys() - rows.keys()
        return {row: rows[row] for row in rows if row in own} if others else rows

    return {name: kept(name, rows) for name, rows in tables.items()}


def _starred(found: re.Match[str]) -> str:
    return "?***" if found[0][0] == "?" else "://***@"


def _masked(value: Any) -> Any:
    """Return a setting as it may be shown: what can hold a secret is hidden, at any depth."""
    if isinstance(value, Mapping):
        return {key: "***" if _SECRET.fullmatch(str(key)) and inner else _masked(inner) for key, inner in value.items()}
    if isinstance(value, str):
        return _USERINFO.sub(_starred, value) if "://" in value else value
    return [_masked(inner) for inner in value] if isinstance(value, list | tuple) else value
