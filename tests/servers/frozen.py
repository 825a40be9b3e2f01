"""An application that tells what the collector of its worker has done."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import perfkit

perfkit.configure(web={"collect_garbage": True})


def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "application/json")])
    stats = perfkit.gc_optimizer.stats()
    told = {
        "pid": os.getpid(),
        "frozen": gc.get_freeze_count(),
        "workload": stats["workload"],
        "passes": stats["passes"],
    }
    return [json.dumps(told).encode()]


if "uwsgi" in sys.modules:
    from perfkit.integrations.uwsgi import setup

    setup()
