"""Stacks of running threads: how the innermost frames are had."""

from __future__ import annotations

import gc
import sys
import threading

import pytest

from perfkit.profiling import frames


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python 3.12 collects only between steps of Python code")
def test_no_garbage_is_collected_while_threads_are_looked_at() -> None:
    looks, collections, looking = 0, 0, False

    def trace(_frame: object, event: str, arg: object) -> None:
        nonlocal looks, looking
        if arg is sys._current_frames:
            looking = event == "c_call"
            looks += looking

    def note(_phase: str, _info: dict[str, int]) -> None:
        nonlocal collections
        collections += looking

    over, thresholds = threading.Event(), gc.get_threshold()
    threads = [threading.Thread(target=over.wait, args=(60,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    gc.callbacks.append(note)
    gc.set_threshold(1)  # a collection at nearly each allocation
    sys.setprofile(trace)
    try:
        seen = frames.current().keys()
    finally:
        sys.setprofile(None)
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(note)
        over.set()
        for thread in threads:
            thread.join()
    assert {thread.ident for thread in threads} <= seen
    assert (looks, collections) == (1, 0)


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_is_on_or_off_afterwards_as_before(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        frames.current()
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_a_child_forked_in_the_middle_collects_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = frames._Uncollected(), []

    def fork() -> object:
        seen.append(gc.isenabled())
        made._after_fork()  # as in a child, whose parent's thread is in the middle of it
        seen.append(gc.isenabled())
        return {}

    monkeypatch.setattr(sys, "_current_frames", fork)
    made.frames()
    assert seen == [False, True]


def test_a_signal_handler_that_looks_while_its_thread_does_gets_its_look(monkeypatch: pytest.MonkeyPatch) -> None:
    made, looks = frames._Uncollected(), []

    def interrupted() -> object:
        looks.append(gc.isenabled())
        return made.frames() if len(looks) == 1 else {}

    monkeypatch.setattr(sys, "_current_frames", interrupted)
    made.frames()
    assert looks == [False, False]
    assert gc.isenabled()
