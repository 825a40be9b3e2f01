"""Whether uWSGI is told what Python threads and forks need; it leaves both out unless asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perfkit.doctor.finding import Finding, fine, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["INI", "options_of", "uwsgi"]

INI = Path("uwsgi.ini")  # in the working directory, where nothing else is said

_ON = ("", "1", "true", "yes", "on")
_FORK_HOOKS = ("py-call-uwsgi-fork-hooks", "py-call-osafterfork", "lazy-apps", "lazy")


def options_of(path: Path | None) -> dict[str, str] | None:
    """Return uWSGI's options: of the process this runs in, else of an ini file; None when there is neither."""
    running = sys.modules.get("uwsgi")
    if running is not None:
        return {_text(name): _text(value) for name, value in running.opt.items()}
    if path is None or not path.is_file():
        return None
    lines = [line.split(";")[0].split("#")[0].strip() for line in path.read_text(errors="replace").splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("[")]
    return {name.strip(): value.strip() for name, _, value in pairs}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_on(options: Mapping[str, str], name: str) -> bool:
    return options.get(name, options.get(name.replace("-", "_"), "off")).lower() in _ON


def uwsgi(options: Mapping[str, str] | None) -> Iterator[Finding]:
    """Say what is missing from uWSGI's options."""
    if options is None:
        return
    threads = options.get("threads", "1")
    threaded = _is_on(options, "enable-threads") or (threads.isdigit() and int(threads) > 1)
    if not threaded:
        yield problem(
            "uwsgi_threads",
            "enable-threads is not set",
            "uWSGI never runs Python's other threads then: idle connections are not closed, metrics are not sent",
            "enable-threads = true",
        )
    if not any(_is_on(options, name) for name in _FORK_HOOKS):
        yield warning(
            "uwsgi_fork",
            "workers are forked from a loaded application, without Python's fork hooks",
            "perfkit notices the fork itself; other libraries keep locks and sockets of the parent, and replies of one "
            "worker can reach another",
            "py-call-uwsgi-fork-hooks = true, or lazy-apps = true",
        )
    elif threaded:
        yield fine("uwsgi", "threads and fork hooks are on")
