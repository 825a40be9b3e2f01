"""Between the threads that work and the one that reads: items go out, results come back, few are on the way at a time.

To wake a thread costs several times what a quick call takes. So while calls are brief nobody is woken for each: there
is more room, one worker goes on until it is used up, then the reader takes all results, and the others rest. Once a
call takes longer everybody is woken for everything, as they are when no result has come for a millisecond.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Belt"]

T = TypeVar("T")
_QUIET = 0.001  # seconds without a result after which calls count as long
_GRANT = 16  # items at most that a worker takes before it looks again whether there is room
_STRETCH = 12  # times the room, while calls are brief: 16 times with what is granted
_AWAKE, _DOZING, _ASLEEP = range(3)  # the reader: dozing it looks again after _QUIET


class Belt(Generic[T]):
    """Items to be worked on, and the results of those that were.

    Each attribute has one writer, or a step of it missed does no harm: who waits looks again after saying so, and may
    be woken once too often; workers that look at the same moment may take a grant each more than there is room for.

    Args:
        items: may be endless, and is never entered by two threads.
        room: items taken whose results have not left; of brief calls 16 times as many.
        pace: called before an item is taken, while nobody else can take one, where `paced` asks for it.

    Attributes:
        brief: the last call was.
        left: results that have; the reader's.
        ended: no further item may be begun.
        over: there are no further items.
        results: what workers add to, and then `tell`, unless calls were and stay brief; the reader takes from it.
        taken: items that were; whoever takes one says so.
    """

    def __init__(self, items: Iterable[T], room: int, pace: Callable[[], None]) -> None:
        self._source = enumerate(items)
        self._room = self._most = room
        self._pace = pace
        self.paced = False
        self._taking = threading.Lock()  # guards _source
        self.taken = 0
        self.left = 0
        self.ended = False
        self.over = False
        self._resting: deque[None] = deque()  # one for each worker that waits for room, and
        self._wakes: SimpleQueue[None] = SimpleQueue()  # what they wait for
        self.results: deque[Any] = deque()
        self._reader = _AWAKE
        self._bell: SimpleQueue[None] = SimpleQueue()
        self.brief = False

    # --- workers

    def take(self) -> Iterator[tuple[int, T]]:
        """Yield the next item with its number once there is room; while calls are brief a few, each when asked for.

        So none waits behind a call that turns out to be long. None at all: look whether it is `over`.
        """
        while not self._has_room():
            self._rest()
        source, enter, leave = self._source, self._taking.acquire, self._taking.release
        for _ in range(_GRANT):
            enter()  # `with` takes twice as long
            try:
                if self.paced:
                    self._pace()
                found = None if self.over else next(source, None)
            finally:
                leave()
            if found is None:
                self._close()
                return
            if not self.brief:
                self.taken = found[0] + 1
                if self._has_room():
                    self.wake()
            yield found

    def _has_room(self) -> bool:
        return self.over or self.taken - self.left < self._most

    def _rest(self) -> None:
        self._resting.append(None)
        if self._has_room():
            try:
                self._resting.pop()
            except IndexError:  # somebody is waking us
                self._wakes.get()
            return
        self._ring()
        self._wakes.get()

    def wake(self) -> None:
        """Wake a worker that rests."""
        try:
            self._resting.pop()
        except IndexError:  # all work
            return
        self._wakes.put(None)

    def tell(self, *, brief: bool = False) -> None:
        """Say that there is a new one in `results`; `brief`: its call took less than waking a thread does."""
        if brief is not self.brief:
            self._hurry(brief=brief)
        if self._reader and not (brief and self._reader == _DOZING):
            self._ring()

    def _hurry(self, *, brief: bool) -> None:
        self.brief = brief
        self._most = self._room * _STRETCH if brief else self._room

    def _ring(self) -> None:
        if self._reader:
            self._reader = _AWAKE
            self._bell.put(None)

    def end(self) -> None:
        """Let no further item be begun; from any thread."""
        self.ended = True
        self._close()

    def _close(self) -> None:
        self.over = True
        while self._resting:
            self.wake()

    # --- the reader

    def listen(self, until: float | None) -> None:
        """Wait for a result, or a moment.

        Args:
            until: monotonic seconds.

        Raises:
            Empty: there was none by then.
        """
        timeout = None if until is None else max(0.0, until - time.monotonic())
        self._reader = _ASLEEP  # before it is asked whether calls are brief: who makes them so looks here afterwards
        dozing = self.brief and (timeout is None or timeout > _QUIET)
        if dozing:
            self._reader = _DOZING
        if self.results:
            self._reader = _AWAKE
            return
        if self._has_room():
            self.wake()
        try:
            self._bell.get(timeout=_QUIET if dozing else timeout)
        except Empty:
            if not dozing:
                raise
            self._hurry(brief=False)
