"""What is seen of each route's prefixes: how often they come, what was read from caches, where they are warm."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perfkit.tokens.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perfkit.tokens.prefix.rules import CacheRule
    from perfkit.values import Usage

__all__ = ["Rhythm", "Traffic", "conversation"]

ROUTES: Final = 1000
CONVERSATIONS: Final = 10_000  # 2 MB
NEW_SHARE: Final = 0.2  # of the newest gap in the moving average
LONG: Final = 3600.0  # seconds; a longer gap is a night, not a rhythm
ENOUGH: Final = 3  # requests to speak of a rhythm


@dataclass(slots=True)
class Rhythm:
    """The requests of one route.

    Attributes:
        gap: moving average of the seconds between two of them, None before the second.
        read: prompt tokens that came from the vendor's cache.
        written: prompt tokens that were written to it at a price.
    """

    calls: int = 0
    last: float = 0.0
    gap: float | None = None
    prompt: int = 0
    read: int = 0
    written: int = 0

    @property
    def per_minute(self) -> float:
        """Requests a minute; 0 before a rhythm is known."""
        return 60 / self.gap if self.gap and self.calls >= ENOUGH else 0.0

    def ttl(self, rule: CacheRule) -> str | None:
        """Return which time to live pays: the shortest that outlasts the usual gap; None when none does.

        A dearer one has to be read twice to pay (write 2.0 and more), the usual one once.
        """
        if self.gap is None or self.calls < ENOUGH:
            return rule.ttl
        return next((name for name, life in rule.ttls.items() if self.gap <= life.seconds), None)


def conversation(messages: Sequence[Mapping[str, Any]], user: str | None) -> int:
    """Return what stays the same over the turns of a conversation, as a hash: its first words and whose they are."""
    first = next((m for m in messages if m.get("role") not in ("system", "developer")), messages[0])
    content = first.get("content")
    return hash((user, content if isinstance(content, str) else repr(content)))


class Traffic:
    """Bounded memory of rhythms and of warm providers; safe to use from many threads."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new and forget: the child's calls have their own rhythm."""
        self._lock = threading.Lock()  # guards _routes and what is in it, and _warm
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._routes: Recent[str, Rhythm] = Recent(ROUTES)
            self._warm: Recent[tuple[str, int], tuple[str, float]] = Recent(CONVERSATIONS)

    @property
    def knows_warm(self) -> bool:
        """Whether any provider is known to have any prefix."""
        return bool(self._warm)

    def note(self, route: str, usage: Usage, now: float) -> tuple[int, float]:
        """Note one call; return the route's calls, and the share of its prompt tokens from a cache, so far."""
        with self._lock:
            rhythm = self._routes.find(route)
            if rhythm is None:
                rhythm = self._routes.put(route, Rhythm())
            if rhythm.calls and now - rhythm.last <= LONG:
                gap = now - rhythm.last
                rhythm.gap = gap if rhythm.gap is None else rhythm.gap + (gap - rhythm.gap) * NEW_SHARE
            rhythm.calls, rhythm.last = rhythm.calls + 1, now
            rhythm.prompt += usage.prompt_tokens
            rhythm.read += usage.cached_tokens
            rhythm.written += usage.cache_write_tokens
            return rhythm.calls, rhythm.read / rhythm.prompt if rhythm.prompt else 0.0

    def rhythm(self, route: str) -> Rhythm:
        """Return a copy of what is known of a route."""
        with self._lock:
            known = self._routes.find(route)
            if known is None:
                return Rhythm()
            return Rhythm(known.calls, known.last, known.gap, known.prompt, known.read, known.written)

    def warm(self, route: str, talk: int, provider: str, until: float) -> None:
        """Note that `provider` has a conversation's prefix until that monotonic second."""
        with self._lock:
            self._warm.put((route, talk), (provider, until))

    def warm_provider(self, route: str, talk: int, now: float) -> str | None:
        """Return who has a conversation's prefix now, None if nobody does."""
        with self._lock:
            found = self._warm.find((route, talk))
        return found[0] if found is not None and now <= found[1] else None
