"""CPU profiles and slow runs as a file: a page that needs nothing else, speedscope's JSON, or collapsed stacks."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

from perfkit.profiling.stacks import Stacks, page, speedscope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from perfkit.profiling.reports import CPUReport
    from perfkit.profiling.slow import SlowRun

__all__ = ["slow_stacks", "write"]

_FORMS = (".html", ".json", ".txt", ".collapsed")


def write(path: Path, reports: Sequence[CPUReport], slow: Sequence[SlowRun]) -> Path:
    """Write a file in the form of its suffix.

    Raises:
        ValueError: the suffix is another, or there is nothing to write.
    """
    if path.suffix not in _FORMS:
        raise ValueError(f"no form of export has the suffix {path.suffix!r}; known: {', '.join(_FORMS)}")
    named = [(f"{one.operation} ({one.engine})", one.stacks) for one in reports]
    named += [(f"{one.operation} (slow, {one.age:.2f} s)", slow_stacks(one)) for one in slow]
    if not named:
        raise ValueError("nothing to export: neither is a CPU profile stored nor was a slow run caught")
    path.write_text(_written(path.suffix, named, slow), encoding="utf-8")
    return path


def _written(suffix: str, named: list[tuple[str, Stacks]], slow: Sequence[SlowRun]) -> str:
    if suffix == ".json":
        return json.dumps(speedscope(named))
    if suffix == ".html":
        graphs = "".join(stacks.section(title) for title, stacks in named if stacks.seconds)
        return page("perfkit profiles", f"<h1>perfkit profiles</h1>{graphs}{''.join(map(_told, slow))}")
    return "".join(stacks.collapsed() for _, stacks in named)


def slow_stacks(slow: SlowRun) -> Stacks:
    """Return a slow run as stacks: each capture stands for the time since the one before, the last for the rest."""
    seconds: dict[tuple[str, ...], float] = {}
    ages = [one.age for one in slow.captures[1:]] + [max(slow.age, slow.captures[-1].age)]
    last = 0.0
    for capture, until in zip(slow.captures, ages, strict=True):
        stack = tuple(str(frame) for frame in capture.stack)
        seconds[stack] = seconds.get(stack, 0.0) + until - last
        last = until
    return Stacks(seconds)


def _told(slow: SlowRun) -> str:
    notes = (f"{one['kind']} {one['name']}: {one['seconds']:.3f} s" for one in slow.overlapped)
    parts = [f"<h2>{escape(repr(slow))}</h2>", *(f"<p>{escape(note)}</p>" for note in notes)]
    for capture in slow.captures:
        lines = "\n".join(str(frame) for frame in capture.stack)
        parts.append(f"<h3>after {capture.age:.2f} s</h3><pre>{escape(lines)}</pre>")
    return "".join(parts)
