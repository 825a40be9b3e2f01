"""uWSGI: what is loaded before the fork is frozen, and garbage waits for the end of requests.

Call `setup()` at the end of the application's module. With perfkit's middleware it is needed for the first only.
"""

from __future__ import annotations

from perfkit import _process
from perfkit.integrations._idle import UnderWay
from perfkit.memory import GCOptimizer

__all__ = ["setup"]

_under_way = UnderWay()


def setup() -> None:
    """Set the "fork_server" workload where this is the master, and collect after requests with `[web] collect_garbage`.

    Raises:
        ImportError: this process is not uWSGI's.
    """
    import uwsgi

    alone = int(uwsgi.opt.get("threads", 1)) < 2  # noqa: PLR2004 - with more, others may be under way

    def after_request() -> None:
        _process.check()
        _under_way.collect(idle=alone)

    uwsgi.after_req_hook = after_request
    if uwsgi.worker_id() == 0:
        GCOptimizer.instance().optimize_for_workload("fork_server")
