"""A world in which time passes only when everybody waits: discrete events under code that blocks.

Each call of the router runs in a greenlet of its own, in one thread. Whoever sleeps or waits leaves a moment in the
future behind and lets the next one go on; the clock then jumps to the nearest moment. So real, blocking code runs at
thousands of simulated calls a second, and the same seed gives the same run.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from queue import Empty
from typing import TYPE_CHECKING, Any

try:
    from greenlet import getcurrent, greenlet
except ModuleNotFoundError as missing:
    message = "the simulator needs greenlet: pip install 'perfkit[simulate]'"
    raise ModuleNotFoundError(message, name="greenlet") from missing

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Event", "Pool", "Queue", "World"]

EPOCH = 1_800_000_000.0


class Sleeper:
    """One wait of one greenlet."""

    __slots__ = ("done", "greenlet")

    def __init__(self, greenlet_: greenlet) -> None:
        self.greenlet = greenlet_
        self.done = False


class World:
    """Events in the order of their time; also the `Clock` of those who live in it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._events: list[tuple[float, int, Sleeper, Any]] = []
        self._order = count()  # of events at the same moment
        self._hub = getcurrent()

    def now(self) -> float:
        """Return simulated seconds since the beginning."""
        return self._now

    def wall(self) -> float:
        """Return simulated epoch seconds."""
        return EPOCH + self._now

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.wait(self.sleeper(), max(0.0, seconds))

    def spawn(self, work: Callable[..., Any], *args: Any, after: float = 0.0) -> None:
        """Have `work(*args)` done `after` seconds, beside everything else."""
        born = Sleeper(greenlet(lambda _: work(*args), parent=self._hub))
        self._at(after, born, None)

    def sleeper(self) -> Sleeper:
        """Return a new wait of the one who calls."""
        return Sleeper(getcurrent())

    def wait(self, sleeper: Sleeper, timeout: float | None = None) -> bool:
        """Wait until `wake`, at most `timeout` seconds; return whether it came."""
        if timeout is not None:
            self._at(timeout, sleeper, False)
        return bool(self._hub.switch())

    def wake(self, sleeper: Sleeper) -> None:
        """Let the one who waits go on, now."""
        if not sleeper.done:
            self._at(0.0, sleeper, True)

    def _at(self, after: float, sleeper: Sleeper, value: Any) -> None:
        heappush(self._events, (self._now + after, next(self._order), sleeper, value))

    def run(self) -> None:
        """Let time pass until nobody waits for anything."""
        while self._events:
            at, _, sleeper, value = heappop(self._events)
            if not sleeper.done:
                sleeper.done = True
                self._now = at
                sleeper.greenlet.switch(value)


class Event:
    """As `threading.Event`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: list[Sleeper] = []
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Let all who wait go on."""
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for sleeper in waiting:
            self._world.wake(sleeper)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most `timeout` seconds; return whether it is."""
        if not self._is_set:
            sleeper = self._world.sleeper()
            self._waiting.append(sleeper)
            self._world.wait(sleeper, timeout)
        return self._is_set


class Queue:
    """As `queue.SimpleQueue`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._items: deque[Any] = deque()
        self._waiting: deque[Sleeper] = deque()

    def put(self, item: Any) -> None:
        """Put an item in."""
        self._items.append(item)
        while self._waiting:
            sleeper = self._waiting.popleft()
            if not sleeper.done:
                self._world.wake(sleeper)
                return

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out.

        Raises:
            Empty: there was none in time.
        """
        if not self._items and block:
            sleeper = self._world.sleeper()
            self._waiting.append(sleeper)
            self._world.wait(sleeper, timeout)
        if not self._items:
            raise Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        """Take an item out, if there is one."""
        return self.get(block=False)

    def empty(self) -> bool:
        """Return whether there is none."""
        return not self._items


class Pool:
    """As much of `concurrent.futures.ThreadPoolExecutor` as is used without its futures."""

    def __init__(self, world: World) -> None:
        self._world = world

    def submit(self, work: Callable[..., Any], *args: Any) -> None:
        """Have `work(*args)` done beside everything else."""
        self._world.spawn(work, *args)

    def shutdown(self, wait: bool = True) -> None:
        """Nothing is held."""
