"""`manage.py perfkit report`: perfkit's commands with the project's configuration."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

from perfkit._version import __version__
from perfkit.integrations._commands import run

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Command"]


class _Options(BaseCommand):
    """The options of every command of Django's; it obeys --settings and --pythonpath before it looks for a command."""

    # Taken, and of no effect: perfkit tells its own errors, in one line and without colour.
    suppressed_base_arguments = frozenset({"-v", "--verbosity", "--traceback", "--no-color", "--force-color"})

    def get_version(self) -> str:
        """Return what `perfkit --version` says."""
        return f"perfkit {__version__}"


class Command(_Options):
    """Hands all but Django's own options to perfkit's own command line; the exit code is perfkit's."""

    help = "Run a command of perfkit: manage.py perfkit config show"
    requires_system_checks = ()  # `doctor` is for projects that fail them

    def run_from_argv(self, argv: list[str]) -> None:
        """Run it from a command line."""
        self._called_from_command_line = True
        self._run(argv[2:])

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take all that comes."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help="those of perfkit, see manage.py perfkit -h")

    def handle(self, **options: Any) -> None:
        """Run it from `call_command`."""
        self._run(options["arguments"])

    def _run(self, arguments: Sequence[str]) -> None:
        options = _Options()
        options._called_from_command_line = self._called_from_command_line  # noqa: SLF001 - says how errors end
        parser = options.create_parser("manage.py", "perfkit", add_help=False, allow_abbrev=False)
        run(parser.parse_known_args(arguments)[1])
