"""A sink that keeps what it gets: for tests and for looking at what would be sent."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.metrics.sinks import Kind
    from perfkit.metrics.sinks.calls import FinishedCall

__all__ = ["Emitted", "MemorySink"]


class Emitted(NamedTuple):
    """One call of `emit`."""

    kind: Kind
    name: str
    value: float
    tags: dict[str, str]


class MemorySink:
    """Keeps the newest values.

    Args:
        size: how many.

    Attributes:
        emitted: what came in, oldest first.
        calls: the chat calls that ended, oldest first.
    """

    def __init__(self, *, size: int = 10_000) -> None:
        self.emitted: deque[Emitted] = deque(maxlen=size)
        self.calls: deque[FinishedCall] = deque(maxlen=size)

    def emit(self, kind: Kind, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Keep one value."""
        self.emitted.append(Emitted(kind, name, value, dict(tags)))

    def finished(self, call: FinishedCall) -> None:
        """Keep one call."""
        self.calls.append(call)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open; what was kept stays readable."""
