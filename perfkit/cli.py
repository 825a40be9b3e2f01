"""The `perfkit` command: results on stdout, progress on stderr.

Exit codes: 0 ok, 1 a check or threshold failed, 2 usage or configuration, 3 every request failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from perfkit._registry import load
from perfkit._version import __version__
from perfkit.errors import ConfigError, PerfkitError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

# Subcommand to the module that adds its arguments (`add_arguments`) and runs it (`run`), imported when it is asked for.
COMMANDS = {
    "demo": ("perfkit.demo", "the same workload the way people write it today, then through perfkit"),
    "bench": ("perfkit.bench.command", "ask providers under load: times, tokens, goodput, errors and cost"),
    "report": ("perfkit.report", "what all workers have measured: providers, costs, durations, counts"),
    "doctor": ("perfkit.doctor", "what on this machine slows or breaks calls, why, and what to do"),
    "prices": ("perfkit.tokens.price_list", "list, search and compare the prices of models; say which are stale"),
    "config": ("perfkit.cli", "show every setting and where it comes from"),
}

WIDEST = 40  # characters of a column that longer cells may break


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="perfkit", description="LLM calls: pooled, cached, routed, priced, measured.")
    parser.add_argument("--version", action="version", version=f"perfkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    wanted = list(sys.argv[1:] if arguments is None else arguments)
    for name, (module, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        if name in wanted[:1]:
            load(f"{module}:add_arguments")(command)
    options = parser.parse_args(wanted)
    try:
        code: int = load(f"{COMMANDS[options.command][0]}:run")(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it, such as `head`, has seen enough; nothing is left to complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("perfkit: interrupted", file=sys.stderr)
        return 130  # 128 and the number of the signal, as shells count
    except PerfkitError as error:
        print(f"perfkit: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError | UnknownNameError) else 1
    except ModuleNotFoundError as error:
        if "pip install" not in str(error):
            raise
        print(f"perfkit: {error}", file=sys.stderr)
        return 2
    return code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `perfkit config`."""
    parser.add_argument("action", choices=["show"])
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Print every setting, its value and its source; secrets stay hidden."""
    from perfkit._shared import current_config

    config = current_config()
    rows, preset = config.explain(), config.table("app").preset
    if options.json:
        print(json.dumps(rows, indent=2, default=str))
        return 0
    shown = [(row["setting"], _shown(row["value"]), _from(row, preset)) for row in rows]
    wide = [max(len(line[column]) for line in shown if len(line[column]) <= WIDEST) for column in range(2)]
    for setting, value, source in shown:
        print(f"{setting:{wide[0]}}  {value:{wide[1]}}  {source}")
    idle = config.table("client").idle
    if idle is not None:
        print(f"perfkit: {idle}", file=sys.stderr)
    return 0


def _from(row: dict[str, Any], preset: str | None) -> str:
    variable = f"PERFKIT_{row['setting'].replace('.', '__').upper()}"
    source: str = row["source"]
    told = {"argument": "code", "environment": f"environment {variable}", "preset": f"preset {preset}"}
    return told.get(source, source)


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)
