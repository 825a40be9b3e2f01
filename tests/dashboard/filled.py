"""A workload that leaves something in every panel of the dashboard, and another worker that reports beside it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _noon import noon
from _servers import environment, polled

import perfkit
from perfkit.profiling import Capture, SlowRun
from perfkit.profiling.frames import Frame
from perfkit.testing import FaultServer

__all__ = ["another_worker", "ask", "fill", "tables"]

REPORT = "import sys, perfkit; perfkit.configure(metrics={'store': sys.argv[1]}); perfkit.tracker.increment('asked'); "
REPORT += "perfkit.tracker.flush(); print('told', flush=True); sys.stdin.read()"


def tables(fault: FaultServer, store: Path | None = None) -> dict[str, Any]:
    """Return a configuration of all that the dashboard shows."""
    return {
        "providers": {
            name: {"kind": name, "base_url": fault.base_url, "api_key": "k"} for name in ("openai", "anthropic")
        },
        "tokens": {
            "fallback_price": {"input": 1, "output": 2},
            "timezone": noon(),
            "budgets": [{"scope": "global", "limit": 20.0, "period": "day"}],
        },
        "metrics": {"store": None if store is None else str(store)},
        "dashboard": {"prompts": True},
    }


def ask(number: int) -> None:
    """Ask one of two providers one of 30 questions."""
    model = ("gpt-4o-mini", "claude-haiku-4-5")[number % 2]
    perfkit.chat(f"question {number % 30}", model=model, temperature=0, agent="<b>support</b>")


def fill() -> None:
    """Use every part: 40 calls, agents, a slow run, a CPU profile, and an alert that fires."""
    for number in range(40):
        ask(number)
    perfkit.agent_pool.register("parser", list)
    perfkit.agent_pool.warm_up("parser", 1)
    with perfkit.profile("render"):
        [run] = perfkit.profiler._running.running
        run.slow = SlowRun("render", "thread", 0.0, 0.3)
        run.slow.captures = (Capture(0.5, (Frame("draw", "a.py", 1, own=True),)),)
        run.slow.overlapped = ({"kind": "provider", "name": "openai", "seconds": 0.4},)
        perfkit.profiler._found(run.slow)
    perfkit.profiler.cpu_profile("import", fn=lambda: threading.Event().wait(0.1), engine="sampler")
    perfkit.tracker.flush()  # alerts are about what all workers have told
    perfkit.alerts.add_rule("too_slow", "avg_response_time > 0s", duration=0, min_count=1)
    polled(lambda: perfkit.alerts.evaluate() or perfkit.alerts.state()["too_slow"] == "firing")


@contextmanager
def another_worker(store: Path) -> Iterator[None]:
    """Let a process of its own report to the store of the metrics; it lives until the end."""
    command = [sys.executable, "-c", REPORT, str(store)]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"told\n"
        yield
        worker.stdin.close()
