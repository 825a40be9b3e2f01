"""A SQLite file that the processes of a host share; it survives a restart, and its loss breaks nothing."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit.state.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from perfkit.metrics import PerformanceTracker

__all__ = ["SqliteFile"]


class SqliteFile:
    """Statements on one file, in write-ahead mode: readers and the writer do not wait for each other.

    A commit survives the death of the process; a power failure may cost the last ones, never the file (SQLite's
    `synchronous=NORMAL`).

    Args:
        path: the file; it is made on first use, its directory must exist.
        timeout: seconds to wait for other threads and processes.
        tracker: where `state_unavailable` is counted; None means the shared one.
    """

    def __init__(self, path: str | Path, *, timeout: float = 0.1, tracker: PerformanceTracker | None = None) -> None:
        self.path = Path(path)
        self._timeout = timeout
        self._outage = Outage(f"SQLite file {self.path}", tracker)
        self._connection: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection | None] = []  # the parent's: closing one here would harm its file
        self._lock = threading.Lock()  # guards _connection and the statements on it
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._inherited.append(self._connection)
        self._connection = None
        self._outage.after_fork()

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """Run one statement, committed at once, and return its rows.

        Raises:
            StateUnavailableError: the file is locked, full, broken or not to be opened.
            sqlite3.IntegrityError: a constraint of the table forbids it.
        """
        with self._opened() as connection:
            return connection.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run several statements as one step: all of them, or none when the block raises.

        Raises:
            StateUnavailableError: as for `execute`.
        """
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        _process.check()
        if not self._lock.acquire(timeout=self._timeout):
            self._outage.refuse(TimeoutError("other threads are using it"))
        try:
            if self._connection is None:
                self._connection = self._open()
            yield self._connection
            self._outage.ends()
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except sqlite3.Error as error:
            self._outage.begins(error)
            self._outage.refuse(error)
        finally:
            self._lock.release()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the file; a later statement opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __repr__(self) -> str:
        return f"SqliteFile({str(self.path)!r})"
