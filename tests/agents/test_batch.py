from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Iterator

import pytest

from perfkit.agents import map_bounded

NAME = contextvars.ContextVar("NAME", default="unset")


def batch_threads() -> int:
    return sum(t.name.startswith("perfkit-batch") for t in threading.enumerate())


def test_results_come_in_the_order_of_the_items() -> None:
    first_done = threading.Event()

    def work(n: int) -> int:
        if n == 0:
            first_done.wait(10)
        if n == 5:
            first_done.set()
        return n * n

    results = list(map_bounded(work, range(20), 4))
    assert [r.value for r in results] == [n * n for n in range(20)]
    assert [r.index for r in results] == list(range(20))


def test_unordered_results_come_as_they_are_done() -> None:
    go = threading.Event()

    def work(n: int) -> int:
        if n == 0:
            go.wait(10)
        return n

    results = map_bounded(work, range(4), 2, ordered=False)
    assert next(results).value != 0
    go.set()
    assert 0 in {r.value for r in results}


def test_exactly_max_concurrent_run_at_a_time() -> None:
    together = threading.Barrier(3)
    assert len(list(map_bounded(lambda _: together.wait(10), range(9), 3))) == 9


def test_a_failing_item_loses_nothing_else() -> None:
    results = list(map_bounded(lambda n: 1 // n, [1, 0, 2], 2))
    assert [r.ok for r in results] == [True, False, True]
    assert isinstance(results[1].error, ZeroDivisionError)


@pytest.mark.parametrize("ordered", [True, False])
def test_endless_input_is_taken_only_as_needed(ordered: bool) -> None:
    taken = itertools.count()

    def items() -> Iterator[int]:
        while True:
            yield next(taken)

    results = map_bounded(lambda n: n, items(), 3, ordered=ordered)
    assert len(list(itertools.islice(results, 50))) == 50
    results.close()
    assert next(taken) < 50 + 4 * 3 + 3
    assert batch_threads() == 0


def test_a_slow_first_item_bounds_how_far_the_others_run_ahead() -> None:
    go, taken = threading.Event(), []

    def work(n: int) -> int:
        taken.append(n)
        if n == 0:
            go.wait(10)
        return n

    results = map_bounded(work, range(1000), 2)
    threading.Timer(0.2, go.set).start()
    assert next(results).value == 0
    assert len(taken) <= 4 * 2 + 2
    assert len(list(results)) == 999


def test_context_variables_of_the_caller_are_seen() -> None:
    NAME.set("caller")
    assert [r.value for r in map_bounded(lambda _: NAME.get(), range(3), 2)] == ["caller"] * 3


def test_an_error_of_the_input_reaches_the_caller_and_no_thread_is_left() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("input")

    with pytest.raises(LookupError, match="input"):
        list(map_bounded(lambda n: n, items(), 4))
    assert batch_threads() == 0


def test_progress_counts_up_in_the_callers_thread() -> None:
    seen: list[tuple[int, str]] = []
    list(map_bounded(lambda n: n, range(5), 2, progress=lambda n: seen.append((n, threading.current_thread().name))))
    assert seen == [(n, "MainThread") for n in range(1, 6)]


def test_no_workers_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        map_bounded(lambda n: n, [1], 0)


def test_no_items_gives_no_results() -> None:
    assert list(map_bounded(lambda n: n, [], 3)) == []


@pytest.mark.parametrize("ordered", [True, False])
def test_failing_fast_makes_no_further_call_and_leaves_no_thread(ordered: bool) -> None:
    failed, calls = threading.Event(), []

    def work(n: int) -> int:
        calls.append(n)
        if n == 1:
            failed.set()
            raise LookupError("first")
        failed.wait(10)
        return n

    with pytest.raises(LookupError, match="first") as raised:
        list(map_bounded(work, range(1000), 2, ordered=ordered, fail_fast=True))
    assert batch_threads() == 0
    made = len(calls)
    assert made < 1000
    assert raised.value.__traceback__ is not None  # it holds the frames of the batch: they are closed all the same
    assert len(calls) == made


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_a_program_reaches_the_caller_and_is_no_lost_result(ending: type[BaseException]) -> None:
    def work(n: int) -> int:
        if n == 3:
            raise ending
        return n

    with pytest.raises(ending):
        list(map_bounded(work, range(10), 2))
    assert batch_threads() == 0


def test_there_are_no_more_threads_than_items(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def start_noted(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_noted)
    assert len(list(map_bounded(lambda n: n, [1, 2], 50))) == 2
    assert len(started) == 2


def test_a_thread_that_cannot_be_started_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    start, left = threading.Thread.start, iter(range(2))

    def start_two(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(RuntimeError, match="can't start"):
        list(map_bounded(lambda n: n, itertools.count(), 3))
    assert batch_threads() == 0
