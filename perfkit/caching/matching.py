"""What an invalidation means, and the memory of those just made.

An answer that was on its way when its kind was invalidated belongs to the old state of the world and must not be kept
after it: so whoever computes remembers when he began, and asks here before he keeps.
"""

from __future__ import annotations

import fnmatch
import threading
from collections import deque
from dataclasses import dataclass

__all__ = ["Departures", "Match"]

REMEMBERED = 256  # invalidations; what began before the oldest of them is not kept


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
        self._lock = threading.Lock()  # guards _last; `count` is written under it
        self.count = 0
        self._last: deque[Match | None] = deque(maxlen=REMEMBERED)

    def add(self, match: Match | None) -> None:
        """Note that all this was made invalid; None: everything."""
        with self._lock:
            self.count += 1
            self._last.append(match)

    def cover(self, since: int, key: str, tags: frozenset[str]) -> bool:
        """Tell whether an entry whose making began when `count` was `since` has been invalidated meanwhile."""
        if since == self.count:
            return False
        with self._lock:
            newer = self.count - since
            if newer > len(self._last):
                return True
            recent = list(self._last)[len(self._last) - newer :]
        return any(match is None or match.covers(key, tags) for match in recent)
