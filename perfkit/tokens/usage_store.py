"""Usage totals in SQLite or Redis: by the minute for a day, by the hour for good.

Names and numbers only: what was asked and answered is never stored.
"""

from __future__ import annotations

import json
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any, Final

from perfkit.errors import StateUnavailableError
from perfkit.tokens.usage import DIMENSIONS, HOUR, MINUTE, MINUTES_KEPT, Totals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from perfkit.state import RedisLink, SqliteFile
    from perfkit.tokens.usage import Names, Row

__all__ = ["RedisUsage", "SqliteUsage"]

COLUMNS: Final = tuple(field.name for field in fields(Totals))
YEARS: Final = 400 * 86400  # seconds that Redis keeps an hour
TABLE: Final = f"""
CREATE TABLE IF NOT EXISTS perfkit_usage (
    start INTEGER NOT NULL, span INTEGER NOT NULL, {", ".join(f"{name} TEXT NOT NULL" for name in DIMENSIONS)},
    {", ".join(f"{name} INTEGER NOT NULL" for name in COLUMNS)},
    PRIMARY KEY (start, span, {", ".join(DIMENSIONS)})
) WITHOUT ROWID"""
UPSERT: Final = f"""
ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in COLUMNS)}"""
INSERT: Final = f"""
INSERT INTO perfkit_usage VALUES ({", ".join("?" * (2 + len(DIMENSIONS) + len(COLUMNS)))}) {UPSERT}"""  # noqa: S608 - the names are this file's own
FOLD: Final = f"""
INSERT INTO perfkit_usage SELECT start - start % {HOUR}, {HOUR}, {", ".join((*DIMENSIONS, *COLUMNS))}
FROM perfkit_usage WHERE span = {MINUTE} AND start < ? {UPSERT}"""  # noqa: S608
FORGET: Final = f"DELETE FROM perfkit_usage WHERE span = {MINUTE} AND start < ?"  # noqa: S608


class SqliteUsage:
    """Totals in a file; minutes older than a day are folded into hours.

    Args:
        file: where.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._folded = 0.0  # epoch seconds; folding twice changes nothing, so no lock

    def write(self, totals: Mapping[tuple[int, Names], Totals], now: float, batch: str) -> None:  # noqa: ARG002
        """Add totals in one transaction; one that fails has added nothing, so a batch needs no name."""
        rows = [(minute, MINUTE, *names, *astuple(sums)) for (minute, names), sums in totals.items()]
        with self._file.transaction() as connection:
            connection.execute(TABLE)
            connection.executemany(INSERT, rows)
            if now - self._folded > HOUR:
                old = (int(now) - MINUTES_KEPT,)
                connection.execute(FOLD, old)
                connection.execute(FORGET, old)
                self._folded = now

    def read(self, begin: float, end: float, now: float) -> Iterator[Row]:  # noqa: ARG002 - spans are stored
        """Return the rows of a time range."""
        self._file.execute(TABLE)
        found = self._file.execute(
            "SELECT * FROM perfkit_usage WHERE start <= ? AND start + span > ? ORDER BY start", (end, begin)
        )
        for start, _, *rest in found:
            yield start, _names(rest[: len(DIMENSIONS)]), Totals(*rest[len(DIMENSIONS) :])


class RedisUsage:
    """Totals in hashes: one an hour with its minutes, kept for a day, and one a day with its hours, kept for a year.

    Args:
        link: to Redis.
    """

    ADD: Final = """
if not redis.call('SET', KEYS[1], 1, 'EX', ARGV[1], 'NX') then return 0 end
for i, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[i]) end
for i = #KEYS + 1, #ARGV, 3 do redis.call('HINCRBY', KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]) end
for i, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[i]) end
return 1
"""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def _key(self, span: int, start: int) -> str:
        return self._link.key("{usage}", "minutes" if span == MINUTE else "hours", start)

    def write(self, totals: Mapping[tuple[int, Names], Totals], now: float, batch: str) -> None:  # noqa: ARG002 - Redis forgets by itself
        """Add totals in one step, and remember for an hour that this batch is in."""
        keys: dict[str, int] = {self._link.key("{usage}", "batch", batch): 1}
        steps: list[Any] = []
        for (minute, names), sums in totals.items():
            for span, start in ((MINUTE, minute), (HOUR, minute // HOUR * HOUR)):
                whole = start // HOUR * HOUR if span == MINUTE else start // 86400 * 86400
                place = keys.setdefault(self._key(span, whole), len(keys) + 1)
                for column, value in zip(COLUMNS, astuple(sums), strict=True):
                    if value:
                        steps += [place, json.dumps([start, *names, column]), value]
        lives = [HOUR, *(MINUTES_KEPT + HOUR if ":minutes:" in key else YEARS for key in list(keys)[1:])]
        self._link.script(self.ADD)(list(keys), [*lives, *steps])

    def read(self, begin: float, end: float, now: float) -> Iterator[Row]:
        """Return minutes of the last day, and hours before that."""
        border = int(now - MINUTES_KEPT) // HOUR * HOUR + HOUR
        minutes = range(max(border, int(begin) // HOUR * HOUR), int(end) + 1, HOUR)
        days = range(int(begin) // 86400 * 86400, min(border, int(end) + 1), 86400)
        keys = [self._key(MINUTE, start) for start in minutes] + [self._key(HOUR, start) for start in days]
        for number, fields_of in enumerate(self._link.pipeline([("HGETALL", key) for key in keys])):
            span = MINUTE if number < len(minutes) else HOUR
            for (start, names), sums in _cells(fields_of).items():
                if start <= end and start + span > begin and (span == MINUTE or start < border):
                    yield start, names, sums


def _cells(reply: Any) -> dict[tuple[int, Names], Totals]:
    """Return the cells of a hash, which redis-py gives as a mapping or as a flat list."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    cells: dict[tuple[int, Names], Totals] = {}
    for field, value in pairs:
        start, *names, column = json.loads(field)
        cell = cells.setdefault((start, _names(names)), Totals())
        setattr(cell, column, int(value))
    return cells


def _names(row: list[str]) -> Names:
    if len(row) != len(DIMENSIONS):
        raise StateUnavailableError(
            f"usage has {len(row)} names instead of {len(DIMENSIONS)}: another version wrote it"
        )
    agent, model, provider, user, tag = row
    return agent, model, provider, user, tag
