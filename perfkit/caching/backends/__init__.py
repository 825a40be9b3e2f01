"""Where answers are kept beside the memory of this process: one file and one line here for each kind of store.

A backend holds entries under ready keys. It raises StateUnavailableError when it is away, and its caller goes on
without it; what it cannot read (another version's, somebody else's, torn) it treats as not there. It removes only what
it has put there itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from perfkit._registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit._settings import CacheSettings
    from perfkit.caching.codec import Codec
    from perfkit.caching.entry import Entry
    from perfkit.caching.matching import Match
    from perfkit.clock import Clock
    from perfkit.metrics import PerformanceTracker

__all__ = ["BACKENDS", "Backend", "Setup", "Turn", "Turns"]


class Setup(NamedTuple):
    """What a backend is made from."""

    settings: CacheSettings
    codec: Codec
    clock: Clock
    tracker: PerformanceTracker | None
    departed: Callable[[Match | None], object]  # call it when another process made something invalid; None: everything


class Backend(Protocol):
    """A store of entries that outlives a process, or is shared by several."""

    @property
    def announces(self) -> bool:
        """Whether it tells when another process made something invalid, so that copies may be kept in memory."""
        ...

    @property
    def turns(self) -> Turns | None:
        """What lets one process at a time compute a key; None: each process computes for itself."""
        ...

    def listen(self) -> None:
        """Begin to hear of what other processes make invalid; called before each look-up, and costs nothing then."""
        ...

    def get(self, key: str) -> Entry | None:
        """Return what is kept and not gone, fresh or stale."""
        ...

    def put(self, entry: Entry) -> None:
        """Keep an entry until it is gone."""
        ...

    def delete(self, key: str) -> bool:
        """Remove one key and tell whether it was there."""
        ...

    def invalidate(self, match: Match) -> int:
        """Remove what matches, and return how many were found; a store that cannot list its keys counts none."""
        ...

    def clear(self) -> None:
        """Remove, or make unreadable, all that was put here."""
        ...

    def count(self) -> tuple[int, int] | None:
        """Return the number of entries and their bytes, None where that cannot be told cheaply."""
        ...

    def close(self) -> None:
        """Let go of what belongs to this object alone."""
        ...


class Turn(Protocol):
    """The outcome of asking for a turn; who gets it computes, and must call `finish`."""

    @property
    def mine(self) -> bool:
        """Whether it was got."""
        ...

    @property
    def landed(self) -> bool:
        """Whether another process has computed, and what it kept can be read."""
        ...

    @property
    def error(self) -> Exception | None:
        """What that raised, as far as it can be told."""
        ...

    def rest(self) -> None:
        """Say that who computes waits for his reader: after a while others take the turn."""
        ...

    def go_on(self) -> None:
        """Say that he computes again."""
        ...

    def finish(self, *, kept: bool, error: Exception | None = None) -> None:
        """Wake those who wait."""
        ...


class Turns(Protocol):
    """One computation per key among processes."""

    def take(self, key: str, timeout: float | None) -> Turn:
        """Take the turn, or wait until who has it is done.

        Neither `mine` nor `landed`: there is nobody to wait for, or his result cannot be had; compute for yourself.

        Raises:
            DeadlineExceeded: he is not done within `timeout` seconds (0: do not wait at all).
        """
        ...


BACKENDS = Registry(
    "cache backend",
    {
        "memory": "perfkit.caching.backends.memory:none",
        "django": "perfkit.caching.backends.borrowed:django_backend",
        "flask": "perfkit.caching.backends.borrowed:flask_backend",
        "redis": "perfkit.caching.backends.redis:RedisBackend",
        "sqlite": "perfkit.caching.backends.sqlite:SqliteBackend",
    },
)
