"""What waits for the sinks: recording puts whole batches here, the background thread hands them on, value by value.

A sink takes microseconds a value, a batch has hundreds of them, and whoever records has no time for that: what a record
costs must not depend on whether there are sinks. What they cannot keep up with is dropped, the oldest first, and
counted as the metric `metrics_dropped`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perfkit.metrics.handle import Handle
    from perfkit.metrics.sinks import Sink

__all__ = ["Outbox"]

_MOST = 131_072  # values waiting: a second of what 32 000 calls record, and 4 MB
_LOOK = 64  # batches between two counts of them


class Outbox:
    """Batches on their way to sinks; no lock, since each step on the queue is atomic.

    Args:
        dropped: called with the number of values that were.
    """

    def __init__(self, dropped: Callable[[int], None]) -> None:
        self._dropped = dropped
        self._batches: deque[tuple[Handle, Sequence[float]]] = deque()

    def put(self, handle: Handle, values: Sequence[float]) -> None:
        """Queue what a handle has counted; never blocks, and may interrupt this very class."""
        self._batches.append((handle, values))
        if len(self._batches) % _LOOK == 0:
            self._make_room()

    def _make_room(self) -> None:
        waiting = sum([len(values) for _, values in tuple(self._batches)])
        lost = 0
        while waiting - lost > _MOST and (batch := self._next()) is not None:
            lost += len(batch[1])
        if lost:
            self._dropped(lost)

    def _next(self) -> tuple[Handle, Sequence[float]] | None:
        try:
            return self._batches.popleft()
        except IndexError:
            return None

    def deliver(self, sinks: Sequence[Sink], failed: Callable[[object], None]) -> None:
        """Hand all that waits to each sink; `failed` is called for one that raises, whose batch is lost to it."""
        while (batch := self._next()) is not None:
            handle, values = batch
            for sink in sinks:
                try:
                    for value in values:
                        sink.emit(handle.kind, handle.name, value, handle.tags)
                except Exception:
                    failed(sink)

    def clear(self) -> None:
        """Forget everything, in a forked child: its parent hands it on."""
        self._batches.clear()
