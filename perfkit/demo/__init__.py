"""`perfkit demo`: the same calls the way people write them today, then through perfkit, and a table of both.

Everything runs on this machine and is real: three llama.cpp servers, TLS, sockets, and a kill in the middle; then a web
app with its visitors and its dashboard. With `--base-url` a provider of one's own takes the servers' place.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from argparse import ArgumentTypeError
from contextlib import contextmanager
from typing import TYPE_CHECKING

from perfkit._shared import start_over
from perfkit.config import Config
from perfkit.errors import ConfigError, PerfkitError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from perfkit.demo.race import Row, Stage
    from perfkit.demo.web import Web

__all__ = ["add_arguments", "run"]

CALLS, THREADS = 1200, 16
REAL_CALLS, REAL_THREADS = 20, 4  # they cost money
MOST_CALLS, MOST_THREADS = 10_000, 64
_WRONG, _NOTHING_ANSWERED, _INTERRUPTED = 1, 3, 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `perfkit demo`."""
    calls = f"calls each way (default {CALLS:,}; {REAL_CALLS} with --base-url)"
    threads = f"calls at a time (default {THREADS}; {REAL_THREADS} with --base-url)"
    parser.add_argument("--calls", type=_number(2, MOST_CALLS), metavar="N", help=calls)
    parser.add_argument("--threads", type=_number(1, MOST_THREADS), metavar="N", help=threads)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the workload (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    real = parser.add_argument_group("against a real provider (OpenAI-compatible; its calls cost what they cost)")
    real.add_argument("--base-url", metavar="URL", help="address with the version prefix, for example http://host/v1")
    real.add_argument("--model", metavar="NAME", help="model to ask for (default: the only one the provider has)")
    real.add_argument("--api-key-env", metavar="NAME", help="environment variable of the key (default: no key is sent)")


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return parse


def run(options: argparse.Namespace) -> int:
    """Run the demo and print what it measured; return the exit code.

    Raises:
        ConfigError: options do not go together, or a package of the extra "demo" is missing.
    """
    _check(options)
    start_over(Config(file={}, environ={}))  # whatever is configured where it is run
    try:
        return _run_real(options) if options.base_url is not None else _run_local(options)
    except KeyboardInterrupt:
        print("perfkit demo: interrupted, everything is stopped", file=sys.stderr)
        return _INTERRUPTED


def _check(options: argparse.Namespace) -> None:
    needed = ["requests", "rich"]
    if options.base_url is None:
        needed += ["numpy", "trustme", "xllamacpp"]
        for option in ("model", "api_key_env"):
            if getattr(options, option) is not None:
                raise ConfigError(f"--{option.replace('_', '-')} goes with --base-url only", key=option)
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"the demo needs {' and '.join(missing)}: pip install 'perfkit[demo]'")


def _run_local(options: argparse.Namespace) -> int:
    from perfkit.demo.servers import Fleet

    with _loopback_only(), Fleet() as fleet:
        return _compare(fleet, options, CALLS, THREADS)


def _run_real(options: argparse.Namespace) -> int:
    from perfkit.demo.real import RealProvider

    try:
        provider = RealProvider(options.base_url, options.model, options.api_key_env)
    except ConfigError:
        raise
    except PerfkitError as error:
        print(f"perfkit demo: {error}", file=sys.stderr)
        return _NOTHING_ANSWERED
    return _compare(provider, options, REAL_CALLS, REAL_THREADS)


def _compare(stage: Stage, options: argparse.Namespace, calls: int, threads: int) -> int:
    from perfkit.demo.inside import measure
    from perfkit.demo.meaning import by_meaning
    from perfkit.demo.race import WAYS, compare
    from perfkit.demo.report import Beside, Report, progress
    from perfkit.demo.web import visited
    from perfkit.demo.workload import workload

    calls = calls if options.calls is None else options.calls
    threads = threads if options.threads is None else options.threads
    asked = workload(options.seed, calls, dying_threads=threads if stage.kill_first is not None else 0)
    with progress(list(WAYS), calls) as advance:
        rows = list(compare(stage, asked, threads, advance))
    told, web = [], None
    if stage.kill_first is not None:  # a provider's calls cost money
        told, web = by_meaning(stage.setting), visited(stage.setting)
    report = Report(rows, Beside(measure(), told, web), stage, threads, options.seed)
    report.print_json() if options.json else report.print_table()
    return _code(rows, web)


def _code(rows: list[Row], web: Web | None) -> int:
    if not any(row.answered for row in rows):
        print(f"perfkit demo: no call was answered: {rows[-1].first_failure}", file=sys.stderr)
        return _NOTHING_ANSWERED
    wrong = web.wrong if web is not None else []
    for one in wrong:
        print(f"perfkit demo: in the web app, {one}", file=sys.stderr)
    return _WRONG if wrong else 0


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Keep proxies and netrc logins of the user's environment away from calls to the demo's own servers."""
    before = dict(os.environ)
    os.environ.update(no_proxy="*", NO_PROXY="*", NETRC=os.devnull)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
