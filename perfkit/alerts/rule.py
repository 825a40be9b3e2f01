"""A rule, and the life of its alerts: one pure step from state to state.

The states are Prometheus' inactive, pending (the condition holds, not yet for the whole duration) and firing, then
resolved, which is inactive again after a while, and no-data: a metric that is gone, or renamed, must not look like one
that is well. A gap shorter than the rule's own duration changes nothing, since a provider that is down is asked rarely.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from perfkit.alerts.condition import Condition, parse, seconds
from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SEVERITIES", "Alert", "Rule", "State", "step"]

State = Literal["inactive", "pending", "firing", "resolved", "no-data"]

SEVERITIES = ("info", "warning", "critical")
_KEPT = 900.0  # seconds an alert is shown as resolved
_WINDOW = (60.0, 300.0)  # seconds a rate is taken over: the rule's duration, at least and at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is watched.

    Attributes:
        name: unique.
        condition: for example "error_rate > 0.05"; see `perfkit.alerts.condition`.
        duration: seconds, or text such as "5m", for which it must hold before the alert fires.
        severity: "info", "warning" or "critical".
        by: tags, as "provider", each value of which has an alert of its own.
        window: seconds over which readings are taken; 0 means the duration, at least 1 and at most 5 minutes.
        min_count: values that each reading needs in the window; with fewer there is no data.

    Raises:
        ConfigError: one of them cannot be used.
    """

    name: str
    condition: str
    duration: float = 300.0
    severity: str = "warning"
    by: tuple[str, ...] = ()
    window: float = 0.0
    min_count: int = 1
    parsed: Condition = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"a rule needs a name, not {self.name!r}")
        if self.severity not in SEVERITIES:
            raise ConfigError(f"severity of {self.name} must be one of {', '.join(SEVERITIES)}, not {self.severity!r}")
        if isinstance(self.min_count, bool) or not isinstance(self.min_count, int) or self.min_count < 1:
            raise ConfigError(f"min_count of {self.name} must be a whole number from 1, not {self.min_count!r}")
        duration = seconds(self.duration)
        window = seconds(self.window) or min(max(duration, _WINDOW[0]), _WINDOW[1])
        made = {"duration": duration, "window": window, "parsed": parse(self.condition)}
        for attribute, value in made.items():
            object.__setattr__(self, attribute, value)

    @classmethod
    def of(cls, name: str, **fields: Any) -> Self:
        """Build from what people write: durations as text, one label alone.

        Raises:
            ConfigError: a field is not known, is missing or cannot be used.
        """
        by = fields.get("by", ())
        try:
            return cls(name=name, **{**fields, "by": (by,) if isinstance(by, str) else tuple(by)})
        except TypeError as error:
            raise ConfigError(f"alert rule {name!r}: {error}", key=f"alerts.rules.{name}") from error

    @property
    def patience(self) -> float:
        """Seconds without data after which the state is no-data."""
        return max(self.duration, self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One rule's state for one set of labels; all times are epoch seconds.

    Attributes:
        rule: its name.
        labels: of `Rule.by`, empty without.
        state: where it is in its life.
        since: when it came there.
        seen: when there was data last.
        fired: whether it has fired and was not resolved since.
        values: the condition's readings, when there was data last.
        severity: of the rule.
        condition: of the rule.
        previous: state before this one.
    """

    rule: str
    labels: Mapping[str, str] = field(default_factory=dict)
    state: State = "inactive"
    since: float = 0.0
    seen: float = 0.0
    fired: bool = False
    values: Mapping[str, float] = field(default_factory=dict)
    severity: str = "warning"
    condition: str = ""
    previous: State = "inactive"

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Rule and labels."""
        return self.rule, tuple(sorted(self.labels.items()))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        made = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**made, "labels": dict(self.labels), "values": dict(self.values)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s form; keys of a newer version are ignored."""
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})


def step(alert: Alert, rule: Rule, holds: bool | None, now: float) -> Alert:
    """Return what becomes of an alert at `now`, when its condition holds, does not, or (None) cannot be told."""
    if holds is None:
        if alert.state == "no-data" or now - alert.seen <= rule.patience:
            return alert
        return _moved(alert, "no-data", now)
    state = _violated(alert, rule, now) if holds else _well(alert, now)
    seen = replace(alert, seen=now)
    return seen if state == alert.state else _moved(seen, state, now)


def _violated(alert: Alert, rule: Rule, now: float) -> State:
    if alert.state == "firing" or (alert.state == "no-data" and alert.fired):
        return "firing"
    if alert.state == "pending":
        return "firing" if now - alert.since >= rule.duration else "pending"
    return "pending" if rule.duration else "firing"


def _well(alert: Alert, now: float) -> State:
    if alert.state == "firing" or (alert.state == "no-data" and alert.fired):
        return "resolved"
    return "resolved" if alert.state == "resolved" and now - alert.since < _KEPT else "inactive"


def _moved(alert: Alert, state: State, now: float) -> Alert:
    fired = state == "firing" or (alert.fired and state == "no-data")
    return replace(alert, state=state, since=now, previous=alert.state, fired=fired)
