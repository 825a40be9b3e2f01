"""The slots of one agent type: most recently used first, longest waiting caller first, never more than there may be.

A slot holds one object, or nothing yet: whoever takes an empty one makes the object. Taking and returning are one
`deque` operation each, which is atomic; the lock is needed only when somebody waits. Returned slots are put down first
and matched with waiters second, while waiters stand in line first and look second, so that neither misses the other.
Returns happen in finalizers too, which may run inside any line of a thread, even while it holds the lock; such a return
only puts its slot down, and the thread settles when it has let go. A slot that nothing refers to any more, because a
thread was interrupted between taking it and using it, frees its place by itself.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter, deque
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from perfkit.metrics.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EMPTY", "Refused", "Shelf", "Slot"]

EMPTY: Any = object()
_ERAS = count(1)
_BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # seconds, of the histogram of waits
_UNCOUNTED = 256  # waits and events that may wait to be counted


class Refused(Exception):  # noqa: N818 - not an error yet: the pool makes one of it, with names and numbers
    """No slot: "late" after waiting, "shed" as too many wait, or "shut"."""

    def __init__(self, reason: Literal["late", "shed", "shut"], waiting: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.waiting = waiting


class _Place(weakref.ref["Slot"]):
    """One of the places there are, known by itself; it outlives its slot."""

    __slots__ = ("era",)
    __hash__ = object.__hash__  # a reference has its referent's, which may be gone
    __eq__ = object.__eq__
    era: int


class Slot:
    """A place for one object; who holds the slot owns its fields.

    Attributes:
        value: the object, or EMPTY.
        era: the era it was made in.
        since: when it was put down, seconds of the clock.
        expires: when it must not be lent any more.
        uses: how often it was lent.
        pid: the process it was made in.
    """

    __slots__ = ("__weakref__", "_place", "_shelf", "era", "expires", "pid", "since", "uses", "value")

    def __init__(self, shelf: Shelf) -> None:
        self.value = EMPTY
        self.era = shelf.era
        self.since = self.expires = float("-inf")
        self.uses = 0
        self.pid = os.getpid()
        self._place: _Place | None = None
        self._shelf: weakref.ref[Shelf] | None = None  # set once it counts; weak, since the shelf holds the slot

    def __del__(self) -> None:
        shelf = self._home()
        if shelf is not None:
            if self.value is not EMPTY:
                shelf.lost.append(self.value)
            self.free("lost")

    def _home(self) -> Shelf | None:
        """Return the shelf that counts this slot; None in a child, where a thread that is gone may have its lock."""
        shelf = self._shelf() if self._shelf is not None else None
        return shelf if self.pid == os.getpid() else None

    def free(self, reason: str) -> None:
        """Give up the place; the slot is not used again."""
        shelf = self._home()
        self._shelf = None
        if shelf is not None:
            shelf.freed.append((self._place, self.uses, reason))
            shelf.settle()


class _Waiter:
    __slots__ = ("gate", "served", "slot")

    def __init__(self) -> None:
        self.gate = threading.Lock()  # guards nothing: it is let go when the waiter is served
        self.gate.acquire()
        self.served = False
        self.slot: Slot | None = None  # None once served: the shelf was shut


class Shelf:
    """The slots of one pool; knows nothing of what is in them.

    Args:
        size: most slots there may be.

    Attributes:
        idle: slots to be lent, the most recently used last. Others may `pop` while nobody waits, and `append`.
        waiters: callers in line, the first first.
        lost: objects of slots that nobody refers to any more.
        freed: places given up, with uses and reason.
        events: what is to be counted, by name.
        waits: seconds callers waited, to be counted.
        crowded: a returned slot must be given up: there are too many, or the shelf is shut.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.era = next(_ERAS)
        self.shut = False
        self.crowded = False
        self.idle: deque[Slot] = deque()
        self.waiters: deque[_Waiter] = deque()
        self.lost: deque[Any] = deque()
        self.freed: deque[tuple[_Place | None, int, str]] = deque()
        self.events: deque[str] = deque()
        self.waits: deque[float] = deque()
        self._lock = threading.RLock()  # guards all below, size, era and shut, and who is next in waiters
        self._made = 0
        self._places: set[_Place] = set()
        self._dead: deque[weakref.ref[Slot]] = deque()  # a slot's finalizer may itself be interrupted, this may not
        self._by_era: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()
        self._waited = Sketch()
        self._watchers: list[tuple[int, threading.Event]] = []

    def join(self, timeout: float, max_waiting: int | None) -> Slot:
        """Return an idle or a new, empty slot, waiting in line for `timeout` seconds at most.

        Raises:
            Refused: there was none.
        """
        waiter = None
        with self._lock:
            self._sort()
            slot = None if self.shut or self.waiters else self._next()
            waiting = len(self.waiters)
            shed = max_waiting is not None and waiting >= max_waiting
            if slot is None and not (self.shut or shed) and timeout > 0:
                waiter = _Waiter()
                self.waiters.append(waiter)
                self._sort()  # what came back just before we stood in line
        self.settle()
        if waiter is not None:
            slot = self._await(waiter, timeout)
        if slot is None:
            raise Refused("shut" if self.shut else "shed" if shed and waiter is None else "late", waiting)
        return slot

    def _await(self, waiter: _Waiter, timeout: float) -> Slot | None:
        try:
            waiter.gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
        except BaseException:  # an interrupted thread must not take a slot with it
            slot = self._leave(waiter)
            if slot is not None:
                self.put(slot)
            raise
        return waiter.slot if waiter.served else self._leave(waiter)

    def _leave(self, waiter: _Waiter) -> Slot | None:
        """Stop waiting; return what was handed over in the last moment."""
        with self._lock:
            self._sort()
            if not waiter.served:
                self.waiters.remove(waiter)
        self.settle()
        slot, waiter.slot = waiter.slot, None
        return slot

    def put(self, slot: Slot) -> bool:
        """Put a slot down for the next. Return False if it may have to be given up: see `remove`."""
        try:
            self.idle.append(slot)
        finally:  # an interrupt may strike between the two
            if self.waiters:
                self.settle()
        return slot.era == self.era and not self.crowded

    def settle(self) -> None:
        """Serve who waits; called after each use of the lock, and leaves it to that when a finalizer is inside of one.

        The lock is taken by `with` alone: after a call of `acquire` an interrupt could strike before the next line.
        """
        while self._unsettled() and not self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001
            with self._lock:
                self._sort()

    def _unsettled(self) -> bool:
        return bool(self.freed or self._dead or (self.waiters and (self.idle or self._made < self.size)))

    def _sort(self) -> None:
        """Count what was given up and hand slots to the first in line; the lock is held.

        Between looking at an entry and deleting it there is no call, so no place where Python interrupts a thread.
        """
        while self.freed:
            place, uses, reason = self.freed[0]
            if place in self._places:
                self._give_up(place)
            del self.freed[0]
            self._counts.update({reason: 1, "lent": uses})
        while self._dead:
            if self._dead[0] in self._places:
                self._give_up(self._dead[0])
                self._counts["lost"] += 1
            del self._dead[0]
        if self._watchers:
            self._tell_watchers()
        self.crowded = self.shut or self._made > self.size
        while self.waiters and (slot := self._next()) is not None:
            self._serve(slot)
        if len(self.waits) + len(self.events) > _UNCOUNTED:
            self._count()

    def _give_up(self, place: Any) -> None:
        self._made -= 1
        self._by_era[place.era] -= 1
        self._places.remove(place)

    def _serve(self, slot: Slot | None) -> None:
        waiter = self.waiters[0]
        waiter.slot = slot
        waiter.served = True
        del self.waiters[0]
        waiter.gate.release()

    def _tell_watchers(self) -> None:
        for watcher in [watcher for watcher in self._watchers if self._gone(watcher[0])]:
            self._watchers.remove(watcher)
            watcher[1].set()

    def _gone(self, era: int) -> bool:
        return not any(number for made_in, number in self._by_era.items() if made_in < era)

    def _count(self) -> None:
        self._counts.update(self.events.popleft() for _ in range(len(self.events)))
        waits = [self.waits.popleft() for _ in range(len(self.waits))]
        if waits:
            self._waited.add(waits)

    def _next(self) -> Slot | None:
        try:
            return self.idle.pop()
        except IndexError:
            return self._new() if self._made < self.size else None

    def _new(self) -> Slot:
        slot, home = Slot(self), weakref.ref(self)
        slot._place = place = _Place(slot, self._dead.append)  # noqa: SLF001 - one thing in two parts
        place.era = slot.era
        self._by_era[slot.era] += 1
        slot._shelf = home  # noqa: SLF001 - from here on it counts: no interrupt comes between these steps
        self._made += 1
        self._places.add(place)
        return slot

    def reserve(self, idle: int) -> list[Slot]:
        """Return as many empty slots as `idle` ones are missing, within the size and what waiters leave."""
        with self._lock:
            self._sort()
            wanted = 0 if self.shut else min(idle - len(self.idle), self.size - self._made)
            slots = [self._new() for _ in range(wanted)]
        self.settle()
        return slots

    def remove(self, unwanted: Callable[[Slot], bool]) -> list[Slot]:
        """Take out and return idle slots for which `unwanted(slot)`, asked from the longest unused to the latest."""
        removed: list[Slot] = []
        kept: list[Slot] = []
        with self._lock:
            for _ in range(len(self.idle)):
                try:
                    slot = self.idle.popleft()
                except IndexError:  # lent in this moment
                    break
                (removed if unwanted(slot) else kept).append(slot)
            self.idle.extendleft(reversed(kept))
        self.settle()
        return removed

    def resize(self, size: int) -> int:
        """Change the size; return how many slots there are too many."""
        with self._lock:
            self.size = size
            self._sort()
            surplus = self._made - size
        self.settle()
        return surplus

    def renew(self, *, shut: bool = False) -> int:
        """Begin a new era: slots of earlier ones are to be given up. With `shut`, end, and send who waits away."""
        with self._lock:
            self._by_era = Counter({era: number for era, number in self._by_era.items() if number})
            self.era = next(_ERAS)
            if shut:
                self.shut = self.crowded = True
                while self.waiters:
                    self._serve(None)
        self.settle()
        return self.era

    def await_departure(self, era: int, timeout: float) -> bool:
        """Wait until no slot is older than `era`, `timeout` seconds at most; return whether that is so."""
        gone = threading.Event()
        with self._lock:
            self._watchers.append((era, gone))
            self._sort()
            self._tell_watchers()
        self.settle()
        return gone.wait(timeout)

    def stats(self) -> dict[str, Any]:
        """Return numbers of slots and waiters, counts of events, and the waits as a distribution."""
        with self._lock:
            self._sort()
            self._count()
            idle = len(self.idle)
            now = {"size": self.size, "idle": idle, "in_use": self._made - idle, "waiters": len(self.waiters)}
            lent = self._counts["lent"] + sum(slot.uses for place in self._places if (slot := place()) is not None)
            result = {**now, **self._counts, "lent": lent, "wait": self._waits()}
        self.settle()
        return result

    def _waits(self) -> dict[str, Any]:
        waited = self._waited
        histogram = dict(zip(_BOUNDS, waited.at_most(_BOUNDS), strict=True)) if waited.count else {}
        return {**waited.stats(), "histogram": histogram}
