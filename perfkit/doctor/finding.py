"""What the doctor says about one thing it looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "Level", "fine", "problem", "warning"]

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        check: name of the check.
        level: "ok", "warning" (calls are slower than they need be) or "problem" (calls fail, or will).
        found: what is the case.
        why: what it does to calls; "" when all is well.
        do: what to do about it; "" when there is nothing to do.
    """

    check: str
    level: Level
    found: str
    why: str = ""
    do: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return asdict(self)


def fine(check: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, why: str, do: str) -> Finding:
    """Return a finding that costs time."""
    return Finding(check, "warning", found, why, do)


def problem(check: str, found: str, why: str, do: str) -> Finding:
    """Return a finding that breaks calls."""
    return Finding(check, "problem", found, why, do)
