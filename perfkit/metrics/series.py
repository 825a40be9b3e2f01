"""The series of one tracker: a handle for each kind, name and set of tags, up to a limit that holds.

A series lives while it has values of the last day or someone keeps its handle. When there are too many, further tag
sets of a name share one series tagged `perfkit.overflow`, so that the name's totals stay right, and series that have
been idle for a day make room.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from perfkit import _process
from perfkit.metrics.handle import Handle, RefusingHandle
from perfkit.metrics.outbox import Outbox
from perfkit.metrics.reading import labels
from perfkit.metrics.window import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from perfkit.clock import Clock
    from perfkit.metrics.sinks import Kind, Sink

__all__ = ["OVERFLOW", "Key", "SeriesTable"]

log = logging.getLogger("perfkit.metrics")

Key = tuple["Kind", str, tuple[tuple[str, str], ...]]

_CACHE = 8192  # spellings of names and tags remembered; then all are looked up again
_ROOM = 60.0  # seconds between two searches for idle series
OVERFLOW = (("perfkit.overflow", "true"),)  # after OpenTelemetry's otel.metric.overflow
_SECONDS = ("_duration", "_time", "latency", "first_token", "per_output_token")


def _kind(name: str) -> Kind:
    return "timing" if name.endswith(_SECONDS) else "value"


class SeriesTable:
    """Finds handles, bounds their number, and passes on what they have counted.

    Args:
        clock: the tracker's.
        entered: called when a series is entered or its slot is over, at most once in 10 s a series.

    Attributes:
        cache: (kind or None, name, *tags, *tags.values()) as given to handle; None stands for the kind the name
            suggests.
        limit: series allowed, and as many overflow series again.
        max_bytes: memory allowed for all windows together.
        sharing: closed slots are kept for other processes.
        sinks: who is told.
    """

    def __init__(self, clock: Clock, entered: Callable[[], None]) -> None:
        self.clock = clock
        self.cache: dict[Any, Handle] = {}
        self.limit = 1
        self.max_bytes = 0
        self.sharing = False
        self.sinks: tuple[Sink, ...] = ()
        self._entered = entered
        self._known: WeakValueDictionary[Key, Handle] = WeakValueDictionary()
        self._live: dict[Key, Handle] = {}
        self._refusing = RefusingHandle(self, ("timing", "metrics_refused", ()))
        self._outbox = Outbox(lambda n: self.find("counter", "metrics_dropped").record(n))
        self._failed: set[int] = set()  # ids of sinks that have been complained about
        self.renew()

    def renew(self) -> None:
        """Start empty in a forked child; handles held elsewhere stay good."""
        self._outbox.clear()
        self._lock = threading.RLock()  # guards _known and _live; re-entrant, since a collector callback may record
        self._next_search = 0.0
        self._crowded = False  # that no room was found is still to be logged
        handles = [handle for handle in self._known.values() if handle is not None]
        self._known = WeakValueDictionary({handle.key: handle for handle in handles})
        self._drop([self._refusing, *handles], Handle.renew)

    def forget(self) -> None:
        """Start empty."""
        with self._lock:
            self._drop(list(self._known.values()), Handle.forget)

    def _drop(self, handles: Sequence[Handle], drop: Callable[[Handle], None]) -> None:
        self.cache.clear()
        self._live.clear()
        for handle in handles:
            drop(handle)

    def find_cached(self, kind: Kind | None, name: str, tags: Mapping[str, Any] | None = None) -> Handle:
        """Return the handle of a series, at once when it was asked for in the same words before; never raises."""
        try:
            return self.cache[(kind, name, *tags, *tags.values()) if tags else (kind, name)]
        except Exception:  # not there, or arguments that find() refuses
            return self.find(kind, name, tags)

    def find(self, kind: Kind | None, name: str, tags: Mapping[str, Any] | None = None) -> Handle:
        """Return the handle of a series; never raises: one that refuses all stands in for unusable arguments."""
        try:
            if not isinstance(name, str):
                raise TypeError(f"a metric's name must be text, not {name!r}")  # noqa: TRY301 - all errors end alike
            handle = self._get((kind if kind is not None else _kind(name), name, labels(tags)))
        except Exception:
            log.debug("metric refused: its name or tags cannot be used", exc_info=True)
            return self._refusing
        if self._crowded:
            self._crowded = False
            log.warning("%d series, no room for %r: new tags are counted under perfkit.overflow", self.limit, name)
        self._remember(kind, name, tags, handle)
        return handle

    def _remember(self, kind: Kind | None, name: str, tags: Mapping[str, Any] | None, handle: Handle) -> None:
        if len(self.cache) >= _CACHE:
            self.cache.clear()
        try:
            self.cache[(kind, name, *tags, *tags.values()) if tags else (kind, name)] = handle
        except TypeError:
            log.debug("tags of %r are not hashable: slow to find", name)

    def _get(self, key: Key) -> Handle:
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._known.setdefault(key := self._allowed(key), Handle(self, key))
            return found

    def _allowed(self, key: Key) -> Key:
        """Return the key itself while there is room, else that of an overflow series."""
        if len(self._known) < self.limit or self._make_room():
            return key
        kind, name, _ = key
        return kind, name if len(self._known) < 2 * self.limit else "metrics_overflow", OVERFLOW

    def _make_room(self) -> bool:
        """Let go of series idle for a day; looks at most once a minute."""
        if self.clock.now() < self._next_search:
            return False
        self._next_search = self.clock.now() + _ROOM
        day_ago = self.clock.wall() - DAY
        for handle in [handle for handle in self._live.values() if handle.newest < day_ago]:
            del self._live[handle.key]
        self.cache.clear()
        self._crowded = len(self._known) >= self.limit
        return not self._crowded

    def enter(self, handle: Handle) -> None:
        """Make sure that a series about to get values is one that queries see."""
        _process.check()
        if self._live.get(handle.key) is not handle:
            with self._lock:
                self._live[handle.key] = handle
        self._entered()

    def refuse(self) -> None:
        """Count a value that cannot be used."""
        self.find("counter", "metrics_refused").record(1.0)

    def share_slots(self, *, sharing: bool) -> None:
        """Keep closed slots for other processes from now on, or no longer."""
        with self._lock:
            self.sharing = sharing
            for handle in self._known.values():
                handle.share(sharing=sharing)

    def emit(self, handle: Handle, values: Sequence[float]) -> None:
        """Pass on what a handle has counted: each value, of counters the sum, of gauges the last; see `deliver`."""
        if not values or not self.sinks:
            return
        if handle.kind == "counter":
            values = (sum(values),)
        elif handle.kind == "gauge":
            values = values[-1:]
        self._outbox.put(handle, values)

    def deliver(self) -> None:
        """Hand what was passed on to the sinks; not while recording."""
        self._outbox.deliver(self.sinks, self.complain)

    def complain(self, sink: object) -> None:
        """Log the error of a sink being handled: the first as a warning, further ones for debugging only."""
        level = logging.DEBUG if id(sink) in self._failed else logging.WARNING
        self._failed.add(id(sink))
        log.log(level, "metrics sink %s failed; its values are lost", type(sink).__name__, exc_info=True)

    def handles(self) -> list[Handle]:
        """Return the handles of all series with values."""
        with self._lock:
            return list(self._live.values())

    @property
    def allowance(self) -> int:
        """Bytes that one window may take now."""
        return self.max_bytes // max(1, len(self._known))
