"""Conditions of alert rules: a small language of numbers, names of readings and comparisons, and nothing else.

It is Python's own grammar cut down by a whitelist of syntax nodes, so that `error_rate > 0.05 and count("x") >= 20`
reads as expected and no condition, wherever it comes from, can do anything but compare numbers. Durations are written
as in the RecoAgent guide: 500ms, 10s, 5m, 1h, 1d.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfkit.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FUNCTIONS", "NAMES", "Condition", "NoDataError", "Reading", "parse", "seconds"]

NAMES = frozenset({
    "error_rate", "success_rate", "request_count", "throughput", "cache_hit_rate", "avg_first_token",
    "avg_response_time", "p50_response_time", "p90_response_time", "p95_response_time", "p99_response_time",
    "daily_cost", "daily_limit",
})  # fmt: skip
FUNCTIONS = frozenset({"avg", "min", "max", "sum", "count", "rate", "p50", "p90", "p95", "p99"})

_LONGEST = 500  # characters
_DEEPEST = 20  # nested operations
_GREATEST = 1e300  # number
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"""("[^"]*"|'[^']*')|(?<![\w.])(\d+(?:\.\d+)?)(ms|s|m|h|d)\b""")
_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


class NoDataError(Exception):
    """A reading has no values, too few of them, or a division by zero: the condition is neither true nor false."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a condition asks for.

    Attributes:
        name: one of `NAMES`, or one of `FUNCTIONS`.
        metric: the metric a function is applied to, empty for names.
        tags: pairs that the function's series must have.
    """

    name: str
    metric: str = ""
    tags: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        tags = "".join(f", {name}={value!r}" for name, value in self.tags)
        return f"{self.name}({self.metric!r}{tags})" if self.metric else self.name


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition.

    Attributes:
        text: as it was written.
        tree: its checked syntax tree.
        readings: what it asks for.
    """

    text: str
    tree: ast.expr
    readings: frozenset[Reading]

    def holds(self, read: Callable[[Reading], float]) -> bool:
        """Return whether it is true of what `read` returns.

        Raises:
            NoDataError: that cannot be told.
        """
        return bool(_evaluated(self.tree, read))


def seconds(duration: str | float) -> float:
    """Return the seconds of "10s", "5m" or a number.

    Raises:
        ConfigError: it is neither, or negative.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", duration) if isinstance(duration, str) else None
    if match is not None:
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(duration, str | bool) or not 0 <= duration < math.inf:
        raise ConfigError(f"a duration is a number of seconds or such as '10s', '5m', '1h', not {duration!r}")
    return float(duration)


def parse(text: str) -> Condition:
    """Return a checked condition.

    Raises:
        ConfigError: it is not a comparison of known readings.
    """
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
        raise ConfigError(f"a condition is text of at most {_LONGEST} characters, such as 'error_rate > 0.05'")
    try:
        tree = ast.parse(_DURATION.sub(_in_seconds, text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"condition {text!r} cannot be read: {error}") from error
    found: set[Reading] = set()
    _check(tree, text, found, _DEEPEST)
    if not isinstance(tree, ast.Compare | ast.BoolOp) and not _negates(tree):
        raise ConfigError(f"condition {text!r} compares nothing; write for example 'error_rate > 0.05'")
    if not found:
        raise ConfigError(f"condition {text!r} names no reading; known: {', '.join(sorted(NAMES))}")
    return Condition(text, tree, frozenset(found))


def _in_seconds(match: re.Match[str]) -> str:
    return match[1] or repr(float(match[2]) * _UNITS[match[3]])


def _negates(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _check(node: ast.AST, text: str, found: set[Reading], depth: int) -> None:
    """Refuse everything that is not on the whitelist, and gather the readings."""
    if depth == 0:
        raise ConfigError(f"condition {text!r} is nested too deeply")
    if isinstance(node, ast.Name | ast.Call):
        found.add(reading(node, text))
        return
    for child in _parts(node, text):
        _check(child, text, found, depth - 1)


def _parts(node: ast.AST, text: str) -> list[ast.expr]:
    """Return the operands of an allowed operation, none for a number."""
    match node:
        case ast.BoolOp(values=parts):
            return parts
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return [left, right]
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            return [operand]
        case ast.Compare(left=left, ops=ops, comparators=parts) if all(type(op) in _COMPARISONS for op in ops):
            return [left, *parts]
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and abs(number) < _GREATEST:
            return []
    raise ConfigError(f"condition {text!r}: {type(node).__name__} is not allowed; write comparisons of readings")


def reading(node: ast.Name | ast.Call, text: str = "") -> Reading:
    """Return the reading that a name or a call stands for.

    Raises:
        ConfigError: it is not known, or has other arguments than a metric and tags.
    """
    if isinstance(node, ast.Name):
        if node.id not in NAMES:
            known = ", ".join(sorted(NAMES | {f"{name}('metric')" for name in FUNCTIONS}))
            raise ConfigError(f"condition {text!r}: no reading {node.id!r}; known: {known}{nearest(node.id, NAMES)}")
        return Reading(node.id)
    match node:
        case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str() as metric)], keywords=tags) if (
            name in FUNCTIONS and all(tag.arg and _is_text(tag.value) for tag in tags)
        ):
            return Reading(name, metric, tuple(sorted((tag.arg, tag.value.value) for tag in tags)))  # type: ignore[attr-defined, misc]
    known = ", ".join(sorted(FUNCTIONS))
    raise ConfigError(
        f"condition {text!r}: a call is one of {known} with a metric in quotes, and tags: avg('x', a='b')"
    )


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _evaluated(node: ast.expr, read: Callable[[Reading], float]) -> Any:
    match node:
        case ast.Constant(value=value):
            return float(value)  # type: ignore[arg-type]
        case ast.Name() | ast.Call():
            return read(reading(node))
        case ast.BoolOp(op=op, values=parts):
            return (all if isinstance(op, ast.And) else any)([bool(_evaluated(part, read)) for part in parts])
        case ast.UnaryOp(op=op, operand=operand):
            value = _evaluated(operand, read)
            return not value if isinstance(op, ast.Not) else -value
        case ast.BinOp(left=left, op=op, right=right):
            return _calculated(op, _evaluated(left, read), _evaluated(right, read))
        case ast.Compare(left=left, ops=ops, comparators=parts):
            values = [_evaluated(part, read) for part in (left, *parts)]
            return all(
                _COMPARISONS[type(op)](one, other) for op, one, other in zip(ops, values, values[1:], strict=False)
            )
    raise AssertionError(node)  # parse() lets nothing else through


def _calculated(op: ast.operator, left: float, right: float) -> float:
    try:
        result: float = _ARITHMETIC[type(op)](left, right)
    except ZeroDivisionError:
        raise NoDataError from None
    return result
