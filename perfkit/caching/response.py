"""The response cache: bounded memory, time to live, and one computation per key.

What can be changed in a value is kept as JSON bytes: a hit can never be changed by who got it before, and what goes in
comes out equal and of the same type. The bound counts the bytes of the whole value as JSON. The lock is held for
look-ups only, never while an answer is computed, serialised or sent.
"""

from __future__ import annotations

import fnmatch
import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from cachetools import LRUCache

from perfkit._shared import Shared
from perfkit.caching.keys import plain_key
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.metrics import PerformanceTracker
from perfkit.resilience.singleflight import SingleFlight
from perfkit.values import ChatResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Cached", "ResponseCache"]

ENTRY_OVERHEAD = 300  # bytes of a key, an entry and its place in the map on 64-bit CPython


class Cached(NamedTuple):
    """A value and when it was stored (epoch seconds), None when it was computed for this caller alone."""

    value: Any
    stored_at: float | None = None


class _Kept(NamedTuple):
    """A value at rest: what can be changed is JSON, so that nobody who got it changes what the next one gets."""

    data: bytes  # JSON of the value; of a ChatResponse, of its changeable fields
    frozen: ChatResponse | None  # the rest of it
    size: int  # bytes of the whole as JSON


class _Entry(NamedTuple):
    value: _Kept
    stored_at: float
    expires: float
    tags: frozenset[str]


class _Store(LRUCache[str, _Entry]):
    """Least recently used goes first; evictions are counted."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda entry: entry.value.size + ENTRY_OVERHEAD)
        self.evictions = 0

    def popitem(self) -> tuple[str, _Entry]:
        self.evictions += 1
        return super().popitem()


def _keep(value: Any) -> _Kept:
    """Return a ChatResponse or a plain JSON value as it is kept.

    Raises:
        TypeError: the value would not come back equal (tuples, sets, objects, keys that are not strings).
        ValueError: a JSON value holds NaN or an infinity; in a ChatResponse some servers send them (logprobs).
    """
    if isinstance(value, ChatResponse):
        frozen = value.evolve(raw=None, tool_calls=())
        data = _lenient([value.raw, value.tool_calls]).encode("utf-8", "surrogatepass")
        return _Kept(data, frozen, len(data) + len(_lenient(frozen.to_dict()).encode("utf-8", "surrogatepass")))
    data = _strict(value).encode("utf-8", "surrogatepass")
    if not _same(json.loads(data), value):
        raise TypeError("only JSON values can be cached: this one would come back changed (tuple, or keys not strings)")
    return _Kept(data, None, len(data))


_strict = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_lenient = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _same(a: Any, b: Any) -> bool:
    """Tell whether two JSON values are equal with the same types throughout (1 is not 1.0, nor True)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _decode(entry: _Entry) -> Cached:
    value = json.loads(entry.value.data)
    if entry.value.frozen is not None:
        raw, tool_calls = value
        value = entry.value.frozen.evolve(raw=raw, tool_calls=tuple(tool_calls))
    return Cached(value, entry.stored_at)


def _matches(key: str, entry: _Entry, wanted: str) -> bool:
    name = key.split(":", 2)[2] if key.startswith("scope:") else key
    return wanted in entry.tags or name == wanted or fnmatch.fnmatchcase(name, wanted)


class ResponseCache(Shared):
    """Answers by key, in memory, bounded by bytes and entries, each with its time to live.

    Args:
        clock: None means the system's.
        tracker: where `cache_hit` and `cache_miss` are counted; None means the shared one.
        **settings: keys of the `[cache]` table: `max_bytes` (100 MiB), `max_entries`, `ttl` (3600 s), `policy`.
    """

    _table = "cache"

    def __init__(
        self, *, clock: Clock | None = None, tracker: PerformanceTracker | None = None, **settings: Any
    ) -> None:
        super().__init__(settings)
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker = tracker
        self._flights: SingleFlight[Cached] = SingleFlight()
        self._lock = threading.Lock()  # guards _store and the counters
        self._forget()

    def _after_fork(self) -> None:
        if self._lock.locked():  # by a thread of the parent: the store may be half changed
            self._forget()
        self._lock = threading.Lock()

    def _forget(self) -> None:
        self._store = _Store(self.settings.max_bytes)
        self._hits = self._misses = self._expired = 0

    def _apply(self) -> None:
        with self._lock:
            kept, self._store = self._store, _Store(self.settings.max_bytes)
            self._store.evictions = kept.evictions
            for key in list(kept):
                self._put(key, kept[key])

    def get(
        self,
        key: Any,
        loader: Callable[[], Any] | None = None,
        *,
        default: Any = None,
        ttl: float | None = None,
        tags: Iterable[str] = (),
        scope: str | None = None,
    ) -> Any:
        """Return the value of `key`; when it is not there, `loader()`, which is then kept, or `default`.

        Threads that miss the same key at once share one call of `loader`; its error is raised in all of them and not
        kept. Falsy results are results. What is returned may be changed without changing the cache.

        Args:
            key: a string, or any JSON value; the order of a mapping's keys does not matter.
            loader: computes the value: a ChatResponse or a JSON value.
            default: returned when there is neither a value nor a loader.
            ttl: seconds to keep it; None means the cache's own.
            tags: names to invalidate it by.
            scope: whose value it is, for example a user or tenant; values of one scope are never seen in another.

        Raises:
            TypeError: the key or the value is not JSON.
            RecursiveCallError: `loader` asks for `key` itself.
        """
        name = plain_key(key, scope)
        if loader is not None:
            return self.fetch(name, loader, ttl=ttl, tags=tags).value
        found = self.lookup(name)
        return default if found is None else found.value

    def set(
        self, key: Any, value: Any, *, ttl: float | None = None, tags: Iterable[str] = (), scope: str | None = None
    ) -> None:
        """Keep `value` under `key` for `ttl` seconds; parameters are those of `get`.

        Raises:
            TypeError: the key or the value is not JSON.
        """
        self.store(plain_key(key, scope), value, ttl=ttl, tags=tags)

    def delete(self, key: Any, *, scope: str | None = None) -> bool:
        """Remove `key` and tell whether it was there."""
        with self._lock:
            return self._store.pop(plain_key(key, scope), None) is not None

    def lookup(self, key: str) -> Cached | None:
        """Return the value of a ready key, counting the hit or miss."""
        now = self._clock.now()
        with self._lock:
            entry = self._find(key, now)
            if entry is None:
                self._misses += 1
            else:
                self._hits += 1
        self._count("cache_miss" if entry is None else "cache_hit")
        return _decode(entry) if entry is not None else None

    def _find(self, key: str, now: float) -> _Entry | None:
        entry: _Entry | None = self._store.get(key)
        if entry is not None and entry.expires <= now:
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
    ) -> Cached:
        """Return what is kept under a ready key, or compute it once for all who ask now.

        Args:
            key: a ready key.
            compute: called without any lock held, in one thread only.
            ttl: seconds to keep the result; None means the cache's own.
            tags: names to invalidate it by.
            timeout: seconds to wait for another thread's computation.

        Raises:
            DeadlineExceeded: another thread computes and is not done in time.
        """
        found = self.lookup(key)
        if found is not None:
            return found

        def compute_and_keep() -> Cached:
            with self._lock:  # another thread may have landed between the look-up and the take-off
                entry = self._find(key, self._clock.now())
            if entry is not None:
                return _decode(entry)
            value = compute()
            self.store(key, value, ttl=ttl, tags=tags)
            return Cached(value)

        result, shared = self._flights.run(key, compute_and_keep, timeout=timeout)
        return result._replace(stored_at=self._clock.wall()) if shared and result.stored_at is None else result

    def store(self, key: str, value: Any, *, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        """Keep `value` under a ready key; one larger than the whole cache is not kept.

        Raises:
            TypeError: the value is not JSON.
        """
        kept = _keep(value)
        keep_for = self.settings.ttl if ttl is None else ttl
        entry = _Entry(kept, self._clock.wall(), self._clock.now() + keep_for, frozenset(tags))
        with self._lock:
            self._put(key, entry)

    def _put(self, key: str, entry: _Entry) -> None:
        if entry.value.size + ENTRY_OVERHEAD > self._store.maxsize:
            self._store.pop(key, None)
            return
        self._store[key] = entry
        limit = self.settings.max_entries
        while limit is not None and len(self._store) > limit:
            self._store.popitem()

    def invalidate(self, pattern_or_tag: str) -> int:
        """Remove what has this tag, this key, or a key that this glob (`*`, `?`, `[...]`) matches; return how many.

        Keys of direct use match as they were given, whatever their scope.
        """
        with self._lock:
            gone = [key for key, entry in self._store.items() if _matches(key, entry, pattern_or_tag)]
            for key in gone:
                self._store.pop(key)
        return len(gone)

    def clear(self) -> None:
        """Remove every entry; counters stay."""
        with self._lock:
            kept, self._store = self._store, _Store(self.settings.max_bytes)
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
