"""The response cache: no call paid twice, bounded memory, and one computation per key.

`ResponseCache` is what users and the pipeline hold; entries are the shelf's business, misses the loader's. No lock is
held while an answer is computed, serialised or sent.

The key space: "chat:<digest>:..." are answers of models, "key:<name>" and "json:<digest>" what the application keeps
itself, and "scope:<digest>:" goes before either of these two.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from perfkit._shared import Shared
from perfkit.caching.backends import BACKENDS, Backend, Setup
from perfkit.caching.codec import Codec
from perfkit.caching.entry import Cached, Entry, Life
from perfkit.caching.keys import plain_key, scope_of
from perfkit.caching.loading import Job, Loader
from perfkit.caching.matching import Match
from perfkit.caching.shelf import Shelf
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.metrics import PerformanceTracker
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfkit.caching.leading import Lead

__all__ = ["ResponseCache"]

NO_TAGS: frozenset[str] = frozenset()
FAR_SETTINGS = ("backend", "url", "alias", "generation", "compression", "compress_above", "encryption_key", "max_bytes")


_life = lru_cache(maxsize=256)(Life)  # most entries share theirs


def _checked(ttl: float | None, tags: Iterable[str], stale_ttl: float | None = None) -> frozenset[str]:
    """Return the tags as a set; refuse what is no time to live and what are no tags."""
    if ttl is not None:
        finite("ttl", ttl, above=0)
    if stale_ttl is not None:
        finite("stale_ttl", stale_ttl, least=0)
    if tags == ():
        return NO_TAGS
    names = None if isinstance(tags, str | bytes) else frozenset(tags)
    if names is None or not all(isinstance(name, str) for name in names):
        raise TypeError(f"tags must be several names, as in ['city', 'rome'], not {tags!r}")
    return names


class ResponseCache(Shared):
    """Answers by key: in memory bounded by bytes and entries, and behind it in a backend that processes share.

    Args:
        clock: None means the system's.
        tracker: where `cache_hit`, `cache_miss`, `cache_stale`, `cache_refresh_failed` and `cache_unstorable` are
            counted; None means the shared one.
        backend: a name of the `[cache]` table, or an object of your own that does what `Backend` says.
        **settings: keys of the `[cache]` table: `max_bytes` (100 MiB), `max_entries`, `ttl` (3600 s), `stale_ttl`,
            `stale_if_error`, `error_ttl`, `early_refresh`, `policy` and those of the backend.
    """

    _table = "cache"

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        tracker: PerformanceTracker | None = None,
        backend: str | Backend | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(settings if not isinstance(backend, str) else {**settings, "backend": backend})
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker = tracker
        self._own = None if isinstance(backend, str) else backend
        self._shelf = Shelf(self.settings, self._clock)
        self._loader = Loader(self._shelf, self._clock, self._count)
        self._made_from: tuple[Any, ...] = ()
        self._apply()

    def _after_fork(self) -> None:
        self._shelf.after_fork()
        self._loader.after_fork()

    def _apply(self) -> None:
        settings = self.settings
        made_from = tuple(getattr(settings, name) for name in FAR_SETTINGS)
        if made_from != self._made_from:
            old, self._shelf.far = self._shelf.far, self._make_far()
            if self._made_from[:4] not in ((), made_from[:4]):
                self._shelf.forget(None)
            self._made_from = made_from
            if old is not None:
                old.close()
        self._shelf.near.bound(settings.max_bytes, settings.max_entries)

    def _make_far(self) -> Backend | None:
        if self._own is not None:
            return self._own
        codec = Codec.of(self.settings, self._clock)
        setup = Setup(self.settings, codec, self._clock, self._tracker, self._shelf.forget)
        made: Backend | None = BACKENDS.get(self.settings.backend)(setup)
        return made

    def get(  # noqa: PLR0913 - all but the key have their defaults
        self,
        key: Any,
        loader: Callable[[], Any] | None = None,
        *,
        default: Any = None,
        ttl: float | None = None,
        tags: Iterable[str] = (),
        scope: str | None = None,
        stale_ttl: float | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Return the value of `key`; when it is not there, `loader()`, which is then kept, or `default`.

        Threads that miss the same key at once share one call of `loader`, and so do processes where the backend lets
        them; its error is raised in all of them and not kept, but where it says that the caller's own time or money ran
        out, one of those waiting calls his loader. Falsy results are results. What is returned may be changed without
        changing the cache, or what others get.

        Args:
            key: a string, or any JSON value; the order of a mapping's keys does not matter.
            loader: computes the value: a ChatResponse or a JSON value.
            default: returned when there is neither a value nor a loader.
            ttl: seconds to keep it, above 0; None means the cache's own.
            tags: names to invalidate it by.
            scope: whose value it is, for example a user or tenant; values of one scope are never seen in another.
            stale_ttl: seconds after `ttl` during which the old value is served while `loader` runs in a thread of its
                own; None means the cache's own, 0 by default.
            timeout: seconds to wait for another thread's `loader`; None means until it is done. A loader that waits
                for a thread of its own which asks for the same key can be found by nothing else.

        Raises:
            TypeError: the key or the value is not JSON, or tags are not names.
            ValueError: `ttl`, `stale_ttl` or `timeout` is out of bounds.
            RecursiveCallError: `loader` asks for `key` itself.
            DeadlineExceeded: another thread's `loader` is not done within `timeout`.
        """
        names, name = _checked(ttl, tags, stale_ttl), plain_key(key, scope)
        if timeout is not None:
            finite("timeout", timeout, least=0)
        if loader is not None:
            return self.fetch(
                name, loader, ttl=ttl, tags=names, timeout=timeout, stale_ttl=stale_ttl, strict=True
            ).value
        found = self.lookup(name)
        return default if found is None else found.value

    def set(
        self,
        key: Any,
        value: Any,
        *,
        ttl: float | None = None,
        tags: Iterable[str] = (),
        scope: str | None = None,
        stale_ttl: float | None = None,
    ) -> None:
        """Keep `value` under `key` for `ttl` seconds; parameters are those of `get`.

        Raises:
            TypeError: the key or the value is not JSON, or tags are not names.
            ValueError: `ttl` or `stale_ttl` is out of bounds.
        """
        names = _checked(ttl, tags, stale_ttl)
        self._loader.keep(plain_key(key, scope), value, self._life(ttl, stale_ttl), names)

    def delete(self, key: Any, *, scope: str | None = None) -> bool:
        """Remove `key` and tell whether it was there."""
        return self._shelf.delete(plain_key(key, scope))

    def lookup(
        self,
        key: str,
        *,
        ttl: float | None = None,
        stale_ttl: float | None = None,
        stale_if_error: float | None = None,
        refresh: Callable[[], Any] | None = None,
    ) -> Entry | None:
        """Return the entry of a ready key, counting the hit or miss; a stale one only where `refresh` makes it new.

        The other parameters are those of `fetch`.
        """
        now = self._clock.now()
        entry = self._shelf.near.get(key, now)
        if entry is not None:
            self._count("cache_hit")
            return entry
        entry = self._shelf.find(key)
        if entry is not None and entry.expires > now:
            self._shelf.near.count(hits=1)
            self._count("cache_hit")
            return entry
        if entry is not None and refresh is not None and entry.stale_until > now:
            job = Job(key, refresh, refresh, self._life(ttl, stale_ttl, stale_if_error), entry.tags)
            return self._loader.serve_stale(job, entry)
        self._shelf.near.count(misses=1)
        self._count("cache_miss")
        return None

    def peek(self, key: str) -> Entry | None:
        """Return the fresh entry of a ready key without counting."""
        entry = self._shelf.find(key)
        return entry if entry is not None and entry.expires > self._clock.now() else None

    def left(self, key: str) -> Entry | None:
        """Return the entry of a ready key, however stale, without counting."""
        return self._shelf.find(key)

    def fetch(  # noqa: PLR0913 - as above
        self,
        key: str,
        compute: Callable[[], Any],
        *,
        ttl: float | None = None,
        tags: Iterable[str] = (),
        timeout: float | None = None,
        stale_ttl: float | None = None,
        stale_if_error: float | None = None,
        refresh: Callable[[], Any] | None = None,
        strict: bool = False,
    ) -> Cached | Entry:
        """Return what is kept under a ready key, or compute it once for all who ask now.

        Those who wait for another thread's computation count as hits, or not at all if it fails.

        Args:
            key: a ready key.
            compute: called without any lock held, in one thread only.
            ttl: seconds to keep the result; None means the cache's own.
            tags: names to invalidate it by.
            timeout: seconds to wait for another thread's or process's computation.
            stale_ttl: seconds after `ttl` during which the old result is served while it is computed again.
            stale_if_error: seconds after `ttl` during which it is served where `compute` fails.
            refresh: how to do that, in a thread that no caller waits for; None means `compute`.
            strict: raise where the result cannot be kept, instead of delivering it all the same; and remember no error.

        Raises:
            DeadlineExceeded: another thread or process computes and is not done in time.
        """
        now = self._clock.now()
        entry = self._shelf.near.get(key, now)
        if entry is not None and not self.settings.early_refresh:
            self._count("cache_hit")
            return entry
        life, error_ttl = self._life(ttl, stale_ttl, stale_if_error), 0.0 if strict else self.settings.error_ttl
        again = compute if refresh is None else refresh
        job = Job(key, compute, again, life, frozenset(tags), error_ttl, strict)
        if entry is None:
            return self._loader.load(job, timeout)
        self._count("cache_hit")
        if self._is_early(entry, now):
            self._loader.refresh(job, entry)
        return entry

    def _is_early(self, entry: Entry, now: float) -> bool:
        """Tell whether to make a fresh entry anew already: XFetch (Vattani, Chierichetti and Lowenstein, VLDB 2015)."""
        beta: float = self.settings.early_refresh
        return now - entry.seconds * beta * math.log(1.0 - random.random()) >= entry.expires

    def _life(self, ttl: float | None, stale_ttl: float | None, stale_if_error: float | None = None) -> Life:
        settings = self.settings
        return _life(
            settings.ttl if ttl is None else ttl,
            settings.stale_ttl if stale_ttl is None else stale_ttl,
            settings.stale_if_error if stale_if_error is None else stale_if_error,
        )

    def store(  # noqa: PLR0913 - as above
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        tags: Iterable[str] = (),
        stale_ttl: float | None = None,
        stale_if_error: float | None = None,
        since: int | None = None,
    ) -> None:
        """Keep `value` under a ready key, if it can be kept: an answer that is paid for is not lost over its storage.

        One larger than the whole cache is not kept, nor one that was invalidated after its making began, when
        `departures` was `since`.
        """
        life = self._life(ttl, stale_ttl, stale_if_error)
        self._loader.keep_if_possible(key, value, life, frozenset(tags), since=since)

    def lead(self, key: str, drive: Callable[[float | None], object], heard: list[str], timeout: float) -> Lead | Entry:
        """Return the lead of a ready key whose answer is to be streamed, or what another one kept (see Loader)."""
        return self._loader.lead(key, drive, heard, timeout, self.settings.error_ttl)

    @property
    def departures(self) -> int:
        """How many invalidations there were; pass it to `store` as `since`."""
        return self._shelf.departures.count

    @property
    def shelf(self) -> Shelf:
        """Where the entries are, for what goes along with them."""
        return self._shelf

    def invalidate(self, pattern_or_tag: str) -> int:
        """Remove what has this tag, this key, or a key that this glob (`*`, `?`, `[...]`) matches; return how many.

        Keys of direct use match as they were given, whatever their scope ("json:..." stands for those that were not
        strings). Answers of models have keys "chat:<digest>:public" and "chat:<digest>:user:<digest>"; only a glob
        that begins with "chat:" matches them, so "*" leaves them alone and "chat:*" removes them all. An answer that is
        on its way when it is invalidated is delivered and not kept. Stores that cannot list their keys (Django's and
        Flask's caches) count only what was removed from this process.
        """
        return self._shelf.invalidate(Match(pattern_or_tag))

    def forget(self, *, user: str | None = None, tenant: str | None = None) -> int:
        """Remove the answers of models that are one user's own, or one tenant's; return how many.

        Raises:
            ValueError: neither is given, or both.
        """
        if (user is None) == (tenant is None):
            raise ValueError("forget() takes either user= or tenant=")
        return self.invalidate(f"chat:*:{scope_of(user, tenant)}")

    def clear(self) -> None:
        """Remove every entry, of all processes where the backend is shared; counters stay."""
        self._shelf.clear()

    @property
    def hit_rate(self) -> float:
        """Hits, stale ones among them, per look-up in percent, 0.0 before the first (RAAF guide 3.5)."""
        near = self._shelf.near
        hits = near.hits + near.stale_hits
        looked = hits + near.misses
        return round(100.0 * hits / looked, 2) if looked else 0.0

    @property
    def cache_size(self) -> int:
        """Bytes held, overhead included."""
        return self._shelf.count()[1]

    @property
    def eviction_count(self) -> int:
        """Entries pushed out of memory to make room."""
        return self._shelf.near.evictions

    def stats(self) -> dict[str, Any]:
        """Return hits, stale hits, misses, expired, evictions, entries, bytes and their bound, and the hit rate.

        Entries and bytes are those of the backend where it can tell, else those in memory.
        """
        near = self._shelf.near
        entries, size = self._shelf.count()
        return {
            "hits": near.hits,
            "stale_hits": near.stale_hits,
            "misses": near.misses,
            "expired": near.expired,
            "evictions": near.evictions,
            "entries": entries,
            "bytes": size,
            "max_bytes": self.settings.max_bytes,
            "hit_rate": self.hit_rate,
            "backend": self.settings.backend if self._own is None else type(self._own).__name__,
        }

    def _count(self, name: str) -> None:
        tracker = self._tracker
        if tracker is None:
            tracker = self._tracker = PerformanceTracker.instance()
        tracker.increment(name)

    def close(self) -> None:
        """Let go of the backend's connections; entries stay usable."""
        self._shelf.close()

    def reset(self) -> None:
        """Forget the entries of this process and all counters; what is in a backend stays: others use it too."""
        self._shelf.renew()
        self._loader.forget()

    def __len__(self) -> int:
        return self._shelf.count()[0]

    def __repr__(self) -> str:
        entries, size = self._shelf.count()
        return f"ResponseCache({self.settings.backend}, {entries} entries, {size} bytes, {self.hit_rate:.0f} % hits)"
