"""Where shared state is kept, as the configuration says: nowhere, in Redis, or in a file."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from perfkit._shared import Shared
from perfkit.errors import ConfigError
from perfkit.state.redis import SCHEMES, RedisLink
from perfkit.state.sqlite import SqliteFile

if TYPE_CHECKING:
    from perfkit.clock import Clock
    from perfkit.metrics import PerformanceTracker

__all__ = ["StateHub"]

SQLITE = "sqlite:///"


class StateHub(Shared):
    """The link that the rooms of this process share.

    Args:
        tracker: where `state_unavailable` is counted; None means the shared one.
        clock: None means the system's.
        **settings: keys of the `[state]` table: `url`, `prefix` ("perfkit"), `timeout` (0.1 s).

    Raises:
        ConfigError: `url` is neither a Redis nor a SQLite address.
    """

    _table = "state"

    def __init__(
        self, *, tracker: PerformanceTracker | None = None, clock: Clock | None = None, **settings: Any
    ) -> None:
        super().__init__(settings)
        self._tracker, self._clock = tracker, clock
        self._link: RedisLink | SqliteFile | None = None
        self._after_fork()
        self._apply()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _link

    def _apply(self) -> None:
        made = self._make()
        with self._lock:
            old, self._link = self._link, made
        if old is not None:
            old.close()

    def _make(self) -> RedisLink | SqliteFile | None:
        url, timeout = self.settings.url, self.settings.timeout
        if url is None:
            return None
        if url.startswith(SQLITE):
            return SqliteFile(url.removeprefix(SQLITE), timeout=timeout, tracker=self._tracker)
        if url.startswith(SCHEMES):
            prefix = self.settings.prefix
            return RedisLink(url, prefix=prefix, timeout=timeout, tracker=self._tracker, clock=self._clock)
        raise ConfigError(f"state.url must begin with {', '.join(SCHEMES)} or {SQLITE}<path>", key="state.url")

    @property
    def link(self) -> RedisLink | SqliteFile | None:
        """What is configured, None for nothing."""
        return self._link

    @property
    def redis(self) -> RedisLink | None:
        """The configured Redis, None for none."""
        link = self._link
        return link if isinstance(link, RedisLink) else None

    @property
    def sqlite(self) -> SqliteFile | None:
        """The configured file, None for none."""
        link = self._link
        return link if isinstance(link, SqliteFile) else None

    def close(self) -> None:
        """Let go of connections and the listening thread; the next use makes them anew."""
        if self._link is not None:
            self._link.close()

    def reset(self) -> None:
        """Close; what is stored stays: it belongs to others too."""
        self.close()

    def __repr__(self) -> str:
        return f"StateHub({self._link!r})"
