"""Answers in a SQLite file: shared by the workers of a host, and still there after a restart.

A write is one transaction, so a process that is killed loses at most the write under way and nobody ever reads half of
one. Nothing is copied into memory: a file tells nobody when another process has removed something.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perfkit.errors import ConfigError, StateUnavailableError
from perfkit.state import SqliteFile, StateHub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perfkit.caching.backends import Setup
    from perfkit.caching.entry import Entry
    from perfkit.caching.matching import Match

__all__ = ["SqliteBackend"]

SCHEME = "sqlite:///"
EXPIRED_AT_ONCE = 20  # rows that a write removes beside its own work, so that no write takes long
EVICTED_AT_ONCE = 10
OVERHEAD = 200  # bytes of a row beside its key and value

SCHEMA = """
CREATE TABLE IF NOT EXISTS perfkit_cache (
    key BLOB PRIMARY KEY, gone REAL NOT NULL, size INTEGER NOT NULL, tags TEXT NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS perfkit_cache_gone ON perfkit_cache (gone);
CREATE TABLE IF NOT EXISTS perfkit_cache_total (
    one INTEGER PRIMARY KEY CHECK (one = 1), entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO perfkit_cache_total SELECT 1, count(*), coalesce(sum(size), 0) FROM perfkit_cache;
CREATE TRIGGER IF NOT EXISTS perfkit_cache_in AFTER INSERT ON perfkit_cache BEGIN
    UPDATE perfkit_cache_total SET entries = entries + 1, bytes = bytes + new.size; END;
CREATE TRIGGER IF NOT EXISTS perfkit_cache_out AFTER DELETE ON perfkit_cache BEGIN
    UPDATE perfkit_cache_total SET entries = entries - 1, bytes = bytes - old.size; END;
"""


class SqliteBackend:
    """The `sqlite` backend of the cache: bounded by bytes and entries, the one to expire first goes first."""

    announces = False
    turns = None

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        url = setup.settings.url
        self.own = None if url is None else SqliteFile(_path(url), tracker=setup.tracker)
        self._made: SqliteFile | None = None  # the file that has the tables; making them twice does no harm

    def _file(self) -> SqliteFile:
        file = self.own if self.own is not None else StateHub.instance().sqlite
        if file is None:
            raise ConfigError('the cache backend "sqlite" needs [cache] url or [state] url = "sqlite:///<path>"')
        if self._made is not file:
            with file.transaction() as connection:
                for statement in _statements(SCHEMA):
                    connection.execute(statement)
            self._made = file
        return file

    @contextmanager
    def _opened(self) -> Iterator[SqliteFile]:
        file = self._file()
        try:
            yield file
        except StateUnavailableError:
            self._made = None  # it may be another file when it is back
            raise

    def _name(self, key: str) -> bytes:
        return f"{self._setup.settings.generation}:{key}".encode("utf-8", "surrogatepass")  # SQLite's text is stricter

    def listen(self) -> None:
        """Nobody tells anything."""

    def get(self, key: str) -> Entry | None:
        """Return what is kept and not gone."""
        with self._opened() as file:
            rows = file.execute("SELECT data FROM perfkit_cache WHERE key = ?", (self._name(key),))
        return self._setup.codec.decode(key, rows[0][0]) if rows else None

    def put(self, entry: Entry) -> None:
        """Keep an entry, and make room for it."""
        data, settings = self._setup.codec.encode(entry), self._setup.settings
        name, wall = self._name(entry.key), self._setup.clock.wall()
        size = len(data) + len(name) + OVERHEAD
        row = (name, entry.stored_at + entry.life.whole, size, json.dumps(sorted(entry.tags)), data)
        with self._opened() as file, file.transaction() as connection:
            connection.execute("DELETE FROM perfkit_cache WHERE key = ?", (name,))
            if size > settings.max_bytes:
                return
            connection.execute("INSERT INTO perfkit_cache VALUES (?, ?, ?, ?, ?)", row)
            connection.execute(_REMOVE.format("gone <= ?"), (wall, EXPIRED_AT_ONCE))
            self._make_room(connection, settings.max_bytes, settings.max_entries, name)

    def _make_room(self, connection: Any, max_bytes: int, max_entries: int | None, spared: bytes) -> None:
        removed = 1
        while removed:
            entries, size = connection.execute("SELECT entries, bytes FROM perfkit_cache_total").fetchone()
            if size <= max_bytes and (max_entries is None or entries <= max_entries):
                return
            removed = connection.execute(_REMOVE.format("key <> ?"), (spared, EVICTED_AT_ONCE)).rowcount

    def delete(self, key: str) -> bool:
        """Remove one key and tell whether it was there."""
        with self._opened() as file:
            rows = file.execute("DELETE FROM perfkit_cache WHERE key = ? RETURNING gone", (self._name(key),))
        return any(gone > self._setup.clock.wall() for (gone,) in rows)

    def invalidate(self, match: Match) -> int:
        """Remove what matches, and return how many."""
        prefix, wall = self._name(""), self._setup.clock.wall()
        with self._opened() as file:
            rows = file.execute("SELECT CAST(key AS BLOB), tags FROM perfkit_cache WHERE gone > ?", (wall,))
            found = [
                (name,)
                for name, tags in rows
                if name.startswith(prefix) and match.covers(_key(name[len(prefix) :]), frozenset(json.loads(tags)))
            ]
            with file.transaction() as connection:
                connection.executemany("DELETE FROM perfkit_cache WHERE key = ?", found)
        return len(found)

    def clear(self) -> None:
        """Remove all rows."""
        with self._opened() as file:
            file.execute("DELETE FROM perfkit_cache")

    def count(self) -> tuple[int, int]:
        """Return the number of rows and their bytes, expired ones that are still there among them."""
        with self._opened() as file:
            [(entries, size)] = file.execute("SELECT entries, bytes FROM perfkit_cache_total")
        return entries, size

    def close(self) -> None:
        """Close the file, if it is the cache's own."""
        if self.own is not None:
            self.own.close()


_REMOVE = "DELETE FROM perfkit_cache WHERE key IN (SELECT key FROM perfkit_cache WHERE {} ORDER BY gone LIMIT ?)"


def _key(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def _path(url: str) -> str:
    if not url.startswith(SCHEME):
        raise ConfigError(f"[cache] url must begin with {SCHEME} for the backend sqlite", key="cache.url")
    return url.removeprefix(SCHEME)


def _statements(script: str) -> list[str]:
    """Return the statements of a script; sqlite3's executescript would end the transaction."""
    found, statement = [], ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if line.endswith(";") and ("BEGIN" not in statement or line.endswith("END;")):
            found.append(statement)
            statement = ""
    return found
