"""`perfkit ...` inside the frameworks' own command lines: same words, same output, same exit codes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["flask_command", "run"]


def run(arguments: Sequence[str]) -> None:
    """Run `perfkit <arguments>` in this process and exit with its code."""
    from perfkit._registry import load

    sys.exit(load("perfkit.cli:main")(arguments))


def flask_command() -> Any:
    """Return the command `flask perfkit`."""
    import click

    @click.command(
        "perfkit",
        help="Run a command of perfkit with this app's configuration.",
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def perfkit(arguments: tuple[str, ...]) -> None:
        run(arguments)

    return perfkit
