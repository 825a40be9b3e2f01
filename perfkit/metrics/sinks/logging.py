"""Sinks that write to the application's log, where nothing else is at hand: a line a call, or a series and minute."""

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
    from perfkit.metrics.sinks.calls import FinishedCall
    from perfkit.values import ChatResponse

__all__ = ["CallLog", "LoggingSink"]

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


class CallLog:
    """Logs each chat call that ends, to logger `perfkit.calls`: model, time, tokens, cost or the error, who was asked.

    No text of prompts and answers is in it. Where the application has set up no logging, the lines go to stderr.
    """

    def __init__(self) -> None:
        self._log = logging.getLogger("perfkit.calls")
        if self._log.level == logging.NOTSET:  # the application's own wins
            self._log.setLevel(logging.INFO)
        if not self._log.handlers:
            shown = logging.StreamHandler()
            shown.addFilter(lambda _: not logging.getLogger().handlers)
            self._log.addHandler(shown)

    def emit(self, kind: Kind, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Leave single values out."""

    def finished(self, call: FinishedCall) -> None:
        """Log one call."""
        answer = call.response
        what = type(call.error).__name__ if answer is None else _of_answer(answer)
        tried = ", ".join(f"{one.provider} {one.error or one.outcome}" for one in call.attempts)
        self._log.info("%r: %.3f s, %s%s", call.request.model, call.seconds, what, tried and f" (asked: {tried})")

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


def _of_answer(answer: ChatResponse) -> str:
    cost = "unknown" if answer.cost is None else f"${answer.cost:.6f}"
    tokens = f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens"
    return f"{tokens}, cost {cost}, cached: {answer.cached or 'no'}"
