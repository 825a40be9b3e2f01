"""What an invalidation means, and the memory of those just made.

An answer that was on its way when its kind was invalidated belongs to the old state of the world and must not be kept
after it: so whoever computes remembers when he began, and asks here before he keeps.
"""

from __future__ import annotations

import fnmatch
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass

__all__ = ["Departures", "Match"]

MOST_KINDS, MOST_KEYS = 256, 4096  # remembered; what began before the oldest of them is not kept


@dataclass(frozen=True, slots=True)
class Match:
    """Entries with this tag, this name, or a name that this glob (`*`, `?`, `[...]`) matches.

    Args:
        wanted: tag, name or glob as the user gave it; with `exact`, the very key in the store.
        exact: match one key and nothing else.
    """

    wanted: str
    exact: bool = False

    def covers(self, key: str, tags: frozenset[str]) -> bool:
        """Tell whether an entry is meant; only a glob that begins with "chat:" means answers of models."""
        if self.exact:
            return key == self.wanted
        if key.startswith("chat:"):
            return self.wanted.startswith("chat:") and fnmatch.fnmatchcase(key, self.wanted)
        name = (key.split(":", 2)[2] if key.startswith("scope:") else key).removeprefix("key:")
        return self.wanted in tags or name == self.wanted or fnmatch.fnmatchcase(name, self.wanted)


class Departures:
    """The last invalidations of this process, and of others as far as they tell."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new; invalidations of the parent do not matter to what begins here."""
        self._lock = threading.Lock()  # guards what `_begin` makes; `count` is also read without it
        self._begin()

    def _begin(self) -> None:
        self.count = 0
        self._forgotten = 0  # the count of the last one that is remembered no more
        self._kinds: deque[tuple[int, Match | None]] = deque()
        self._keys: OrderedDict[str, int] = OrderedDict()  # single keys, of which there are many

    def known(self) -> tuple[int, list[Match | None]]:
        """Return the count and all that was made invalid, as far as it is remembered: None for everything."""
        with self._lock:
            kinds = [match for _, match in self._kinds]
            everything = self._forgotten or None in kinds
            keys = [Match(key, exact=True) for key in self._keys]
            return self.count, [None] if everything else [*kinds, *keys]

    def forgive(self, count: int) -> None:
        """Begin anew, unless something was added since `count` was known."""
        with self._lock:
            if self.count == count:
                self._begin()

    def add(self, match: Match | None) -> None:
        """Note that all this was made invalid; None: everything."""
        with self._lock:
            self.count += 1
            if match is None or not match.exact:
                self._kinds.append((self.count, match))
            else:
                self._keys.pop(match.wanted, None)  # the newest last
                self._keys[match.wanted] = self.count
            self._forget()

    def _forget(self) -> None:
        if len(self._kinds) > MOST_KINDS:
            self._forgotten = max(self._forgotten, self._kinds.popleft()[0])
        if len(self._keys) > MOST_KEYS:
            self._forgotten = max(self._forgotten, self._keys.popitem(last=False)[1])

    def cover(self, since: int, key: str, tags: frozenset[str], *, by_name: bool = False) -> bool:
        """Tell whether an entry whose making began when `count` was `since` has been invalidated meanwhile.

        With `by_name` only by what means this entry, not by what made everything invalid to be on the safe side.
        """
        if since == self.count:
            return False
        with self._lock:
            if self._keys.get(key, 0) > since or (since < self._forgotten and not by_name):
                return True
            recent = [match for count, match in self._kinds if count > since]
        return any(not by_name if match is None else match.covers(key, tags) for match in recent)
