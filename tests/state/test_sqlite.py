from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from _forks import await_child, held_by_another, in_child, start_child

from perfkit.errors import StateUnavailableError
from perfkit.metrics import PerformanceTracker
from perfkit.state import SqliteFile


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    file = SqliteFile(tmp_path / "state.db", tracker=PerformanceTracker())
    file.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v)")
    yield file
    file.close()


def test_rows_survive_the_link(file: SqliteFile) -> None:
    file.execute("INSERT INTO t VALUES (?, ?)", ("a", 1))
    file.close()
    assert file.execute("SELECT * FROM t") == [("a", 1)]


def test_transaction_is_all_or_nothing(file: SqliteFile) -> None:
    def add_twice() -> None:
        with file.transaction() as cursor:
            cursor.execute("INSERT INTO t VALUES ('a', 1)")
            cursor.execute("INSERT INTO t VALUES ('a', 2)")

    with pytest.raises(sqlite3.IntegrityError):
        add_twice()
    assert file.execute("SELECT * FROM t") == []
    with file.transaction() as cursor:
        cursor.execute("INSERT INTO t VALUES ('a', 1)")
    assert file.execute("SELECT * FROM t") == [("a", 1)]


def test_locked_file_is_unavailable_and_then_not(file: SqliteFile) -> None:
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateUnavailableError, match="locked"):
        file.execute("INSERT INTO t VALUES ('a', 1)")
    other.execute("COMMIT")
    other.close()
    file.execute("INSERT INTO t VALUES ('a', 1)")


def test_what_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"garbage" * 1000)
    for path in (tmp_path / "x", tmp_path / "no" / "directory"):
        with pytest.raises(StateUnavailableError):
            SqliteFile(path, tracker=PerformanceTracker()).execute("SELECT 1")


def test_full_disk_is_unavailable_and_keeps_what_was_written(file: SqliteFile) -> None:
    file.execute("INSERT INTO t VALUES ('a', 1)")
    file.execute("PRAGMA max_page_count = 5")
    with pytest.raises(StateUnavailableError, match="full"):
        file.execute("INSERT INTO t VALUES ('b', zeroblob(1000000))")
    assert file.execute("SELECT * FROM t") == [("a", 1)]


def test_threads_and_children_write_to_one_file(file: SqliteFile) -> None:
    file._timeout = 20.0  # a busy machine is no outage

    def add(number: int) -> None:
        file.execute("INSERT INTO t VALUES (?, 0)", (f"{os.getpid()}-{number}",))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    in_child(lambda: add(0))
    assert file.execute("SELECT count(*) FROM t") == [(41,)]


def test_lock_held_at_the_fork_is_new_in_the_child(file: SqliteFile) -> None:
    with held_by_another(file.transaction()) as leave:
        child = start_child(lambda: file.execute("SELECT count(*) FROM t"))
        leave.set()
        assert await_child(*child) == [(0,)]
