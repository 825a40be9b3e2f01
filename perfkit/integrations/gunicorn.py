"""gunicorn: what is preloaded is frozen before the fork, and garbage waits for the end of requests.

`gunicorn --config python:perfkit.integrations.gunicorn ...` is all, or import the hooks in a configuration of your own.
An application in perfkit's middleware needs but the first: the middleware knows when its requests end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.integrations._idle import UnderWay
from perfkit.memory import GCOptimizer

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

__all__ = ["post_request", "pre_request", "when_ready"]

_under_way = UnderWay()


def when_ready(server: Arbiter) -> None:
    """Set the "fork_server" workload, with `--preload`: the application is loaded, and no worker forked yet."""
    if server.cfg.preload_app:
        GCOptimizer.instance().optimize_for_workload("fork_server")


def pre_request(_worker: Any, _request: Any) -> None:
    """Count a request."""
    _under_way.begin()


def post_request(_worker: Any, _request: Any, _environ: Any, _response: Any) -> None:
    """Collect what is due, where `[web] collect_garbage` asks for it."""
    _under_way.collect(idle=_under_way.end())
