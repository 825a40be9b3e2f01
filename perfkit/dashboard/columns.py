"""The columns of the page's tables: the key in a row, the heading, and how a value is written."""

from __future__ import annotations

from typing import Any

from perfkit.dashboard import formats

__all__ = [
    "AGENTS", "ALERTS", "BUDGETS", "CALLS", "CONNECTIONS", "FUNCTIONS", "MEANWHILE", "MODELS", "PROFILES", "PROVIDERS",
    "RECORDED", "SLOW", "USAGE", "WORKERS", "Column",
]  # fmt: skip

Column = tuple[str, str, Any]  # key of the row, heading, format

PROVIDERS: tuple[Column, ...] = (
    ("name", "Provider", formats.name),
    ("status", "State", formats.text),
    ("state", "Circuit", formats.text),
    ("requests", "Attempts", formats.count),
    ("p50", "p50", formats.seconds),
    ("p95", "p95", formats.seconds),
    ("first_token", "First token", formats.seconds),
    ("success_rate", "Success", formats.percent),
    ("rate_limited", "429s", formats.count),
    ("cooldown", "Cooldown left", formats.seconds),
    ("in_flight", "In flight", formats.count),
    ("cost", "Cost", formats.dollars),
)
WORKERS: tuple[Column, ...] = (
    ("name", "Worker", formats.name),
    ("age", "Age of data", formats.seconds),
    ("memory", "Memory", formats.size),
    ("collections", "Collections by generation", formats.text),
)
MODELS: tuple[Column, ...] = (
    ("name", "Provider / model", formats.name),
    ("requests", "Requests", formats.count),
    ("success_rate", "Success", formats.percent),
    ("p50", "p50", formats.seconds),
    ("p95", "p95", formats.seconds),
    ("total_tokens", "Tokens", formats.count),
    ("total_cost", "Cost", formats.dollars),
    ("errors", "Errors", formats.text),
)
USAGE: tuple[Column, ...] = (
    ("agent", "Agent", formats.name),
    ("model", "Model", formats.name),
    ("tokens_input", "Input", formats.count),
    ("tokens_cached", "of these cached", formats.count),
    ("tokens_output", "Output", formats.count),
    ("tokens_reasoning", "of these reasoning", formats.count),
    ("cost", "Cost", formats.dollars),
)
CONNECTIONS: tuple[Column, ...] = (
    ("name", "Host", formats.name),
    ("in_use", "In use", formats.count),
    ("idle", "Idle", formats.count),
    ("waiters", "Waiting", formats.count),
    ("created", "Opened", formats.count),
    ("reused", "Reused", formats.count),
    ("wait_p95", "Wait p95", formats.seconds),
)
AGENTS: tuple[Column, ...] = (
    ("name", "Agents", formats.name),
    ("in_use", "In use", formats.count),
    ("idle", "Idle", formats.count),
    ("waiters", "Waiting", formats.count),
    ("lent", "Lent", formats.count),
    ("timeouts", "Timeouts", formats.count),
)
PROFILES: tuple[Column, ...] = (
    ("timestamp", "Ended", formats.moment),
    ("operation", "Operation", formats.name),
    ("duration", "Time", formats.seconds),
    ("cpu_time", "CPU", formats.seconds),
    ("error", "Error", formats.text),
)
ALERTS: tuple[Column, ...] = (
    ("rule", "Alert", formats.text),
    ("state", "State", formats.text),
    ("severity", "Severity", formats.text),
    ("labels", "Of", formats.name),
    ("since", "Since", formats.moment),
    ("values", "Values", formats.text),
    ("condition", "Condition", formats.text),
)
FUNCTIONS: tuple[Column, ...] = (
    ("name", "Function", formats.name),
    ("self_time", "Itself", formats.seconds),
    ("total_time", "In all", formats.seconds),
)
MEANWHILE: tuple[Column, ...] = (
    ("kind", "What", formats.text),
    ("name", "Which", formats.name),
    ("seconds", "Time", formats.seconds),
)
SLOW: tuple[Column, ...] = (
    ("began", "Slow run", formats.moment),
    ("operation", "Operation", formats.name),
    ("age", "Time", formats.seconds),
    ("where", "Where", formats.text),
    ("id", "Flame graph", formats.text),
)
RECORDED: tuple[Column, ...] = (
    ("timestamp", "CPU profile", formats.moment),
    ("operation", "Operation", formats.name),
    ("total_time", "Time", formats.seconds),
    ("engine", "By", formats.text),
    ("id", "Flame graph", formats.text),
)
BUDGETS: tuple[Column, ...] = (
    ("scope", "Budget", formats.name),
    ("period", "Period", formats.text),
    ("limit", "Limit", formats.dollars),
    ("remaining", "Left", formats.dollars),
    ("used", "Used", formats.percent),
)
CALLS: tuple[Column, ...] = (
    ("ended", "Call", formats.moment),
    ("model", "Model", formats.name),
    ("asked", "Asked last", formats.text),
    ("answered", "Answered", formats.text),
    ("seconds", "Time", formats.seconds),
)
