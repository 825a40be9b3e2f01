"""`perfkit doctor`: what on this machine slows or breaks calls, why, and what to do about it.

It reads settings and, for hosts named on the command line, looks names up and connects; with --providers it asks each
configured provider for its models. It changes nothing and uses no tokens.
A further part is one function that yields findings, and one line in `findings`.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from perfkit.clock import SYSTEM_CLOCK
from perfkit.doctor import clock, machine, network, server, settings
from perfkit.doctor.finding import Finding

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["Finding", "add_arguments", "findings", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `perfkit doctor`."""
    parser.add_argument("hosts", nargs="*", metavar="host", help="look up and connect to, such as api.openai.com")
    parser.add_argument("--uwsgi", type=Path, default=server.INI, help="ini file to look at (default: ./uwsgi.ini)")
    parser.add_argument("--providers", action="store_true", help="check address and key of the configured providers")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def findings(options: argparse.Namespace) -> Iterator[Finding]:
    """Yield what is found, one part after the other."""
    yield from machine.examine(machine.Machine())
    yield from clock.clock()
    yield from settings.settings()
    yield from server.uwsgi(server.options_of(options.uwsgi))
    for host in options.hosts:
        yield from network.examine(host, SYSTEM_CLOCK)
    if options.providers:
        from perfkit.doctor import providers  # with the router and all it needs

        yield from providers.examine()


def run(options: argparse.Namespace) -> int:
    """Print what is found; return 1 when there is a problem, 0 for warnings and less."""
    found = list(findings(options))
    count = {level: sum(finding.level == level for finding in found) for level in ("problem", "warning", "ok")}
    if options.json:
        print(json.dumps({"findings": [finding.to_dict() for finding in found], "count": count}, indent=2))
    else:
        for finding in found:
            _show(finding)
        print(f"\n{count['problem']} problems, {count['warning']} warnings, {count['ok']} ok")
    return int(count["problem"] > 0)


def _show(finding: Finding) -> None:
    _say(f"{finding.level:8} {finding.check:14} ", finding.found)
    if finding.why:
        _say(f"{'why':>23} ", finding.why)
        _say(f"{'do':>23} ", finding.do)


def _say(head: str, text: str) -> None:
    """Print a text behind its head, in lines as wide as the terminal; as one line where it goes to a file."""
    width = max(60, shutil.get_terminal_size().columns) if sys.stdout.isatty() else len(head) + len(text)
    wrapped = textwrap.wrap(text, width - len(head), break_long_words=False, break_on_hyphens=False) or [""]
    print(head + f"\n{'':{len(head)}}".join(wrapped))
