"""The evaluator: rules against the metrics of all workers, one process of the application at a time.

A tick on the background thread only asks for the seat; whoever has it evaluates on a thread of its own, since reading
what other workers wrote, and telling people, may take a while. What changed is written down before it is told.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit._shared import Shared
from perfkit.alerts.condition import NoDataError, Reading
from perfkit.alerts.defaults import default_rules
from perfkit.alerts.hooks import Webhook, log_change
from perfkit.alerts.readings import FAILURES, SUCCESSES, Readings
from perfkit.alerts.rule import Alert, Rule, State, step
from perfkit.alerts.seat import FileSeat, LocalSeat, RedisSeat, Seat
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.state import StateHub
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.periods import time_zone

if TYPE_CHECKING:
    from perfkit.metrics.reading import Readable

__all__ = ["Alerts"]

log = logging.getLogger("perfkit.alerts")

_KEPT = 86400.0  # seconds an alert without data is remembered
_LEASE = 3.0  # intervals after which a watcher that died on another host is replaced
_PATIENCE = 2.0  # seconds close() waits for notices under way
_GRAVITY: tuple[State, ...] = ("inactive", "resolved", "no-data", "pending", "firing")
_NEW = Alert(rule="")

Hook = Callable[[Alert], Any]


class Alerts(Shared):
    """Watches rules and tells hooks when their alerts change; the shared one is behind `perfkit.alerts`.

    Args:
        tracker: whose metrics, and those its workers share; None means the shared one.
        optimizer: whose budget of all calls for a day is `daily_limit` where that is not set; None: the shared.
        seat: who evaluates; None: by the tracker's `store`: one of the processes that share it.
        clock: None means the system's.
        **settings: keys of the `[alerts]` table: `interval` (seconds between evaluations), `defaults` (whether the four
            rules of the RecoAgent guide are there), `daily_limit` (US dollars), `webhook` (URL), `rules` (name to the
            fields of a Rule).

    Raises:
        ConfigError: a setting cannot be used.
    """

    _table = "alerts"

    def __init__(
        self,
        *,
        tracker: PerformanceTracker | None = None,
        optimizer: TokenOptimizer | None = None,
        seat: Seat | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(settings)
        self._tracker = tracker if tracker is not None else PerformanceTracker.instance()
        self._optimizer = optimizer if optimizer is not None else TokenOptimizer.instance()
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._given_seat = seat
        self._seat: Seat = LocalSeat()
        self._added: dict[str, Rule | None] = {}  # by name; None: removed
        self._hooks: tuple[Hook, ...] = ()
        self._webhook: Webhook | None = None
        self._started = False
        self._begin()
        self._apply()

    def _begin(self) -> None:
        self._lock = threading.Lock()  # guards _added, _hooks, _known and _held
        self._turn = threading.Lock()  # held by the one evaluation that may run
        self._worker: threading.Thread | None = None
        self._known: dict[Any, Alert] = {}
        self._held = False  # whether the seat was ours the last time

    def _after_fork(self) -> None:
        self._begin()
        self._seat.renew()

    def _apply(self) -> None:
        configured = {name: Rule.of(name, **fields) for name, fields in self.settings.rules.items()}
        self._webhook = Webhook(self.settings.webhook) if self.settings.webhook is not None else None
        defaults = default_rules() if self.settings.defaults else {}
        self._settled: Mapping[str, Rule] = {**defaults, **configured}
        self._seat.leave()
        self._seat = self._given_seat if self._given_seat is not None else self._chosen_seat()
        if self._started:
            self.start()

    def _chosen_seat(self) -> Seat:
        store = self._tracker.settings.store
        if store is None:
            return LocalSeat()
        if store != "redis":
            return FileSeat(Path(f"{store}-alerts"))
        link = StateHub.instance().redis
        if link is None:
            return LocalSeat()
        meanwhile = FileSeat(Path(tempfile.gettempdir()) / f"{link.key('alerts').replace(':', '-')}-{os.getuid()}")
        return RedisSeat(link, self.settings.interval * _LEASE, meanwhile)

    # --- rules and hooks

    def add_rule(
        self, name: str, condition: str, duration: str | float = 300.0, severity: str = "warning", **fields: Any
    ) -> Rule:
        """Watch a rule too, or another one in the place of one of the same name, and begin to watch.

        Args:
            name: unique.
            condition: for example "error_rate > 0.05".
            duration: seconds or text such as "5m" for which it must hold before the alert fires.
            severity: "info", "warning" or "critical".
            **fields: `by`, `window` and `min_count`, as `Rule` has them.

        Raises:
            ConfigError: one of them cannot be used.
        """
        rule = Rule.of(name, condition=condition, duration=duration, severity=severity, **fields)
        with self._lock:
            self._added = {**self._added, name: rule}
        self.start()
        return rule

    def remove_rule(self, name: str) -> None:
        """Watch a rule no longer.

        Raises:
            UnknownNameError: there is none of that name.
        """
        if name not in self._rules():
            raise UnknownNameError.of("alert rule", name, self._rules())
        with self._lock:
            self._added = {**self._added, name: None}

    def _rules(self) -> dict[str, Rule]:
        together: dict[str, Rule | None] = {**self._settled, **self._added}
        return {name: rule for name, rule in together.items() if rule is not None}

    def rules(self) -> list[Rule]:
        """Return all rules."""
        return list(self._rules().values())

    def on_change(self, hook: Hook) -> Hook:
        """Call `hook(alert)` whenever an alert changes its state, in the process that watches; also a decorator."""
        with self._lock:
            self._hooks = (*self._hooks, hook)
        self.start()
        return hook

    # --- asking

    def alerts(self) -> list[Alert]:
        """Return every alert there is or was lately, as the process that watches knows it."""
        rules = self._rules()
        return [alert for alert in (self._seen() or {}).values() if alert.rule in rules]

    def state(self) -> dict[str, State]:
        """Return the state of each rule: that of its gravest alert, "inactive" before the first evaluation."""
        seen = self._seen()
        states: dict[str, list[State]] = {rule.name: [] for rule in self.rules()}
        for alert in (seen or {}).values():
            states.get(alert.rule, []).append(alert.state)
        without: State = "inactive" if seen is None else "no-data"
        return {name: max(found, key=_GRAVITY.index, default=without) for name, found in states.items()}

    def _seen(self) -> dict[Any, Alert] | None:
        """Return all alerts as of the last evaluation, None before the first."""
        with self._lock:
            if self._held:
                return dict(self._known)
        return self._remembered()

    def _remembered(self) -> dict[Any, Alert] | None:
        notes = self._seat.read()
        try:
            found = [Alert.from_dict(row) for row in notes["alerts"]] if notes is not None else None
        except (KeyError, TypeError):  # another version's
            found = None
        return {alert.key: alert for alert in found} if found is not None else None

    # --- evaluating

    def evaluate(self) -> list[Alert]:
        """Evaluate all rules now, if this process has the seat, and tell the hooks.

        Returns:
            The alerts that changed.
        """
        _process.check()
        if not self._turn.acquire(blocking=False):
            return []
        try:
            changed = self._evaluated()
        finally:
            self._turn.release()
        for alert in changed:
            self._tell(alert)
        return changed

    def _evaluated(self) -> list[Alert]:
        if not self._seat.take():
            with self._lock:
                self._held = False
            return []
        before = self._seen() or {}
        now = self._clock.wall()
        view = self._tracker.merged()
        after = {alert.key: alert for rule in self.rules() for alert in self._alerts_of(rule, view, before, now)}
        changed = [alert for key, alert in after.items() if alert.state != before.get(key, _NEW).state]
        with self._lock:
            self._known, self._held = after, True
        self._seat.write({"at": now, "alerts": [alert.to_dict() for alert in after.values()]})
        return changed

    def _alerts_of(self, rule: Rule, view: Readable, before: Mapping[Any, Alert], now: float) -> Iterable[Alert]:
        for labels in _labels(rule, view, before.values()):
            new = Alert(rule=rule.name, labels=labels, since=now, seen=now)
            alert = before.get(new.key, new)
            readings = Readings(view, now, rule.window, labels, rule.min_count, self.daily_limit(), self._zone())
            holds, values = _judged(rule, readings)
            known = replace(alert, values=values or alert.values, severity=rule.severity, condition=rule.condition)
            alert = step(known, rule, holds, now)
            if not labels or (now - alert.seen < _KEPT and (holds is not None or new.key in before)):
                yield alert

    def _zone(self) -> Any:
        return time_zone(self._optimizer.settings.timezone)

    def daily_limit(self) -> float | None:
        """Return US dollars for a day: the setting, else the budget of all calls, None without either."""
        if self.settings.daily_limit is not None:
            limit: float = self.settings.daily_limit
            return limit
        rows = self._optimizer.budgets() if self._optimizer.has_budgets else []
        return next((row["limit"] for row in rows if row["scope"][0] == "global" and row["period"] == "day"), None)

    def _tell(self, alert: Alert) -> None:
        webhook = () if self._webhook is None else (self._webhook,)
        for hook in (log_change, *webhook, *self._hooks):
            try:
                hook(alert)
            except Exception:
                log.warning("an alert hook failed; %s was not told", alert.rule, exc_info=True)

    # --- life

    def start(self) -> None:
        """Begin to watch in this process; done by `add_rule` and `on_change` too."""
        self._started = True
        _process.background.every(self.settings.interval, self._tick)

    def _tick(self) -> None:
        worker = self._worker
        if worker is None or not worker.is_alive():
            worker = threading.Thread(target=self.evaluate, name="perfkit-alerts", daemon=True)
            worker.start()
            self._worker = worker

    def close(self) -> None:
        """End watching, and let another process of the application take over."""
        _process.background.cancel(self._tick)
        worker = self._worker
        if worker is not None and worker is not threading.current_thread():
            worker.join(_PATIENCE)
        self._seat.leave()
        self._held = False

    def reset(self) -> None:
        """Close, and forget what was added and seen."""
        self.close()
        self._started = False
        with self._lock:
            self._added, self._hooks, self._known = {}, (), {}
        self._seat = self._given_seat if self._given_seat is not None else self._chosen_seat()

    def __repr__(self) -> str:
        firing = [alert.rule for alert in self._known.values() if alert.state == "firing"]
        return f"Alerts({len(self._rules())} rules, firing: {', '.join(firing) or 'none'})"


def _labels(rule: Rule, view: Readable, known: Iterable[Alert]) -> list[dict[str, str]]:
    """Return the labels of each alert that a rule has: one without any, or one each that was ever seen."""
    if not rule.by:
        return [{}]
    seen = [series.tags for series in view.series() if series.name in (SUCCESSES, FAILURES)]
    seen += [alert.labels for alert in known if alert.rule == rule.name]
    found = {tuple(tags[name] for name in rule.by) for tags in seen if all(name in tags for name in rule.by)}
    return [dict(zip(rule.by, values, strict=True)) for values in sorted(found)]


def _judged(rule: Rule, readings: Readings) -> tuple[bool | None, dict[str, float]]:
    """Return whether the condition holds, None where that cannot be told, and the values it was judged by."""
    values: dict[str, float] = {}

    def read(wanted: Reading) -> float:
        value = values[str(wanted)] = readings.read(wanted)
        return value

    try:
        return rule.parsed.holds(read), values
    except NoDataError:
        return None, {}
