"""Where entries are: in the memory of this process, and behind it in a backend where one is configured.

A backend that is away is gone on without: what it would have given is a miss, what it would have taken stays here.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, TypeVar

from perfkit import _process
from perfkit.caching.matching import Departures, Match
from perfkit.caching.store import Store
from perfkit.errors import StateUnavailableError
from perfkit.state import StateHub

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit._settings import CacheSettings
    from perfkit.caching.backends import Backend, Turns
    from perfkit.caching.entry import Entry
    from perfkit.clock import Clock
    from perfkit.state import RedisLink, SqliteFile

__all__ = ["Shelf"]

T = TypeVar("T")
ALL = Match("chat:*")  # answers of models
SWEEP = 30.0  # seconds between two looks for what has expired


class Shelf:
    """Entries near, in memory, and far, in a backend.

    Args:
        settings: bounds of the memory.
        clock: tells what is fresh.
        far: set by who makes the backend; it may need `departed`.
    """

    def __init__(self, settings: CacheSettings, clock: Clock) -> None:
        self._clock = clock
        self.near = Store(settings.max_bytes, settings.max_entries)
        self.far: Backend | None = None
        self.departures = Departures()
        self._watchers: list[weakref.WeakMethod[Callable[[Match], None]]] = []
        self._swept = False

    def after_fork(self) -> None:
        """Make the locks new."""
        self.near.after_fork()
        self.departures.after_fork()

    def renew(self) -> None:
        """Begin with an empty memory and no counts."""
        self.departures.add(None)
        self.near = Store(self.near.max_bytes, self.near.max_entries)
        self._swept = False

    @property
    def link(self) -> RedisLink | SqliteFile | None:
        """The Redis or file that processes share: the backend's own, else that of `[state]`."""
        own: RedisLink | SqliteFile | None = getattr(self.far, "own", None)
        return own if own is not None else StateHub.instance().link

    def watch(self, departed: Callable[[Match], None]) -> None:
        """Call a bound method, held weakly, with each invalidation of answers of models that is made here."""
        self._watchers.append(weakref.WeakMethod(departed))

    @property
    def turns(self) -> Turns | None:
        """What lets one process at a time compute a key."""
        return None if self.far is None else self.far.turns

    def find(self, key: str) -> Entry | None:
        """Return what is kept under `key`, fresh or stale, wherever it is."""
        entry = self.near.peek(key, self._clock.now())
        far = self.far
        if far is None or (entry is not None and entry.expires > self._clock.now()):
            return entry
        try:
            far.listen()
            since = self.departures.count
            found = far.get(key)
        except StateUnavailableError:
            return entry
        if found is not None and far.announces:
            self._put_near(found, since)
        return found

    def put(self, entry: Entry, since: int) -> None:
        """Keep an entry whose making began when `departures.count` was `since`."""
        far = self.far
        if far is not None and not self.departures.cover(since, entry.key, entry.tags):
            try:
                far.put(entry)
                if not far.announces:
                    return
            except StateUnavailableError:
                if not far.announces:
                    return  # it will be back without knowing what was invalidated meanwhile
        self._put_near(entry, since)

    def _put_near(self, entry: Entry, since: int) -> None:
        if not self._swept:
            self._swept = True
            _process.background.every(SWEEP, self.sweep)
        self.near.put(entry)
        if self.departures.cover(since, entry.key, entry.tags):  # afterwards: an invalidation sees it, or is seen here
            self.near.remove_all([entry])

    def sweep(self) -> None:
        """Remove from memory what is gone."""
        self.near.sweep(self._clock.now())

    def delete(self, key: str) -> bool:
        """Remove one key and tell whether it was there."""
        self.departures.add(Match(key, exact=True))
        there = self.near.remove(key)
        return bool(self._asked(lambda far: far.delete(key))) or there

    def invalidate(self, match: Match) -> int:
        """Remove what matches, and return how many were found."""
        removed = self.forget(match)
        self._tell(match)
        return max(removed, self._asked(lambda far: far.invalidate(match)) or 0)

    def _tell(self, match: Match) -> None:
        """Let those who hold something about answers of models know which of them are invalid."""
        if match.wanted.startswith("chat:"):
            for watcher in [found for reference in self._watchers if (found := reference()) is not None]:
                watcher(match)

    def forget(self, match: Match | None) -> int:
        """Remove from memory what matches, and what is on its way there; None: everything."""
        self.departures.add(match)
        if match is None:
            self.near.clear()
            return 0
        if match.exact:
            return int(self.near.remove(match.wanted))
        return self.near.remove_all([e for e in self.near.entries() if match.covers(e.key, e.tags)])

    def departed(self, match: Match | None) -> None:
        """Take another process's word that something is invalid."""
        self.forget(match)

    def clear(self) -> None:
        """Remove every entry."""
        self.forget(None)
        self._tell(ALL)
        self._asked(lambda far: far.clear())

    def _asked(self, ask: Callable[[Backend], T]) -> T | None:
        if self.far is None:
            return None
        try:
            return ask(self.far)
        except StateUnavailableError:
            return None

    def count(self) -> tuple[int, int]:
        """Return the number of entries and their bytes."""
        far = self._asked(lambda far: far.count())
        return (len(self.near), self.near.bytes) if far is None else far
