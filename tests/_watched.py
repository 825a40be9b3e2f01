"""Alerts on a fake clock, with traffic of one's choice and a record of all they have told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perfkit.alerts import Alert, Alerts
from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer

__all__ = ["Watched"]


class Watched:
    """Alerts, with all changes they have told."""

    def __init__(self, tracker: PerformanceTracker, clock: FakeClock, **options: Any) -> None:
        self.clock, self.tracker = clock, tracker
        optimizer = options.pop("optimizer", None) or TokenOptimizer(tracker=tracker, clock=clock)
        self.alerts = Alerts(tracker=tracker, optimizer=optimizer, clock=clock, **options)
        self.told: list[Alert] = []
        self.alerts._hooks = (self.told.append,)  # on_change() would start the background thread

    def serve(self, ok: int = 0, failed: int = 0, *, provider: str = "openai", seconds: float = 0.2) -> None:
        tags = {"provider": provider, "model": "m"}
        for _ in range(ok):
            self.tracker.record_metric("provider_latency", seconds, tags)
        for _ in range(failed):
            self.tracker.increment("provider_failure", tags={**tags, "error": "ServerError"})

    def go(self, seconds: float, each: Callable[[], object] = lambda: None) -> None:
        """Let time pass in steps of 10 seconds, each with some traffic and an evaluation."""
        for _ in range(round(seconds / 10)):
            each()
            self.alerts.evaluate()
            self.clock.advance(10)

    def story(self, rule: str) -> list[tuple[str, float]]:
        """Return each state of a rule's alert, and when it came, in seconds since the clock began."""
        return [(alert.state, alert.since - 1_700_000_000) for alert in self.told if alert.rule == rule]
