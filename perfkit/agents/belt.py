"""Between the threads that work and the one that reads: items go out, results come back, few are on the way at a time.

To wake a thread costs several times what a quick call takes. So while calls are brief nobody is woken for each: there
is more room, one worker goes on until it is used up, then the reader takes all results, and the others rest. Once a
call takes longer everybody is woken for everything, as they are when no result has come for a millisecond.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["END", "Belt"]

T = TypeVar("T")
END: Any = (0, None)
_QUIET = 0.001  # seconds without a result after which calls count as long
_STRETCH = 16  # times the room, while they are brief
_AWAKE, _DOZING, _ASLEEP = range(3)  # the reader: dozing it looks again after _QUIET


class Belt(Generic[T]):
    """Items to be worked on, and the results of those that were.

    Each attribute has one writer, or a step of it missed does no harm: who waits looks again after saying so, and may
    be woken once too often; workers that look at the same moment may take one item each more than there is room for.

    Args:
        items: may be endless, and is never entered by two threads.
        room: items taken whose results have not left; of brief calls 16 times as many.
        pace: called before an item is taken, while nobody else can take one, where `paced` asks for it.
    """

    def __init__(self, items: Iterable[T], room: int, pace: Callable[[], None]) -> None:
        self._numbers = itertools.count() if isinstance(items, list | tuple | range) else None
        self._source: Any = enumerate(items) if self._numbers is None else items
        self._room = self._most = room
        self._pace = pace
        self.paced = False
        self._taking = threading.Lock()  # guards _source, unless its items are taken by number
        self._taken = 0
        self._left = 0  # results; the reader's
        self._over = False
        self._resting: deque[None] = deque()  # one for each worker that waits for room, and
        self._wakes: SimpleQueue[None] = SimpleQueue()  # what they wait for
        self._results: deque[Any] = deque()
        self._reader = _AWAKE
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._brief = False  # the last call was

    # --- workers

    def take(self) -> tuple[int, T]:
        """Return the next item with its number, END when there is none; wait until there is room."""
        while self._taken - self._left >= self._most and not self._over:
            self._rest()
        if self._numbers is None or self.paced:
            with self._taking:
                if self.paced:
                    self._pace()
                found = END if self._over else self._next()
        else:
            found = END if self._over else self._next()
        if found is END:
            self.end()
            return END  # type: ignore[no-any-return]
        self._taken = found[0] + 1
        if self._resting and not self._brief and self._has_room():
            self._wake()
        return found  # type: ignore[no-any-return]

    def _next(self) -> Any:
        if self._numbers is None:
            return next(self._source, END)
        number = next(self._numbers)
        try:
            return number, self._source[number]
        except IndexError:
            return END

    def _has_room(self) -> bool:
        return self._over or self._taken - self._left < self._most

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

    def _wake(self) -> None:
        try:
            self._resting.pop()
        except IndexError:  # all work
            return
        self._wakes.put(None)

    def put(self, result: object, *, brief: bool = False) -> None:
        """Hand a result to the reader; `brief`: it took less than waking a thread does."""
        self._results.append(result)
        if brief is not self._brief:
            self._hurry(brief=brief)
        if self._reader and not (brief and self._reader == _DOZING):
            self._ring()

    def _hurry(self, *, brief: bool) -> None:
        self._brief = brief
        self._most = self._room * _STRETCH if brief else self._room

    def _ring(self) -> None:
        if self._reader:
            self._reader = _AWAKE
            self._bell.put(None)

    def end(self) -> None:
        """Give out no further item; from any thread."""
        self._over = True
        while self._resting:
            self._wake()

    # --- the reader

    def get(self, until: float | None) -> Any:
        """Return the next result.

        Args:
            until: monotonic seconds.

        Raises:
            Empty: there was none by then.
        """
        while True:
            try:
                return self._results.popleft()
            except IndexError:
                self._listen(until)

    def _listen(self, until: float | None) -> None:
        timeout = None if until is None else max(0.0, until - time.monotonic())
        dozing = self._brief and (timeout is None or timeout > _QUIET)
        self._reader = _DOZING if dozing else _ASLEEP
        if self._results:
            self._reader = _AWAKE
            return
        if self._resting and self._has_room():
            self._wake()
        try:
            self._bell.get(timeout=_QUIET if dozing else timeout)
        except Empty:
            if not dozing:
                raise
            self._hurry(brief=False)

    def left(self) -> None:
        """Note that a result has left: there is room for one more."""
        self._left += 1
        if self._resting and not self._brief:
            self._wake()
