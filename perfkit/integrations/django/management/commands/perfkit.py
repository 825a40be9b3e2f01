"""`manage.py perfkit report`: perfkit's commands with the project's configuration."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from perfkit.integrations._commands import run

__all__ = ["Command"]


class Command(BaseCommand):
    """Hands everything after `perfkit` to perfkit's own command line."""

    help = "Run a command of perfkit: manage.py perfkit config show"

    def run_from_argv(self, argv: list[str]) -> None:
        """Run it; the exit code is perfkit's."""
        run(argv[2:])

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take all that comes."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, **options: Any) -> None:
        """Run it from `call_command`."""
        run(options["arguments"])
