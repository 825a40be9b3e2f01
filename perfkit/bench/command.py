"""`perfkit bench`: ask providers under load, and print what their answers took, cost, and where they failed.

It asks the configured providers, one at `--url`, or with `--bundled` a llama.cpp server on this machine. Each case is a
provider, a model, a set of prompts and a load; every combination of those that are named is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit._shared import current_config
from perfkit.bench.comparing import TIMES, Bound, compare, identity
from perfkit.bench.loading import PROMPTS, Case, Load, Terms, measure
from perfkit.bench.outputs import as_csv, as_html, as_table, differences_table, plain
from perfkit.bench.rows import DEFINITIONS, SLOS, row
from perfkit.errors import ConfigError, PerfkitError
from perfkit.providers import create_provider
from perfkit.routing import ProviderRouter
from perfkit.transport import ConnectionPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["add_arguments", "run"]

FORMAT = 1
_ALL_FAILED = 3
_INTERRUPTED = 130
_TIMES = (*TIMES, "wait_ms")
_EMPTY = row(Case("", None, ""), [], elapsed=0.0, slos={})
_FIGURES = [key for key, value in _EMPTY.items() if value is None or isinstance(value, int | float)]


def _as_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"


_KEPT: dict[str, Callable[[Mapping[str, Any]], str]] = {"output": _as_json, "csv": as_csv, "html": as_html}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `perfkit bench`."""
    terms = Terms()
    whom = parser.add_argument_group("whom to ask: every combination is measured")
    one = whom.add_mutually_exclusive_group()
    one.add_argument("--provider", action="append", metavar="NAME", help="a configured one (default: all)")
    one.add_argument("--url", help="an OpenAI-compatible one that is not configured: http://host/v1")
    one.add_argument("--bundled", action="store_true", help="a llama.cpp server with a tiny model, on this machine")
    whom.add_argument("--api-key-env", metavar="NAME", help="variable that holds the key for --url")
    whom.add_argument("--model", action="append", metavar="NAME", help="default: the provider's own, or the default")
    whom.add_argument("--prompts", action="append", type=Path, metavar="FILE", help="one a line, or a JSON list")
    whom.add_argument("--concurrency", type=_listed(_whole), default=[], metavar="N[,N]", help="at a time (default 1)")
    whom.add_argument(
        "--rate", type=_listed(_above_zero), default=[], metavar="R[,R]", help="a second, at random moments"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--requests", type=_whole, default=terms.requests, metavar="N", help="of each case (default 30)")
    how.add_argument(
        "--warm-up",
        type=_whole_or_none,
        default=terms.warm_up,
        metavar="N",
        help="for each at a time, not counted (default 1)",
    )
    how.add_argument("--max-tokens", type=_whole, default=terms.max_tokens, metavar="N", help="default 128")
    how.add_argument("--temperature", type=_at_least_zero, default=terms.temperature, metavar="T", help="default 0")
    how.add_argument(
        "--timeout", type=_above_zero, default=terms.timeout, metavar="S", help="of a request (default 60)"
    )
    how.add_argument("--seed", type=int, default=terms.seed, metavar="N", help="of all chance (default 1)")
    how.add_argument("--unique", action="store_true", help="mark each prompt, so that no prefix cache knows it")
    what = parser.add_argument_group("what is good enough")
    what.add_argument(
        "--slo", action="append", default=[], metavar="KEY<=MS", help=f"for goodput; of {', '.join(_TIMES)}"
    )
    what.add_argument("--threshold", action="append", default=[], metavar="KEY<=N", help="else the exit code is 1")
    what.add_argument("--compare", type=Path, metavar="FILE", help="JSON of an earlier run")
    what.add_argument("--worse-by", type=float, metavar="PERCENT", help="with --compare: exit 1 if a time is surely so")
    out = parser.add_argument_group("where to")
    out.add_argument("--json", action="store_true", help="print one JSON document")
    for kind in _KEPT:
        out.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"keep the {kind.replace('output', 'JSON')} here")


def _number(kind: Callable[[str], Any], told: str, good: Callable[[Any], bool]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        with suppress(ValueError):
            number = kind(text)
            if math.isfinite(number) and good(number):
                return number
        raise argparse.ArgumentTypeError(f"must be {told}, not {text!r}")

    return parse


_whole = _number(int, "a whole number of at least 1", lambda number: number >= 1)
_whole_or_none = _number(int, "a whole number, or 0", lambda number: number >= 0)
_above_zero = _number(float, "a number above 0", lambda number: number > 0)
_at_least_zero = _number(float, "a number of at least 0", lambda number: number >= 0)


def _listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",")]


def run(options: argparse.Namespace) -> int:
    """Measure, print, and return 0, 1 when a threshold is missed, 3 when every request failed, 130 after Ctrl-C.

    What was measured before Ctrl-C is printed and kept.

    Raises:
        ConfigError: the options name nothing that can be measured.
        PerfkitError: a file cannot be written.
    """
    terms, rows = _terms(options), list[dict[str, Any]]()
    before = _earlier(options, terms)
    bounds = [Bound.parse(text, _FIGURES) for text in options.threshold]
    with _servers(options) as providers:
        cases = _cases(options, providers, before)
        _try_files(options)
        try:
            for case in cases:
                rows += measure([case], terms=terms, progress=_progress(terms.requests))
        except KeyboardInterrupt:
            if not rows:
                raise
            print(f"\nperfkit: interrupted; {len(rows)} of {len(cases)} cases were measured", file=sys.stderr)
    missed = [
        {"threshold": str(bound), "case": identity(row)} for bound in bounds for row in rows if not bound.holds(row)
    ]
    differences = [one._asdict() for one in compare(before, rows, seed=terms.seed)]
    most = math.inf if options.worse_by is None else 1 + options.worse_by / 100
    worse = [f"{one['key']} by {one['case']}" for one in differences if one["low"] > most]
    document = {
        "perfkit_bench": FORMAT,
        "machine": _machine(),
        "settings": asdict(terms),
        "definitions": DEFINITIONS,
        "rows": rows,
        "missed": missed,
        "worse": worse,
        "differences": differences,
    }
    failed = _write(options, document)
    _print(options, document)
    if failed:
        raise PerfkitError("; ".join(failed))
    if len(rows) < len(cases):
        return _INTERRUPTED
    if all(row["errors"] == row["requests"] for row in rows):
        return _ALL_FAILED
    return int(bool(missed or worse))


def _terms(options: argparse.Namespace) -> Terms:
    bounds = [Bound.parse(text, _TIMES) for text in options.slo]
    for text, bound in zip(options.slo, bounds, strict=True):
        if not bound.sign.startswith("<"):
            raise ConfigError(f"--slo {text!r}: an SLO is the most milliseconds there may be, as in latency_ms<=2000")
    return Terms(
        requests=options.requests,
        warm_up=options.warm_up,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        timeout=options.timeout,
        seed=options.seed,
        unique=options.unique,
        slos={bound.key: bound.number for bound in bounds} or dict(SLOS),
    )


def _earlier(options: argparse.Namespace, terms: Terms) -> list[dict[str, Any]]:
    if options.compare is None:
        if options.worse_by is not None:
            raise ConfigError("--worse-by needs a run to compare with: --compare FILE")
        return []
    try:
        document = json.loads(options.compare.read_text())
        rows: list[dict[str, Any]] = document["rows"]
        compare(rows, rows)
        then = document.get("settings", {})
        for key in ("max_tokens", "temperature", "unique"):
            if then.get(key, now := getattr(terms, key)) != now:
                print(f"perfkit: --compare {options.compare}: its {key} was {then[key]}, not {now}", file=sys.stderr)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"--compare {options.compare}: no JSON of perfkit bench: {error!r}") from error
    return rows


@contextmanager
def _servers(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Give the providers to ask, by name."""
    if options.bundled:
        from perfkit.testing.llm import LlamaServer

        with LlamaServer(slots=8) as server:
            yield {"bundled": create_provider("openai", name="bundled", base_url=server.base_url, api_key="not-needed")}
    elif options.url is not None:
        key = os.environ.get(options.api_key_env) if options.api_key_env else "not-needed"
        if not key:
            raise ConfigError(f"--api-key-env: {options.api_key_env} is not set")
        yield {"url": create_provider("openai", name="url", base_url=options.url, api_key=key)}
    else:
        router = ProviderRouter.instance()
        names = options.provider or router.list_providers()
        if not names:
            raise ConfigError("no provider is configured: name one by --url or --bundled, or configure [providers]")
        yield {name: router.get_provider(name) for name in names}


def _cases(options: argparse.Namespace, providers: dict[str, Any], before: list[dict[str, Any]]) -> list[Case]:
    loads = [Load(concurrency=number) for number in options.concurrency] + [Load(rate=rate) for rate in options.rate]
    paths = options.prompts or ()
    sets: dict[str, Sequence[str]] = {path.stem: _prompts(path) for path in paths} or {"default": PROMPTS}
    if len(sets) < len(paths):
        raise ConfigError("--prompts: rows are told apart by the names of the files, and two have the same")
    cases = [
        Case(name, provider, model, texts, load, set_name)
        for name, provider in providers.items()
        for model, (set_name, texts), load in product(
            _models(options, name, provider), sets.items(), loads or [Load(concurrency=1)]
        )
    ]
    if options.compare is not None and not {identity(row) for row in before} & set(map(str, cases)):
        raise ConfigError(f"--compare {options.compare}: it has none of the cases, such as {cases[0]}")
    connections = ConnectionPool.instance()  # as many as are at a time, lest times be those of waiting for one
    connections.configure(maxsize=max(connections.settings.maxsize, *(case.load.in_flight for case in cases)))
    return cases


def _models(options: argparse.Namespace, name: str, provider: Any) -> list[str]:
    if options.model:
        return list(options.model)
    own = sorted(getattr(provider, "supported_models", None) or ())
    default = current_config().table("client").default_model
    if not own and (options.bundled or options.url):
        own = provider.list_models()[:1]
    if not own and default is not None:
        own = [default]
    if not own:
        raise ConfigError(f"provider {name!r} does not say which models it has: name them by --model")
    return own


def _prompts(path: Path) -> list[str]:
    try:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"--prompts {path}: {error}") from error
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one for one in found):
        raise ConfigError(f"--prompts {path}: one prompt a line, or a JSON list of strings")
    return found


def _progress(total: int) -> Callable[[Case, int], None]:
    live = sys.stderr.isatty()

    def show(case: Case, done: int) -> None:
        if live or done == total:
            end = "\n" if done == total else "\r"
            print(f"{plain(str(case))}: {done} of {total}", end=end, file=sys.stderr)

    return show


def _machine() -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def _files(options: argparse.Namespace) -> dict[str, Path]:
    return {kind: path for kind in _KEPT if (path := getattr(options, kind)) is not None}


def _try_files(options: argparse.Namespace) -> None:
    """Find out before anything is asked whether the files can be written."""
    for kind, path in _files(options).items():
        try:
            path.open("a").close()
        except OSError as error:
            raise PerfkitError(f"--{kind} {path}: {error.strerror}") from error


def _write(options: argparse.Namespace, document: dict[str, Any]) -> list[str]:
    """Write the files and return what failed."""
    failed = []
    for kind, path in _files(options).items():
        try:
            path.write_text(_KEPT[kind](document), encoding="utf-8", errors="replace")
        except OSError as error:
            failed.append(f"--{kind} {path}: {error.strerror}")
    return failed


def _print(options: argparse.Namespace, document: dict[str, Any]) -> None:
    if options.json:
        print(_as_json(document), end="")
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(as_table(document, width=width))
        if document["differences"]:
            print("\n" + differences_table(document["differences"]))
    for one in document["missed"]:
        print(f"missed: {one['threshold']} by {plain(one['case'])}", file=sys.stderr)
    for text in document["worse"]:
        print(f"worse: {plain(text)}", file=sys.stderr)
