"""Libraries that are there or not: what is asked for is imported late, and what is missing says how to get it."""

from __future__ import annotations

from typing import Any

from perfkit._registry import load
from perfkit.errors import ConfigError

__all__ = ["load_extra"]


def load_extra(target: str, extra: str) -> Any:
    """Import and return what `"package.module:attribute"` names, of the library that `extra` installs.

    Raises:
        ConfigError: the library is not installed.
    """
    try:
        return load(target)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != extra:  # it is there; something it needs is not
            raise
        message = f"the package {extra} is not installed; pip install 'perfkit[{extra}]'"
        raise ConfigError(message, key="integrations") from error
