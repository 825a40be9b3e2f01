"""A worker whose time runs ten times as fast: each GET counts once, and says who counted and between which moments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from metrics.sharing.fast import SPEED, FastClock

import perfkit
from perfkit.metrics import PerformanceTracker, tracker

if "STATE" in os.environ:
    perfkit.configure(state={"url": os.environ["STATE"], "timeout": 5.0})
tracker._SHARING = 1.0 / SPEED
counted = PerformanceTracker(clock=FastClock(), store=os.environ["STORE"], host=os.environ.get("HOST"))
counted.increment("loaded")  # also by the master, where it loads the application


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    before = FastClock().wall()
    counted.increment("served", tags={"pid": os.getpid()})
    body = json.dumps([os.getpid(), before, FastClock().wall()]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
