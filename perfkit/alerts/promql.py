"""Rules as Prometheus evaluates them: the same conditions over the same metrics, as `/metrics` exports them."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfkit.alerts.condition import Reading, reading
from perfkit.alerts.readings import COST, FAILURES, SUCCESSES
from perfkit.errors import ConfigError
from perfkit.metrics.sinks.prometheus import family_name, label_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perfkit.alerts.rule import Rule
    from perfkit.metrics.sinks import Kind

__all__ = ["expression", "to_prometheus"]

_SYMBOLS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_OPPOSITES: dict[type[ast.AST], str] = {
    ast.Gt: "<=", ast.GtE: "<", ast.Lt: ">=", ast.LtE: ">", ast.Eq: "!=", ast.NotEq: "==",
}  # fmt: skip
_QUANTILES = {"p50": "0.5", "p90": "0.9", "p95": "0.95", "p99": "0.99"}


def to_prometheus(rules: Iterable[Rule], *, daily_limit: float | None = None, prefix: str = "perfkit") -> str:
    """Return a rule file in YAML; its strings are JSON's, so nothing in them can break out.

    `daily_cost` becomes that of the last 24 hours, as Prometheus knows no midnight.

    Args:
        rules: what to export; a rule that reads `daily_limit` is left out while there is none.
        daily_limit: US dollars, written into the rules as it is now.
        prefix: of the metrics' names.

    Raises:
        ConfigError: a rule has a condition that PromQL cannot say.
    """
    lines = ["groups:", "- name: perfkit", "  rules:"]
    for rule in rules:
        if daily_limit is None and Reading("daily_limit") in rule.parsed.readings:
            continue
        summary = f"{rule.condition} for {rule.duration:g} s"
        lines += [
            f"  - alert: {json.dumps(rule.name)}",
            f"    expr: {json.dumps(expression(rule, daily_limit=daily_limit, prefix=prefix))}",
            f"    for: {round(rule.duration * 1000)}ms",
            f"    labels: {{severity: {json.dumps(rule.severity)}}}",
            f"    annotations: {{summary: {json.dumps(summary)}}}",
        ]
    return "\n".join(lines) + "\n" if len(lines) > 3 else "groups: []\n"  # noqa: PLR2004 - the head


def expression(rule: Rule, *, daily_limit: float | None = None, prefix: str = "perfkit") -> str:
    """Return a rule's condition, minimum count included, in PromQL.

    Raises:
        ConfigError: PromQL cannot say it.
    """
    writer = _Writer(rule, daily_limit, prefix)
    condition = writer.write(rule.parsed.tree)
    counts = sorted({count for one in rule.parsed.readings if (count := writer.count_of(one)) is not None})
    labels = ", ".join(map(label_name, rule.by))
    enough = "".join(f" and on ({labels}) ({count} >= {rule.min_count})" for count in counts)
    return f"({condition}){enough}" if enough else condition


@dataclass(frozen=True, slots=True)
class _Writer:
    rule: Rule
    daily_limit: float | None
    prefix: str

    def write(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=value):
                return repr(float(value))  # type: ignore[arg-type]
            case ast.Name() | ast.Call():
                return self._reading(reading(node))
            case ast.BoolOp(op=op, values=parts):
                word = " and " if isinstance(op, ast.And) else " or "
                return word.join(f"({self.write(part)})" for part in parts)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return f"-({self.write(operand)})"
            case ast.UnaryOp(operand=ast.Compare(left=left, ops=[op], comparators=[right])):
                return f"({self.write(left)}) {_OPPOSITES[type(op)]} ({self.write(right)})"
            case ast.BinOp(left=left, op=op, right=right) | ast.Compare(left=left, ops=[op], comparators=[right]):
                return f"({self.write(left)}) {_SYMBOLS[type(op)]} ({self.write(right)})"
        raise ConfigError(f"rule {self.rule.name}: PromQL has no way to say {self.rule.condition!r}")

    def count_of(self, wanted: Reading) -> str | None:
        """Return the number of values behind a reading that needs a minimum of them."""
        if wanted.name in ("error_rate", "success_rate"):
            return self._requests()
        if wanted.name == "cache_hit_rate":
            return f"({self._increase('counter', 'cache_hit')} + {self._increase('counter', 'cache_miss')})"
        if wanted.name in ("daily_cost", "daily_limit", "request_count", "throughput", "count", "sum", "rate"):
            return None
        return self._increase("timing", self._metric(wanted), "_count", wanted.tags)

    def _metric(self, wanted: Reading) -> str:
        return wanted.metric or ("first_token" if wanted.name == "avg_first_token" else SUCCESSES)

    def _reading(self, wanted: Reading) -> str:
        failures, requests = self._failures(), self._requests()
        special = {
            "error_rate": f"{failures} / {requests}",
            "success_rate": f"1 - {failures} / {requests}",
            "request_count": requests,
            "throughput": f"{requests} / {self.rule.window:g}",
            "daily_cost": self._increase("counter", COST, window=86400.0),
            "daily_limit": f"{self.daily_limit}",
        }.get(wanted.name)
        if special is not None:
            return special
        if wanted.name == "cache_hit_rate":
            hits = self._increase("counter", "cache_hit")
            return f"{hits} / {self.count_of(wanted)}"
        return self._applied(wanted.name.partition("_")[0], self._metric(wanted), wanted.tags)

    def _applied(self, function: str, metric: str, tags: tuple[tuple[str, str], ...]) -> str:
        total, count = (self._increase("timing", metric, part, tags) for part in ("_sum", "_count"))
        if function in _QUANTILES:
            buckets = self._increase("timing", metric, "_bucket", tags, keep=("le",))
            return f"histogram_quantile({_QUANTILES[function]}, {buckets})"
        known = {"avg": f"{total} / {count}", "sum": total, "count": count, "rate": f"{total} / {self.rule.window:g}"}
        if function not in known:
            raise ConfigError(f"rule {self.rule.name}: Prometheus does not know the {function} of {metric}")
        return known[function]

    def _failures(self) -> str:
        """Return the attempts that failed: 0 where there are only others."""
        failures = self._increase("counter", FAILURES)
        return f"({failures} or {self._increase('timing', SUCCESSES, '_count')} * 0)"

    def _requests(self) -> str:
        failures, successes = self._increase("counter", FAILURES), self._increase("timing", SUCCESSES, "_count")
        return f"(({failures} or {successes} * 0) + ({successes} or {failures} * 0))"

    def _increase(
        self,
        kind: Kind,
        metric: str,
        part: str = "",
        tags: tuple[tuple[str, str], ...] = (),
        *,
        window: float | None = None,
        keep: tuple[str, ...] = (),
    ) -> str:
        name = family_name(kind, metric, self.prefix) + part
        labels = ", ".join((*map(label_name, self.rule.by), *keep))
        wanted = ",".join(f"{label_name(tag)}={json.dumps(value)}" for tag, value in tags)
        back = round(1000 * (self.rule.window if window is None else window))
        return f"sum by ({labels}) (increase({name}{{{wanted}}}[{back}ms]))"
