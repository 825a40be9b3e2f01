"""The response cache: bounded memory, time to live, and one computation per key.

The lock is held for look-ups only, never while an answer is computed, serialised or sent.

The key space: "chat:<digest>:..." are answers of models, "key:<name>" and "json:<digest>" what the application keeps
itself, and "scope:<digest>:" goes before either of these two.
"""

from __future__ import annotations

import fnmatch
import logging
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit._shared import Shared
from perfkit.caching.entry import ENTRY_OVERHEAD, Cached, Entry, Kept, Store, is_answer, keep
from perfkit.caching.keys import plain_key
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import BudgetExceededError, DeadlineExceeded, PoolTimeout
from perfkit.metrics import PerformanceTracker
from perfkit.resilience.singleflight import SingleFlight
from perfkit.values import ChatResponse, finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Cached", "ResponseCache"]

log = logging.getLogger("perfkit.caching")

LIMITS = (DeadlineExceeded, PoolTimeout, BudgetExceededError)  # of one caller: those waiting for him may have more left


class _Landing(NamedTuple):
    """What one computation brought: to the thread that made it, and to those who waited for it."""

    own: Cached | Entry
    at: float  # epoch seconds
    kept: Entry | None  # None: it cannot be kept

    def shared(self) -> Entry:
        """Return the value as a hit does: nobody gets what somebody else may change."""
        return self.kept if self.kept is not None else Entry(Kept(None, self.own.value, 0), self.at, 0.0, frozenset())


def _matches(key: str, entry: Entry, wanted: str) -> bool:
    if key.startswith("chat:"):
        return wanted.startswith("chat:") and fnmatch.fnmatchcase(key, wanted)
    name = (key.split(":", 2)[2] if key.startswith("scope:") else key).removeprefix("key:")
    return wanted in entry.tags or name == wanted or fnmatch.fnmatchcase(name, wanted)


def _checked(ttl: float | None, tags: Iterable[str]) -> frozenset[str]:
    """Return the tags as a set; refuse what is no time to live and what are no tags."""
    if ttl is not None:
        finite("ttl", ttl, above=0)
    names = None if isinstance(tags, str | bytes) else frozenset(tags)
    if names is None or not all(isinstance(name, str) for name in names):
        raise TypeError(f"tags must be several names, as in ['city', 'rome'], not {tags!r}")
    return names


class ResponseCache(Shared):
    """Answers by key, in memory, bounded by bytes and entries, each with its time to live.

    Args:
        clock: None means the system's.
        tracker: where `cache_hit`, `cache_miss` and `cache_unstorable` are counted; None means the shared one.
        **settings: keys of the `[cache]` table: `max_bytes` (100 MiB), `max_entries`, `ttl` (3600 s), `policy`.
    """

    _table = "cache"

    def __init__(
        self, *, clock: Clock | None = None, tracker: PerformanceTracker | None = None, **settings: Any
    ) -> None:
        super().__init__(settings)
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker = tracker
        self._flights: SingleFlight[_Landing] = SingleFlight(personal=LIMITS)
        self._lock = threading.Lock()  # guards _store, _told and the counters
        self._forget()

    def _after_fork(self) -> None:
        if self._lock.locked():  # by a thread of the parent: the store may be half changed
            self._forget()
        self._lock = threading.Lock()

    def _forget(self) -> None:
        self._store = Store(self.settings.max_bytes)
        self._hits = self._misses = self._expired = 0
        self._told: set[type[Exception]] = set()  # why something could not be kept: logged once each

    def _apply(self) -> None:
        with self._lock:
            kept, self._store = self._store, Store(self.settings.max_bytes)
            self._store.evictions = kept.evictions
            for key in list(kept):
                self._put(key, kept[key])

    def get(  # noqa: PLR0913 - all but the key have their defaults
        self,
        key: Any,
        loader: Callable[[], Any] | None = None,
        *,
        default: Any = None,
        ttl: float | None = None,
        tags: Iterable[str] = (),
        scope: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Return the value of `key`; when it is not there, `loader()`, which is then kept, or `default`.

        Threads that miss the same key at once share one call of `loader`; its error is raised in all of them and not
        kept, but where it says that the caller's own time or money ran out, one of those waiting calls his loader.
        Falsy results are results. What is returned may be changed without changing the cache, or what others get.

        Args:
            key: a string, or any JSON value; the order of a mapping's keys does not matter.
            loader: computes the value: a ChatResponse or a JSON value.
            default: returned when there is neither a value nor a loader.
            ttl: seconds to keep it, above 0; None means the cache's own.
            tags: names to invalidate it by.
            scope: whose value it is, for example a user or tenant; values of one scope are never seen in another.
            timeout: seconds to wait for another thread's `loader`; None means until it is done. A loader that waits
                for a thread of its own which asks for the same key can be found by nothing else.

        Raises:
            TypeError: the key or the value is not JSON, or tags are not names.
            ValueError: `ttl` or `timeout` is out of bounds.
            RecursiveCallError: `loader` asks for `key` itself.
            DeadlineExceeded: another thread's `loader` is not done within `timeout`.
        """
        names, name = _checked(ttl, tags), plain_key(key, scope)
        if timeout is not None:
            finite("timeout", timeout, least=0)
        if loader is not None:
            return self.fetch(name, loader, ttl=ttl, tags=names, timeout=timeout, strict=True).value
        found = self.lookup(name)
        return default if found is None else found.value

    def set(
        self, key: Any, value: Any, *, ttl: float | None = None, tags: Iterable[str] = (), scope: str | None = None
    ) -> None:
        """Keep `value` under `key` for `ttl` seconds; parameters are those of `get`.

        Raises:
            TypeError: the key or the value is not JSON, or tags are not names.
            ValueError: `ttl` is out of bounds.
        """
        self._keep(plain_key(key, scope), value, ttl, _checked(ttl, tags))

    def delete(self, key: Any, *, scope: str | None = None) -> bool:
        """Remove `key` and tell whether it was there."""
        with self._lock:
            return self._store.pop(plain_key(key, scope), None) is not None

    def lookup(self, key: str) -> Entry | None:
        """Return the value of a ready key, counting the hit or miss."""
        entry = self._hit(key)
        if entry is None:
            self._count_miss()
            return None
        return entry

    def _hit(self, key: str) -> Entry | None:
        now = self._clock.now()
        with self._lock:
            entry = self._find(key, now)
            if entry is None:
                return None
            self._hits += 1
        self._count("cache_hit")
        return entry

    def _find(self, key: str, now: float) -> Entry | None:
        try:
            entry = self._store[key]  # at half the cost of get()
        except KeyError:
            return None
        if entry.expires <= now:
            self._store.pop(key)
            self._expired += 1
            return None
        return entry

    def fetch(
        self,
        key: str,
        compute: Callable[[], Any],
        *,
        ttl: float | None = None,
        tags: Iterable[str] = (),
        timeout: float | None = None,
        strict: bool = False,
    ) -> Cached | Entry:
        """Return what is kept under a ready key, or compute it once for all who ask now.

        Those who wait for another thread's computation count as hits, or not at all if it fails.

        Args:
            key: a ready key.
            compute: called without any lock held, in one thread only.
            ttl: seconds to keep the result; None means the cache's own.
            tags: names to invalidate it by.
            timeout: seconds to wait for another thread's computation.
            strict: raise where the result cannot be kept, instead of delivering it all the same.

        Raises:
            DeadlineExceeded: another thread computes and is not done in time.
        """
        entry = self._hit(key)
        if entry is not None:
            return entry

        def compute_and_keep() -> _Landing:
            entry = self._hit(key)  # another thread may have landed between the look-up and the take-off
            if entry is not None:
                return _Landing(entry, entry.stored_at, entry)
            self._count_miss()
            value = compute()
            store = self._keep if strict else self._keep_if_possible
            return _Landing(Cached(value), self._clock.wall(), store(key, value, ttl, tags))

        landing, shared = self._flights.run(key, compute_and_keep, timeout=timeout)
        if not shared:
            return landing.own
        self._count_hit()
        return landing.shared()

    def store(self, key: str, value: Any, *, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        """Keep `value` under a ready key, if it can be kept: an answer that is paid for is not lost over its storage.

        One larger than the whole cache is not kept.
        """
        self._keep_if_possible(key, value, ttl, tags)

    def _keep(self, key: str, value: Any, ttl: float | None, tags: Iterable[str]) -> Entry:
        kept = keep(value)
        keep_for = self.settings.ttl if ttl is None else ttl
        entry = Entry(kept, self._clock.wall(), self._clock.now() + keep_for, frozenset(tags))
        with self._lock:
            self._put(key, entry)
        return entry

    def _keep_if_possible(self, key: str, value: Any, ttl: float | None, tags: Iterable[str]) -> Entry | None:
        if isinstance(value, ChatResponse) and not is_answer(value):
            return None
        try:
            return self._keep(key, value, ttl, tags)
        except Exception as error:
            kind = type(error)
            with self._lock:
                known = kind in self._told
                self._told.add(kind)
            self._count("cache_unstorable")
            if not known:
                log.warning("an answer cannot be kept and will be asked for again: %s: %s", kind.__name__, error)
            return None

    def _put(self, key: str, entry: Entry) -> None:
        if entry.kept.size + ENTRY_OVERHEAD > self._store.maxsize:
            self._store.pop(key, None)
            return
        self._store[key] = entry
        limit = self.settings.max_entries
        while limit is not None and len(self._store) > limit:
            self._store.popitem()

    def invalidate(self, pattern_or_tag: str) -> int:
        """Remove what has this tag, this key, or a key that this glob (`*`, `?`, `[...]`) matches; return how many.

        Keys of direct use match as they were given, whatever their scope ("json:..." stands for those that were not
        strings). Answers of models have keys "chat:<digest>:public" and "chat:<digest>:user:<digest>"; only a glob
        that begins with "chat:" matches them, so "*" leaves them alone and "chat:*" removes them all.
        """
        with self._lock:
            gone = [key for key, entry in self._store.items() if _matches(key, entry, pattern_or_tag)]
            for key in gone:
                self._store.pop(key)
        return len(gone)

    def clear(self) -> None:
        """Remove every entry; counters stay."""
        with self._lock:
            kept, self._store = self._store, Store(self.settings.max_bytes)
            self._store.evictions = kept.evictions

    @property
    def hit_rate(self) -> float:
        """Hits per look-up in percent, 0.0 before the first (RAAF guide 3.5)."""
        looked = self._hits + self._misses
        return round(100.0 * self._hits / looked, 2) if looked else 0.0

    @property
    def cache_size(self) -> int:
        """Bytes held, overhead included."""
        return int(self._store.currsize)

    @property
    def eviction_count(self) -> int:
        """Entries pushed out to make room."""
        return self._store.evictions

    def stats(self) -> dict[str, Any]:
        """Return hits, misses, expired, evictions, entries, bytes held and their bound, and the hit rate in percent."""
        with self._lock:
            return {
                "hits": self._hits,
                "misses": self._misses,
                "expired": self._expired,
                "evictions": self.eviction_count,
                "entries": len(self._store),
                "bytes": self.cache_size,
                "max_bytes": self.settings.max_bytes,
                "hit_rate": self.hit_rate,
            }

    def _count_hit(self) -> None:
        with self._lock:
            self._hits += 1
        self._count("cache_hit")

    def _count_miss(self) -> None:
        with self._lock:
            self._misses += 1
        self._count("cache_miss")

    def _count(self, name: str) -> None:
        tracker = self._tracker
        if tracker is None:
            tracker = self._tracker = PerformanceTracker.instance()
        tracker.increment(name)

    def close(self) -> None:
        """Nothing to flush: entries stay usable."""

    def reset(self) -> None:
        """Forget every entry and counter."""
        with self._lock:
            self._forget()

    def __len__(self) -> int:
        return len(self._store)

    def __repr__(self) -> str:
        return f"ResponseCache({len(self._store)} entries, {self.cache_size} bytes, {self.hit_rate:.0f} % hits)"
