"""Where entries are: in the memory of this process, and behind it in a backend where one is configured.

A backend that is away is gone on without: what it would have given is a miss, what it would have taken stays here.
What it should have removed meanwhile it is told when it is back; until then nothing of that is read from it.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

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

ALL = Match("chat:*")  # answers of models
PAUSE = 1.0  # seconds between two tries to tell a backend what it has missed
SWEEP = 30.0  # seconds between two looks for what has expired


class Shelf:
    """Entries near, in memory, and far, in a backend.

    Args:
        settings: bounds of the memory.
        clock: tells what is fresh.
        far: set by who makes the backend; it may need `forget`.
    """

    def __init__(self, settings: CacheSettings, clock: Clock) -> None:
        self._clock = clock
        self.near = Store(settings.max_bytes, settings.max_entries)
        self.far: Backend | None = None
        self.departures = Departures()
        self._owed = Departures()  # what the backend has not been told,
        self._settles = 0.0  # and when to try that again
        self._watchers: list[weakref.WeakMethod[Callable[[Match], None]]] = []
        self._swept = False

    def after_fork(self) -> None:
        """Make the locks new."""
        self.near.after_fork()
        self.departures.after_fork()
        self._owed.after_fork()

    def renew(self) -> None:
        """Begin with an empty memory and no counts."""
        self._rest()
        self.departures.add(None)
        self.near = Store(self.near.max_bytes, self.near.max_entries)

    def close(self) -> None:
        """Let go of the backend's connections; nothing is done in the background until something is kept again."""
        self._rest()
        if self.far is not None:
            self.far.close()

    def _rest(self) -> None:
        self._swept = False
        _process.background.cancel(self.sweep)

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

    def begin(self) -> int:
        """Return the count of departures; from now on others' are heard of, and the backend knows of ours."""
        if self.far is not None:
            with suppress(StateUnavailableError):
                self.far.listen()
            self._settle()
        return self.departures.count

    def find(self, key: str) -> Entry | None:
        """Return what is kept under `key`, fresh or stale, wherever it is."""
        entry = self.near.peek(key, self._clock.now())
        far = self.far
        if far is None or (entry is not None and entry.expires > self._clock.now()):
            return entry
        try:
            since = self.begin()
            found = far.get(key)
        except StateUnavailableError:
            return entry
        if found is not None and self._owed.cover(0, key, found.tags):
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
            except StateUnavailableError:
                self._owed.add(Match(entry.key, exact=True))  # what it has is older
            else:
                if self.departures.cover(since, entry.key, entry.tags, by_name=True):
                    self._depart(Match(entry.key, exact=True))
        if far is None or far.announces:  # others do not tell what was invalidated elsewhere
            self._put_near(entry, since)

    def _put_near(self, entry: Entry, since: int) -> None:
        if not self._swept:
            self._swept = True
            _process.background.every(SWEEP, self.sweep)
        self.near.put(entry)
        if self.departures.cover(since, entry.key, entry.tags):  # afterwards: an invalidation sees it, or is seen here
            self.near.remove_all([entry])

    def sweep(self) -> None:
        """Remove from memory what is gone, and tell the backend what it has missed."""
        self.near.sweep(self._clock.now())
        self._settle()

    def delete(self, key: str) -> bool:
        """Remove one key and tell whether it was there."""
        match = Match(key, exact=True)
        there = self.forget(match)
        return bool(self._depart(match) or there)

    def invalidate(self, match: Match) -> int:
        """Remove what matches, and return how many were found."""
        removed = self.forget(match)
        self._tell(match)
        return max(removed, self._depart(match))

    def _depart(self, match: Match | None) -> int:
        """Make something invalid in the backend, or as soon as that is back; return how many were found."""
        try:
            return self._remove_far(match)
        except StateUnavailableError:
            self._owed.add(match)
            return 0

    def _remove_far(self, match: Match | None) -> int:
        far = self.far
        if far is None:
            return 0
        if match is None:
            far.clear()
            return 0
        return int(far.delete(match.wanted)) if match.exact else far.invalidate(match)

    def _settle(self) -> None:
        """Tell the backend what it has missed, if it is back."""
        if not self._owed.count or self._clock.now() < self._settles:
            return
        count, owed = self._owed.known()
        try:
            for match in owed:
                self._remove_far(match)
        except StateUnavailableError:
            self._settles = self._clock.now() + PAUSE
        else:
            self._owed.forgive(count)

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

    def clear(self) -> None:
        """Remove every entry."""
        for match in (None, Match("*"), ALL):  # and by all names: what is on its way to the backend must not stay there
            self.forget(match)
        self._tell(ALL)
        self._depart(None)

    def count(self) -> tuple[int, int]:
        """Return the number of entries and their bytes."""
        far = None
        with suppress(StateUnavailableError):
            far = None if self.far is None else self.far.count()
        return (len(self.near), self.near.bytes) if far is None else far
