"""Alerts: rules over the metrics of all workers, watched in process, told once.

The four rules of the RecoAgent guide are there from the start; watching begins with the first `add_rule`, `on_change`
or `start`. The functions here are those of the shared `Alerts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perfkit.alerts.hooks import Webhook
from perfkit.alerts.promql import to_prometheus as _to_prometheus
from perfkit.alerts.rule import Alert, Rule
from perfkit.alerts.watch import Alerts

if TYPE_CHECKING:
    from perfkit.alerts.rule import State
    from perfkit.alerts.watch import Hook

__all__ = [
    "Alert",
    "Alerts",
    "Rule",
    "Webhook",
    "add_rule",
    "alerts",
    "evaluate",
    "on_change",
    "remove_rule",
    "rules",
    "start",
    "state",
    "to_prometheus",
]


def add_rule(
    name: str, condition: str, duration: str | float = 300.0, severity: str = "warning", **fields: Any
) -> Rule:
    """Watch a rule; see `Alerts.add_rule`."""
    return Alerts.instance().add_rule(name, condition, duration, severity, **fields)


def remove_rule(name: str) -> None:
    """Watch a rule no longer; see `Alerts.remove_rule`."""
    Alerts.instance().remove_rule(name)


def rules() -> list[Rule]:
    """Return all rules."""
    return Alerts.instance().rules()


def state() -> dict[str, State]:
    """Return the state of each rule: "inactive", "pending", "firing", "resolved" or "no-data"."""
    return Alerts.instance().state()


def alerts() -> list[Alert]:
    """Return every alert with its labels, times and values."""
    return Alerts.instance().alerts()


def on_change(hook: Hook) -> Hook:
    """Call `hook(alert)` at every change of state; see `Alerts.on_change`."""
    return Alerts.instance().on_change(hook)


def evaluate() -> list[Alert]:
    """Evaluate all rules now, instead of waiting for the next time; see `Alerts.evaluate`."""
    return Alerts.instance().evaluate()


def start() -> None:
    """Begin to watch in this process."""
    Alerts.instance().start()


def to_prometheus() -> str:
    """Return all rules as a Prometheus rule file (YAML); see `perfkit.alerts.promql`."""
    watched = Alerts.instance()
    return _to_prometheus(watched.rules(), daily_limit=watched.daily_limit())
