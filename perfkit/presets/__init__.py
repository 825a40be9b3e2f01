"""Presets: settings for production, development and testing as TOML to be read, below all that is set elsewhere."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from perfkit.errors import ConfigError, nearest

__all__ = ["PRESETS", "preset"]

PRESETS = ("development", "production", "testing")


@cache
def preset(name: str) -> dict[str, Any]:
    """Return the tables of a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"app.preset must be one of {', '.join(PRESETS)}, not {name!r}{nearest(name, PRESETS)}")
    return tomllib.loads(files(__name__).joinpath(f"{name}.toml").read_text())
