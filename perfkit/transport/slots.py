"""The slots of one host's pool: most recently used connection first, longest waiting caller first.

urllib3 keeps its connections in a queue.LifoQueue, where a late comer takes a connection before those who wait: with 64
threads on 10 connections the slowest waits 60 times the median. Here a returned connection is handed to the first
waiter directly. `put` never blocks, even inside a thread that holds the lock, where a signal handler or a user's own
finalizer may call it; so returned items go through a deque, and whoever lets go of the lock last sorts them in. An
exception from outside (Ctrl-C, a worker's timeout) may come between any two steps of the interpreter: an item moves
from one container to the next in a single one, what an interrupted thread has left half done the next one finishes, and
what it lets fall is noticed: a `Slot` that nobody holds any more is made anew.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from itertools import islice
from queue import Empty
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["FairLifo", "Slot"]


class Slot:
    """The right to one connection: held by the queue, or by a connection as its `slot`."""

    __slots__ = ("__weakref__",)


_NOTHING = object()
_WITHOUT_WAITING = (False,)  # arguments of one call


class _Waiter:
    __slots__ = ("box", "gate")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.box: deque[Any] = deque()  # empty, or what it is given

    @property
    def item(self) -> Any:
        return self.box[0] if self.box else _NOTHING

    def wake(self) -> None:
        if self.gate.locked():  # else it is awake: an interrupted thread has got as far as that
            self.gate.release()


class FairLifo:
    """A drop-in for the queue urllib3 makes (`QueueCls`): holds connections, and each slot that has none.

    Args:
        maxsize: number of slots.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self.clear()

    def clear(self) -> None:
        """Forget everything and make the lock new, as a forked child must; all slots are free."""
        self._lock = threading.Lock()  # guards _free, _waiting and _known
        self._free: deque[Any] = deque()
        self._waiting: deque[_Waiter] = deque()
        self._returned: deque[Any] = deque()
        self._known: list[weakref.ref[Slot]] = []
        self._lost: deque[object] = deque((None,))  # one for each slot that is gone: there is none yet
        self._settle()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the most recently used connection, else a slot; wait `timeout` seconds at most.

        Without `block` slots stay: so urllib3 looks for what it has to close.

        Raises:
            queue.Empty: none became free.
        """
        waiter = None
        with self._lock:
            self._sort_in()
            item = self._free.pop() if self._free and (block or type(self._free[-1]) is not Slot) else _NOTHING
            if item is _NOTHING and block:
                waiter = _Waiter()
                self._waiting.append(waiter)
        if self._returned or self._lost:
            self._settle()
        if waiter is not None:
            item = self._await(waiter, timeout)
        if item is _NOTHING:
            raise Empty
        return item

    def _await(self, waiter: _Waiter, timeout: float | None) -> Any:
        try:
            waiter.gate.acquire(timeout=-1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        except BaseException:  # a thread that is interrupted must not take a slot with it
            self.put(self._leave(waiter))
            raise
        return self._leave(waiter) if waiter.item is _NOTHING else waiter.item

    def _leave(self, waiter: _Waiter) -> Any:
        """Stop waiting; return what was handed over in the last moment, else _NOTHING."""
        with self._lock:
            if waiter.item is _NOTHING:
                self._waiting.remove(waiter)
        if self._returned or self._lost:
            self._settle()
        return waiter.item

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002 - urllib3's names
        """Return a connection, or a slot alone; never blocks. None, by which urllib3 means a slot, is passed over."""
        if item is not _NOTHING and item is not None:
            self._returned.append(item)
            self._settle()

    def _settle(self) -> None:
        while self._returned or self._lost:
            taken: list[bool] = []
            try:
                taken.extend(map(self._lock.acquire, _WITHOUT_WAITING))  # taken and known to be taken, in one step
                if not taken[0]:
                    return
                self._sort_in()
            finally:
                if True in taken:
                    self._lock.release()

    def _sort_in(self) -> None:
        """Hand what came back to those who wait, keep the rest; the lock is held."""
        returned, free, waiting = self._returned, self._free, self._waiting
        if self._lost:
            self._replace_lost()
        while returned or (waiting and waiting[0].box):
            if waiting:
                if not waiting[0].box:
                    _move_first(returned, waiting[0].box.extend)
                waiting[0].wake()
                waiting.popleft()
            else:  # open connections are taken first
                _move_first(returned, free.extendleft if type(returned[0]) is Slot else free.extend)

    def _replace_lost(self) -> None:
        """Make as many slots as are missing; the lock is held.

        They are counted, so that whoever is interrupted here leaves nothing wrong behind.
        """
        told = len(self._lost)
        self._known = [known for known in self._known if known() is not None]
        while len(self._known) < self.maxsize:
            slot = Slot()
            self._known.append(weakref.ref(slot, self._lost.append))  # C calls C: nothing interrupts that
            self._returned.append(slot)
            del slot
        for _ in range(told):
            self._lost.popleft()

    def remove(self, unwanted: Callable[[Any], bool]) -> list[Any]:
        """Take out free connections for which `unwanted(connection)`, leaving empty slots; return them."""
        with self._lock:
            self._sort_in()
            kept, removed = deque[Any](), []
            for item in self._free:
                if type(item) is not Slot and unwanted(item):
                    removed.append(item)
                    kept.appendleft(item.slot)
                else:
                    kept.append(item)
            self._free = kept
        if self._returned or self._lost:
            self._settle()
        return removed

    def counts(self) -> tuple[int, int, int]:
        """Return slots in use, idle connections and waiting callers."""
        with self._lock:
            self._sort_in()
            idle = sum(type(item) is not Slot for item in self._free)
            return self.maxsize - len(self._free), idle, len(self._waiting)

    def qsize(self) -> int:
        """Return the number of free slots."""
        return len(self._free)


def _move_first(source: deque[Any], extend: Callable[[Iterable[Any]], None]) -> None:
    """Move the first item of `source` by the `extend` of another deque: one step of C, which nothing interrupts."""
    extend(islice(iter(source.popleft, _NOTHING), 1))
