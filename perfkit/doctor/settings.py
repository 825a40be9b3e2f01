"""Checks of the configuration: is it valid, and does each setting do what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfkit._shared import current_config
from perfkit.doctor.finding import fine, problem, warning
from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perfkit.doctor.finding import Finding

__all__ = ["settings"]


def settings() -> Iterator[Finding]:
    """Yield whether the settings are valid and used."""
    try:
        idle = current_config().table("client").idle
    except ConfigError as error:
        yield problem("settings", str(error), "every call fails with it", "mend it where it was set")
        return
    if idle is None:
        yield fine("settings", "valid, and none without effect")
    else:
        yield warning("settings", idle, "simple questions go to the default model", "set [client] fast_model")
