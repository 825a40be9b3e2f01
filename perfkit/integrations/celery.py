"""Celery: every task of a worker is measured, and its calls get a deadline and a budget; garbage waits for its end.

`setup()` in the module that makes the app is all; workers flush their metrics when they end.
"""

from __future__ import annotations

from typing import Any

try:
    from celery import signals
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("celery is not installed; pip install 'perfkit[celery]'", name="celery") from error

from perfkit.integrations._web import Visit, Visits

__all__ = ["METRIC", "setup"]

METRIC = "task_duration"  # seconds; tags task and state

_visits = Visits(metric=METRIC)
_running: dict[str, Visit] = {}  # by task id; each step on it is atomic


def setup() -> None:
    """Connect to Celery's signals; a second time changes nothing."""
    signals.task_prerun.connect(_begin, weak=False, dispatch_uid="perfkit-begin")
    signals.task_postrun.connect(_end, weak=False, dispatch_uid="perfkit-end")


def _begin(*, task_id: str, task: Any, **_: Any) -> None:
    visit = _running[task_id] = _visits.begin(name=lambda: task_id)
    visit.named("task", task.name)


def _end(*, task_id: str, task: Any, state: str | None = None, **_: Any) -> None:
    visit = _running.pop(task_id, None)
    if visit is not None:
        visit.end(task=task.name, state=state or "")
