"""A sink that writes to the application's log: a line a series and minute, for where nothing else is at hand."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from perfkit import _process
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.metrics.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.metrics.series import Key
    from perfkit.metrics.sinks import Kind

__all__ = ["LoggingSink"]

_HELD = 256  # values of a series until they are put into its sketch


class LoggingSink:
    """Logs what each series was given since the last time, to logger `perfkit.metrics.values`.

    Args:
        interval: seconds between two logs; less than the tracker's flush interval means each flush.
        level: of the lines.
        clock: None means the system's.
    """

    def __init__(self, *, interval: float = 60.0, level: int = logging.INFO, clock: Clock | None = None) -> None:
        self._interval = interval
        self._level = level
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._log = logging.getLogger("perfkit.metrics.values")
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards all below, but for appending to a list of _values
        self._values: dict[Key, list[float]] = {}
        self._sketches: dict[Key, Sketch] = {}
        self._due = self._clock.now() + self._interval

    def emit(self, kind: Kind, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Keep a value until the next log."""
        key = (kind, name, tuple(tags.items()))
        values = self._values.setdefault(key, [])
        values.append(value)
        if len(values) >= _HELD and self._lock.acquire(blocking=False):
            try:
                self._settle(key)
            finally:
                self._lock.release()

    def _settle(self, key: Key) -> None:
        held = self._values[key]
        values = held[:]
        del held[: len(values)]  # others may have appended since
        if values:
            self._sketches.setdefault(key, Sketch()).add(values)

    def flush(self) -> None:
        """Log, if it is time."""
        if self._clock.now() >= self._due:
            self._write()

    def close(self) -> None:
        """Log what there is."""
        self._write()

    def _write(self) -> None:
        with self._lock:
            for key in list(self._values):
                self._settle(key)
            sketches, self._sketches = self._sketches, {}
            self._due = self._clock.now() + self._interval
        for (kind, name, tags), sketch in sketches.items():
            labels = "".join(f" {tag}={value!r}" for tag, value in tags)
            self._log.log(self._level, "%s%s %s", name.encode("unicode_escape").decode(), labels, _text(kind, sketch))


def _text(kind: Kind, sketch: Sketch) -> str:
    if kind == "counter":
        return f"+{sketch.total:g}"
    if kind == "gauge":
        return f"min={sketch.minimum:g} max={sketch.maximum:g}"
    stats = sketch.stats()
    return " ".join(f"{name}={stats[name]:.6g}" for name in ("count", "avg", "p50", "p95", "p99", "max"))
