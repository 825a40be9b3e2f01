from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from _forks import in_child

import perfkit
from perfkit.errors import StateUnavailableError
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sharing import Store
from perfkit.metrics.sharing.files import FileStore
from perfkit.metrics.sharing.fold import fold
from perfkit.metrics.sharing.redis import RedisStore
from perfkit.state import StateHub


def test_what_is_kept_is_read_until_it_is_removed(store: Store) -> None:
    assert store.names() == []
    store.write("a", b"1")
    store.write("b", b"2" * 100_000)
    store.write("a", b"3")
    assert sorted(store.names()) == ["a", "b"]
    assert store.read(["b", "none", "a"]) == [b"2" * 100_000, None, b"3"]
    store.remove(["a", "none"])
    store.remove([])
    assert store.read([]) == []
    assert store.names() == ["b"]


def test_a_turn_is_one_processs_and_given_back(store: Store) -> None:
    store.write("a", b"1")

    def taken() -> bool:
        with store.folding() as commit:
            return commit is not None

    with store.folding() as commit:
        assert commit is not None
        assert commit("manifest", b"2")
        assert in_child(taken) is False
    assert in_child(taken) is True
    assert taken()
    assert sorted(store.names()) == ["a", "manifest"]


def test_files_belong_to_their_owner_alone(directory: Path) -> None:
    FileStore(directory).write("a", b"1")
    assert directory.stat().st_mode & 0o777 == 0o700


def test_what_a_killed_writer_left_unfinished_is_removed(directory: Path) -> None:
    store = FileStore(directory)
    store.write("a", b"1")
    old, new = directory / "b.1.2.part", directory / "c.1.2.part"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (time.time() - 61, time.time() - 61))
    assert store.names() == ["a"]
    with store.folding():
        pass
    assert sorted(path.name for path in directory.iterdir()) == ["a", "c.1.2.part", "lock"]


def test_a_writer_killed_in_the_middle_leaves_the_old_blob(directory: Path) -> None:
    store = FileStore(directory)
    store.write("a", b"old")

    def killed() -> None:
        Path.replace = lambda *_: os._exit(9)  # type: ignore[method-assign]
        store.write("a", b"new")

    with pytest.raises(AssertionError, match="child ended with 9"):
        in_child(killed)
    assert store.read(["a"]) == [b"old"]


def test_a_directory_that_cannot_be_used_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    tracker = PerformanceTracker(store=str(tmp_path / "file" / "metrics"))
    tracker.record_metric("x", 1.0)
    for _ in range(3):
        tracker.flush()
        assert tracker.merged().workers == ()
    assert tracker.get_stats("x")["count"] == 1
    assert len([record for record in caplog.records if "not shared" in record.getMessage()]) == 1
    tracker.close()


@pytest.mark.parametrize("setting", ["redis"], indirect=True)
def test_a_folder_whose_turn_ran_out_commits_nothing(setting: str, store: Store) -> None:
    link: Any = StateHub.instance().redis
    tracker = PerformanceTracker(store=setting)
    tracker.record_metric("x", 1.0)
    tracker.flush()

    class Slow(RedisStore):
        def write(self, name: str, data: bytes) -> None:
            super().write(name, data)
            if name.startswith("part3"):
                link.call("DEL", link.key("metrics", "folding"))  # ten seconds go by
                assert fold(store, "quick", time.time(), limit=10, least=1)

    assert not fold(Slow(), "slow", time.time(), limit=10, least=1)
    assert tracker.merged().get_stats("x")["count"] == 1
    tracker.record_metric("x", 1.0)
    tracker.flush()
    assert fold(store, "next", time.time(), limit=10, least=1)
    assert tracker.merged().get_stats("x")["count"] == 2
    assert [name for name in store.names() if "slow" in name] == []
    tracker.close()


@pytest.mark.parametrize("setting", ["redis"], indirect=True)
def test_redis_forgets_a_dead_application_after_a_while(store: Store) -> None:
    link = StateHub.instance().redis
    assert link is not None
    store.write("a", b"1")
    assert 0 < link.call("TTL", link.key("metrics")) <= 40 * 86_400


def test_redis_without_an_address_says_what_to_set(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StateUnavailableError, match=r"state\.url"):
        RedisStore().names()
    tracker = PerformanceTracker(store="redis")
    tracker.record_metric("x", 1.0)
    tracker.close()
    assert tracker.merged().names() == []
    assert "state.url" in caplog.text


def test_a_store_can_be_set_changed_and_left(directory: Path) -> None:
    tracker = perfkit.tracker
    perfkit.configure(metrics={"store": str(directory / "one")})
    tracker.record_metric("x", 1.0)
    perfkit.configure(metrics={"store": str(directory / "two")})
    assert len(FileStore(directory / "one").names()) == 1
    assert tracker.merged().names() == []
    tracker.record_metric("x", 1.0)
    tracker.flush()
    assert tracker.merged().get_stats("x")["count"] == 1
    tracker.configure(store=None)
    assert tracker.merged().get_stats("x")["count"] == 2
