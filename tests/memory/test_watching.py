"""Callbacks of the garbage collector, and forks that wait for them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from _forks import in_child
from agents.workshop import no_fork, quiet_fork

from perfkit.clock import SYSTEM_CLOCK
from perfkit.memory import watching
from perfkit.memory.watching import Watcher


class Counting(Watcher):
    """Counts collections."""

    count = 0

    def collected(self, began: float, ended: float, info: Mapping[str, int]) -> None:
        assert ended >= began
        assert info["generation"] == 2
        self.count += 1


@pytest.fixture
def watcher() -> Iterator[Counting]:
    gc.disable()
    made = Counting(SYSTEM_CLOCK.now)
    made.watch()
    yield made
    made.unwatch()
    gc.enable()


@contextmanager
def collecting(hold: Callable[[], object]) -> Iterator[None]:
    """Have another thread collect garbage, with `hold` called before the watcher is told of the end."""

    def held(phase: str, _info: object) -> None:
        if phase == "stop" and threading.current_thread() is thread:
            inside.set()
            hold()

    inside, thread = threading.Event(), threading.Thread(target=gc.collect)
    gc.callbacks.insert(0, held)
    try:
        thread.start()
        assert inside.wait(10)
        yield
        thread.join()
    finally:
        gc.callbacks.remove(held)


def test_each_collection_is_told_once_and_none_that_began_before() -> None:
    made = Counting(SYSTEM_CLOCK.now)
    with collecting(made.watch):
        pass
    assert made.count == 0
    made.watch()
    gc.collect()
    assert made.count == 1
    made.unwatch()
    made.unwatch()
    gc.collect()
    assert made.count == 1


@no_fork
@quiet_fork
def test_a_fork_waits_for_a_collection_so_that_its_child_collects(
    watcher: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("time.sleep", lambda _: go_on.set())

    def collected() -> int:
        gc.collect()
        return watcher.count

    with collecting(lambda: go_on.wait(10)):
        assert in_child(collected) == 2
        go_on.set()


def test_a_fork_does_not_wait_for_ever_nor_for_its_own_thread(
    watcher: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("time.sleep", lambda _: waited.set())
    with collecting(watching._wait_before_fork):
        pass
    assert not waited.is_set()
    monkeypatch.setattr(watching, "_PATIENCE", 0.0)
    with collecting(lambda: go_on.wait(10)):
        watching._wait_before_fork()
        go_on.set()
    assert not waited.is_set()
    assert watcher.count == 2


def test_a_watcher_that_ends_in_a_collection_holds_up_no_fork(watcher: Counting) -> None:
    watcher("start", {})
    assert watching._under_way[watcher] == threading.get_ident()
    watcher.unwatch()
    assert watcher not in watching._under_way
