"""Where semantic caches of several processes write what they learn, one record after another: Redis, or a file.

A log is only added to at its end and read from any place on, so its readers need no locks and miss nothing. It is
bounded: when it is full its oldest records go. Records are bytes; what is in them is the business of `sharing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from perfkit.state import RedisLink, SqliteFile

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Log", "Place", "RedisLog", "SqliteLog", "log_in"]

KEPT = 30 * 86_400  # seconds after the last record that Redis keeps a log nobody adds to
Place = bytes | int  # of a record; the records of a log are in the order of their places


class Log(Protocol):
    """Records in order; every method raises StateUnavailableError while the store is away."""

    start: Place  # before the first record

    def append(self, records: Sequence[bytes], most: int) -> None:
        """Add records at the end, and drop the oldest beyond about `most`."""
        ...

    def read(self, after: Place, count: int) -> list[tuple[Place, bytes]]:
        """Return up to `count` records behind a place, with their own places."""
        ...

    def remove(self, places: Sequence[Place]) -> None:
        """Remove records."""
        ...


class RedisLog:
    """A log as a Redis stream.

    Args:
        link: the Redis.
        name: of the log; its key begins with the prefix of `link`.
    """

    start: Place = b"0-0"

    def __init__(self, link: RedisLink, name: str) -> None:
        self._link, self._key = link, link.key("semantic", name)

    def append(self, records: Sequence[bytes], most: int) -> None:
        """Add records at the end, and drop the oldest."""
        commands: list[tuple[str | bytes | int, ...]] = [
            ("XADD", self._key, "MAXLEN", "~", most, "*", "r", record) for record in records
        ]
        self._link.pipeline([*commands, ("EXPIRE", self._key, KEPT)])

    def read(self, after: Place, count: int) -> list[tuple[Place, bytes]]:
        """Return records behind a place."""
        found = self._link.call("XREAD", "COUNT", count, "STREAMS", self._key, after)
        return [(place, fields.get(b"r", b"")) for _, rows in found or () for place, fields in rows]

    def remove(self, places: Sequence[Place]) -> None:
        """Remove records."""
        if places:
            self._link.call("XDEL", self._key, *places)


SCHEMA = """CREATE TABLE IF NOT EXISTS perfkit_semantic (
    place INTEGER PRIMARY KEY AUTOINCREMENT, log TEXT NOT NULL, record BLOB NOT NULL)"""
INDEX = "CREATE INDEX IF NOT EXISTS perfkit_semantic_log ON perfkit_semantic (log, place)"
TRIM = """DELETE FROM perfkit_semantic WHERE log = :log AND place <=
    (SELECT place FROM perfkit_semantic WHERE log = :log ORDER BY place DESC LIMIT 1 OFFSET :most)"""


class SqliteLog:
    """A log as rows of a table.

    Args:
        file: the file.
        name: of the log.
    """

    start: Place = 0

    def __init__(self, file: SqliteFile, name: str) -> None:
        self._file, self._name = file, name

    def append(self, records: Sequence[bytes], most: int) -> None:
        """Add records at the end, and drop the oldest."""
        rows = [(self._name, record) for record in records]
        with self._file.transaction() as connection:
            connection.execute(SCHEMA)
            connection.execute(INDEX)
            connection.executemany("INSERT INTO perfkit_semantic (log, record) VALUES (?, ?)", rows)
            connection.execute(TRIM, {"log": self._name, "most": most})

    def read(self, after: Place, count: int) -> list[tuple[Place, bytes]]:
        """Return records behind a place; nobody has written any as long as there is no table."""
        if not self._file.execute("SELECT 1 FROM sqlite_master WHERE name = 'perfkit_semantic'"):
            return []
        wanted = "SELECT place, record FROM perfkit_semantic WHERE log = ? AND place > ? ORDER BY place LIMIT ?"
        return self._file.execute(wanted, (self._name, after, count))

    def remove(self, places: Sequence[Place]) -> None:
        """Remove records."""
        with self._file.transaction() as connection:
            connection.executemany("DELETE FROM perfkit_semantic WHERE place = ?", [(place,) for place in places])


def log_in(link: RedisLink | SqliteFile, name: str) -> Log:
    """Return the log called `name` in a Redis or a file."""
    return RedisLog(link, name) if isinstance(link, RedisLink) else SqliteLog(link, name)
