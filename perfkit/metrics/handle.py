"""The record path: one handle a series, made so that recording costs little more than an append to a list.

Only values of the current time slot are ever in the buffer, so a value needs neither a timestamp nor a thread: a
reading of the clock tells when the slot is over, and every 256 values go into the sketch together. The path takes locks
only by trying, since it also runs in signal handlers, finalisers and garbage collector callbacks: when the lock is
taken the values stay in the buffer for whoever comes next.
"""

from __future__ import annotations

import functools
import math
import threading
from numbers import Number
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from perfkit.metrics.window import SLOT, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from perfkit.metrics.series import Key, SeriesTable
    from perfkit.metrics.sketch import Sketch
    from perfkit.metrics.window import Slots

__all__ = ["Handle", "RefusingHandle", "Timer"]

P = ParamSpec("P")
R = TypeVar("R")

_BATCH = 512  # values: the worst record, which drains them, takes some 60 us


def _admitted(value: Any) -> float | None:
    """Return any finite number as float, None for all that is not one."""
    if value.__class__ is not int and (isinstance(value, bool) or not isinstance(value, Number)):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except Exception:  # complex, too big for a float, or a foreign number's own idea
        return None
    return number if math.isfinite(number) else None


class Handle:
    """One series, found once and recorded to often; stays good after `reset()` and in forked children.

    Attributes:
        name: the metric's name.
        tags: its tags, values as text.
        kind: what sinks make of it: "timing" (seconds), "value", "counter" or "gauge".
    """

    __slots__ = (
        "__weakref__",
        "_at",
        "_buffer",
        "_counter",
        "_end",
        "_last",
        "_lock",
        "_now",
        "_table",
        "_timing",
        "_window",
        "key",
        "kind",
        "name",
        "tags",
    )

    def __init__(self, table: SeriesTable, key: Key) -> None:
        self.key = key
        self.kind, self.name, labels = key
        self.tags = MappingProxyType(dict(labels))
        self._table = table
        self._now = table.clock.now
        self._counter: Handle | None = None  # the series of the same name and tags that increment() counts in
        self._timing: Handle | None = None  # and the one that timer() records to
        self.renew()

    def renew(self) -> None:
        """Forget everything in a forked child, whoever held the lock in the parent."""
        self._lock = threading.Lock()  # guards _window, _at, _end and taking from _buffer
        self.forget()

    def forget(self) -> None:
        """Drop all values; the next record enters the series anew."""
        with self._lock:
            self._buffer: list[float] = []
            self._last: float | None = None  # of a gauge
            self._window = Window(sharing=self._table.sharing)
            self._at = 0.0  # epoch seconds when the current slot began
            self._end = 0.0  # clock reading when it is over; 0: there is none yet

    def record(self, value: float) -> None:
        """Count a value; never raises and never blocks.

        Args:
            value: a finite number, seconds when it is a duration; anything else counts as "metrics_refused".
        """
        if value.__class__ is not float or value - value != 0.0:
            admitted = _admitted(value)
            if admitted is None:
                self._table.refuse()
                return
            value = admitted
        if self._now() >= self._end:
            self._roll()
        buffer = self._buffer
        buffer.append(value)
        if len(buffer) >= _BATCH:
            self._drain()

    def record_at(self, value: float, now: float) -> None:
        """Count a finite float when the clock has just been read, as timers have."""
        if now >= self._end:
            self._roll()
        buffer = self._buffer
        buffer.append(value)
        if len(buffer) >= _BATCH:
            self._drain()

    def increment(self, n: float = 1.0) -> None:
        """Count `n` events; never raises and never blocks."""
        if self.kind == "counter":
            self.record(n)
            return
        if self._counter is None:
            self._counter = self._table.find("counter", self.name, self.tags)
        self._counter.record(n)

    def timer(self) -> Timer:
        """Return a timer that records seconds here; a context manager and a decorator."""
        if self.kind == "timing":
            return Timer(self)
        if self._timing is None:
            self._timing = self._table.find("timing", self.name, self.tags)
        return Timer(self._timing)

    def _roll(self) -> None:
        self._table.enter(self)
        self._drain()

    def _drain(self) -> None:
        lock = self._lock
        if lock.acquire(blocking=False):
            try:
                values = self._settle()
            finally:
                lock.release()
            self._table.emit(self, values)

    def _settle(self) -> list[float]:
        """Move what is buffered into its slot, then on to the slot of now, under the lock; return what was moved."""
        now = self._now()
        if not self._end:
            self._move(now)
        values = self._buffer[:]
        del self._buffer[: len(values)]  # others may have appended since
        if values:
            self._window.add(self._at, values)
            if self.kind == "gauge":
                self._last = values[-1]
        if now >= self._end:
            self._move(now)
        return values

    def _move(self, now: float) -> None:
        wall = self._table.clock.wall()
        self._at = wall - wall % SLOT
        self._end = now + SLOT - wall % SLOT
        self._window.age(wall, self._table.allowance)

    def flush(self) -> None:
        """Count what is buffered and give it to the sinks."""
        with self._lock:
            values = self._settle() if self._end else []
        self._table.emit(self, values)

    def collect(self, into: Sketch, since: float, until: float) -> None:
        """Merge the slots between two epoch seconds into a sketch."""
        self.flush()
        with self._lock:
            self._window.collect(into, since, until)

    def spread(self, into: Sequence[Sketch], since: float, step: float) -> None:
        """Merge each slot from `since` (epoch seconds) on into the sketch of the step in which it begins."""
        self.flush()
        with self._lock:
            self._window.spread(into, since, step)

    def dump(self) -> list[list[Any]]:
        """Return the window's slots as JSON types."""
        self.flush()
        with self._lock:
            return self._window.dump()

    def load(self, rows: Iterable[Sequence[Any]]) -> None:
        """Count another process's slots; they do not go to the sinks, which have had them from there."""
        self._roll()
        with self._lock:
            self._window.load(rows)
            self._window.age(self._table.clock.wall(), self._table.allowance)

    def share(self, *, sharing: bool) -> None:
        """Keep, or no longer keep, closed slots for `take`."""
        with self._lock:
            self._window.unsent = {} if sharing else None

    def take(self, *, everything: bool) -> Slots:
        """Return the closed slots that were not yet taken, with `everything` the present one's values too."""
        self.flush()
        with self._lock:
            return self._window.take(everything=everything)

    def lifetime(self) -> Sketch:
        """Return everything counted since this process began."""
        self.flush()
        with self._lock:
            return self._window.lifetime()

    @property
    def last(self) -> float | None:
        """The newest value of a gauge, None for other kinds."""
        self.flush()
        return self._last

    @property
    def newest(self) -> float:
        """When the newest slot with values began, in epoch seconds, `-inf` when there is none."""
        return self._at if self._buffer else self._window.newest

    @property
    def oldest(self) -> float:
        """When the oldest slot with values began, in epoch seconds, `inf` when there is none."""
        with self._lock:
            return self._window.oldest

    @property
    def days(self) -> dict[int, float]:
        """Sums by day of UTC of the last month."""
        self.flush()
        with self._lock:
            self._window.end_slot()
            return dict(self._window.days)

    def __repr__(self) -> str:
        tags = "".join(f", {name}={value}" for name, value in self.tags.items())
        return f"Handle({self.name}{tags}, {self.kind})"


class RefusingHandle(Handle):
    """Stands in for a name or tags that cannot be used, so that finding and recording never raise."""

    __slots__ = ()

    def record(self, value: float) -> None:  # noqa: ARG002 - nothing is kept
        """Count a refusal."""
        self._table.refuse()

    def _roll(self) -> None:
        """Count a refusal: its slot is always over, so that timers come here each time."""
        self._table.refuse()

    def _drain(self) -> None:
        self._buffer.clear()


class Timer:
    """Records how long a block or a function takes, whether or not it raises; one `with` at a time."""

    __slots__ = ("_handle", "_seconds", "_started")

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @property
    def seconds(self) -> float:
        """How long the last block took, 0 before the first has ended."""
        try:
            return self._seconds
        except AttributeError:
            return 0.0

    def __enter__(self) -> Self:
        self._started = self._handle._now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        handle = self._handle
        now = handle._now()
        self._seconds = seconds = now - self._started
        if now >= handle._end:
            handle._roll()
        buffer = handle._buffer
        buffer.append(seconds)
        if len(buffer) >= _BATCH:
            handle._drain()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function; its calls may overlap."""
        handle, clock = self._handle, self._handle._now

        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            started = clock()
            try:
                return function(*args, **kwargs)
            finally:
                now = clock()
                handle.record_at(now - started, now)

        return timed
