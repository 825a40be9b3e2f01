"""Answers in a cache that the application has already: Django's, or Flask-Caching's.

Such caches find a value by its key and nothing more, so what is made invalid is written down beside the values: a
counter, and under each number what was invalidated then. A value carries the number it was written at, and is read only
if all that came after it is known and does not mean it. Whatever the cache has dropped of that (they evict as they
like) makes values unreadable, never wrong. Only keys of our own are ever written or deleted, and the values are JSON
bytes, whatever the cache wraps them in.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from perfkit import _process
from perfkit.caching.matching import Match
from perfkit.errors import ConfigError, StateUnavailableError, nearest
from perfkit.state.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perfkit.caching.backends import Setup
    from perfkit.caching.entry import Entry

__all__ = ["BorrowedBackend", "django_backend", "flask_backend"]

LONGEST = 7 * 86400.0  # seconds that values and invalidations are kept
SLOW, PAUSE = 0.05, 1.0  # seconds: a cache that takes longer than the first to fail is left alone for the second
MOST_BEHIND = 256  # invalidations that a value may be older than


class Lender(Protocol):
    """What is asked of the application's cache."""

    def get_many(self, names: Sequence[str]) -> dict[str, Any]:
        """Return what is there of `names`."""
        ...

    def set(self, name: str, value: Any, seconds: float) -> None:
        """Keep a value."""
        ...

    def begin(self, name: str, number: int) -> None:
        """Keep a number for ever, unless there is one."""
        ...

    def increase(self, name: str) -> int:
        """Add one to a number and return it."""
        ...

    def delete(self, name: str) -> bool:
        """Remove a key and tell whether it was there."""
        ...


class BorrowedBackend:
    """The `django` and `flask` backends of the cache."""

    announces = False
    turns = None

    def __init__(self, setup: Setup, lender: Lender, what: str) -> None:
        self._setup, self._lender = setup, lender
        self._outage = Outage(what, setup.tracker)
        self._again = 0.0  # when it may be asked, after it failed
        self._counter = f"perfkit:cache:{setup.settings.generation}:marks"
        _process.bind(self)

    def _after_fork(self) -> None:
        self._outage.after_fork()

    def _name(self, key: str) -> str:
        digest = hashlib.sha256(f"{self._setup.settings.generation}\0{key}".encode("utf-8", "surrogatepass"))
        return f"perfkit:cache:{digest.hexdigest()}"  # memcached takes 250 characters, and no spaces

    @contextmanager
    def _asking(self) -> Iterator[Lender]:
        clock = self._setup.clock
        began = clock.now()
        if began < self._again:
            self._outage.refuse()
        try:
            yield self._lender
        except (ConfigError, StateUnavailableError):
            raise
        except Exception as error:
            if clock.now() - began > SLOW:
                self._again = clock.now() + PAUSE
            self._outage.begins(error)
            self._outage.refuse(error)
        self._outage.ends()

    def listen(self) -> None:
        """Nobody tells anything."""

    def get(self, key: str) -> Entry | None:
        """Return what is kept and has not been made invalid."""
        name = self._name(key)
        with self._asking() as lender:
            found = lender.get_many([self._counter, name])
            if self._counter not in found or not isinstance(found.get(name), bytes):
                return None
            number, _, data = found[name].partition(b"\n")
            entry = self._setup.codec.decode(key, data)
            if entry is None or self._overtaken(lender, entry, int(number), int(found[self._counter])):
                return None
        return entry

    def _overtaken(self, lender: Lender, entry: Entry, number: int, now: int) -> bool:
        if not 0 <= now - number <= MOST_BEHIND:
            return True
        marks = [self._mark(one) for one in range(number + 1, now + 1)]
        found = lender.get_many(marks) if marks else {}
        return any(mark not in found or Match(*json.loads(found[mark])).covers(entry.key, entry.tags) for mark in marks)

    def _mark(self, number: int) -> str:
        return f"{self._counter}:{number}"

    def put(self, entry: Entry) -> None:
        """Keep an entry."""
        data = self._setup.codec.encode(entry)
        with self._asking() as lender:
            number = self._number(lender)
            if number is not None:
                name, seconds = self._name(entry.key), min(entry.life.whole, LONGEST)
                lender.set(name, str(number).encode() + b"\n" + data, seconds)

    def _number(self, lender: Lender) -> int | None:
        """Return the counter's number, None where the cache keeps nothing, as in many a test's settings.

        A new one begins anywhere, so that no value of an older one fits.
        """
        found = lender.get_many([self._counter])
        if self._counter not in found:
            lender.begin(self._counter, secrets.randbits(50))
            found = lender.get_many([self._counter])
        return int(found[self._counter]) if self._counter in found else None

    def delete(self, key: str) -> bool:
        """Remove one key and tell whether it was there."""
        with self._asking() as lender:
            return lender.delete(self._name(key))

    def invalidate(self, match: Match) -> int:
        """Make what matches unreadable; how many that is, such a cache cannot tell."""
        with self._asking() as lender:
            if self._number(lender) is not None:
                number = lender.increase(self._counter)
                lender.set(self._mark(number), json.dumps([match.wanted, match.exact]), LONGEST)
        return 0

    def clear(self) -> None:
        """Make all of ours unreadable."""
        with self._asking() as lender:
            lender.delete(self._counter)

    def count(self) -> None:
        """Such a cache cannot count."""

    def close(self) -> None:
        """The cache is the application's."""


class _Django:
    """One of `django.core.cache.caches`."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    @property
    def _cache(self) -> Any:
        from django.core.cache import caches

        return caches[self._alias]

    def get_many(self, names: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = self._cache.get_many(names)
        return found

    def set(self, name: str, value: Any, seconds: float) -> None:
        self._cache.set(name, value, max(1, round(seconds)))

    def begin(self, name: str, number: int) -> None:
        self._cache.add(name, number, None)

    def increase(self, name: str) -> int:
        return int(self._cache.incr(name))

    def delete(self, name: str) -> bool:
        return bool(self._cache.delete(name))


class _Flask:
    """The cache of Flask-Caching that the application has; seen once, it is used outside of requests too."""

    def __init__(self) -> None:
        self._seen: Any = None

    @property
    def _cache(self) -> Any:
        if self._seen is None:
            from flask import current_app

            caches = current_app.extensions.get("cache") if current_app else None
            if not caches:
                raise ConfigError(
                    'the cache backend "flask" needs Flask-Caching\'s Cache(app), and an app context first'
                )
            self._seen = next(iter(caches.values()))
        return self._seen

    def get_many(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: value for name, value in self._cache.get_dict(*names).items() if value is not None}

    def set(self, name: str, value: Any, seconds: float) -> None:
        self._cache.set(name, value, timeout=max(1, round(seconds)))

    def begin(self, name: str, number: int) -> None:
        self._cache.add(name, number, timeout=0)

    def increase(self, name: str) -> int:
        return int(self._cache.inc(name))

    def delete(self, name: str) -> bool:
        there = self._cache.get(name) is not None  # not every cache of its tells
        self._cache.delete(name)
        return there


def django_backend(setup: Setup) -> BorrowedBackend:
    """Return the backend over the Django cache that `[cache] alias` names.

    Raises:
        ConfigError: Django's CACHES has no such name: that is a mistake, and no outage.
    """
    from django.conf import settings

    alias = setup.settings.alias
    if settings.configured and alias not in settings.CACHES:
        hint = nearest(alias, settings.CACHES)
        raise ConfigError(f"[cache] alias is {alias!r}, which Django's CACHES does not have{hint}", key="cache.alias")
    return BorrowedBackend(setup, _Django(alias), f"Django's cache {alias!r}")


def flask_backend(setup: Setup) -> BorrowedBackend:
    """Return the backend over the application's Flask-Caching."""
    return BorrowedBackend(setup, _Flask(), "Flask-Caching")
