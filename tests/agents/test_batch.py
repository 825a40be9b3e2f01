from __future__ import annotations

import contextvars
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError

import pytest

import perfkit
from perfkit.agents import Cancellation, map_bounded
from perfkit.agents.batch import _Work
from perfkit.errors import DeadlineExceeded, RateLimitError
from perfkit.testing import FaultServer, faults

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


@pytest.fixture(params=[(-1.0, 4), (float("inf"), 64)], ids=["long calls", "brief calls"])
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many items a worker may be ahead of the reader, for calls that all count as long, or as brief."""
    brief, most = request.param
    monkeypatch.setattr("perfkit.agents.batch._BRIEF", brief)
    return int(most)


@pytest.mark.parametrize("ordered", [True, False])
def test_endless_input_is_taken_only_as_needed(ordered: bool, ahead: int) -> None:
    taken = itertools.count()

    def items() -> Iterator[int]:
        while True:
            yield next(taken)

    results = map_bounded(lambda n: n, items(), 3, ordered=ordered)
    assert len(list(itertools.islice(results, 50))) == 50
    results.close()
    assert next(taken) < 50 + ahead * 3 + 3
    assert batch_threads() == 0


def test_a_slow_first_item_bounds_how_far_the_others_run_ahead(ahead: int) -> None:
    go, taken = threading.Event(), []

    def work(n: int) -> int:
        taken.append(n)
        if n == 0:
            go.wait(10)
        return n

    results = map_bounded(work, range(1000), 2)
    threading.Timer(0.2, go.set).start()
    assert next(results).value == 0
    assert len(taken) <= ahead * 2 + 2
    assert len(list(results)) == 999


def test_every_worker_is_called_to_help_when_calls_take_longer_all_of_a_sudden() -> None:
    together = threading.Barrier(4)

    def work(n: int) -> int:
        return together.wait(10) if n >= 2000 else n

    results = list(map_bounded(work, range(2008), 4))
    assert [r.error for r in results] == [None] * 2008


def test_a_result_is_not_held_back_for_the_next_call() -> None:
    go = threading.Event()

    def work(n: int) -> int:
        if n == 1000:
            go.wait(10)
        return n

    results = map_bounded(work, itertools.count(), 1)
    assert [next(results).value for _ in range(1000)] == list(range(1000))
    go.set()
    results.close()


def test_an_item_may_depend_on_the_result_of_the_one_before() -> None:
    seen = [0]

    def items() -> Iterator[int]:
        while len(seen) < 500:
            before = len(seen)
            yield seen[-1] + 1
            while len(seen) == before:
                arrived.wait(10)
                arrived.clear()

    arrived = threading.Event()
    for result in map_bounded(lambda n: n, items(), 4):
        assert result.value is not None
        seen.append(result.value)
        arrived.set()
    assert seen == list(range(500))


@pytest.mark.parametrize("make", [iter, list])
def test_no_result_is_lost_or_doubled_however_threads_are_switched(make: Callable[[range], Iterable[int]]) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for threads in (2, 5):
            results = map_bounded(lambda n: sum(range(n % 7 * 40)) * 0 + n, make(range(1500)), threads)
            assert [r.value for r in results] == list(range(1500))
    finally:
        sys.setswitchinterval(interval)


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


def test_ctrl_c_does_not_wait_for_calls_that_hang() -> None:
    go, main = threading.Event(), threading.get_ident()
    begun = []

    def work(n: int) -> None:
        begun.append(n)
        if n == 1:
            signal.pthread_kill(main, signal.SIGINT)
        go.wait(3)

    with pytest.raises(KeyboardInterrupt):
        list(map_bounded(work, range(10), 2))
    assert not go.is_set()
    left = [thread for thread in threading.enumerate() if thread.name.startswith("perfkit-batch")]
    assert len(left) == 2
    go.set()
    for thread in left:
        thread.join(10)
    assert sorted(begun) == [0, 1]  # no further one


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


def test_a_batch_that_takes_too_long_ends_with_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def work(n: int) -> int:
        if n >= 3:
            go.wait(10)
        return n

    got: list[int | None] = []

    class Released(_Work[int, int]):
        def end(self) -> None:
            go.set()  # calls under way are waited for
            super().end()

    monkeypatch.setattr("perfkit.agents.batch._Work", Released)
    results = map_bounded(work, itertools.count(), 3, timeout=1.0)
    with pytest.raises(DeadlineExceeded, match="after 3 results"):
        got.extend(result.value for result in iter(lambda: next(results), None))
    assert batch_threads() == 0


@pytest.mark.parametrize("before", [True, False])
def test_a_batch_is_cancelled_from_any_thread(before: bool, ahead: int) -> None:
    stop, calls = Cancellation(), itertools.count()

    def work(n: int) -> int:
        next(calls)
        return n

    results = map_bounded(work, itertools.count(), 3, cancel=stop)
    if before:
        stop.cancel()
    else:
        assert next(results).value == 0
        joined = threading.Thread(target=stop.cancel)
        joined.start()
        joined.join(10)
    with pytest.raises(CancelledError):
        list(results)
    assert batch_threads() == 0
    assert next(calls) <= (0 if before else ahead * 3 + 4)


def test_an_item_that_comes_after_the_end_is_not_begun(ahead: int) -> None:
    stop, begun = Cancellation(), list[int]()

    def items() -> Iterator[int]:
        yield 0
        stop.cancel()
        yield 1

    with pytest.raises(CancelledError):
        list(map_bounded(begun.append, items(), 1, cancel=stop))
    assert begun == [0]


def test_a_rate_is_kept_however_many_threads_there_are() -> None:
    began = time.monotonic()
    assert len(list(map_bounded(lambda n: n, range(11), 8, rate=50))) == 11
    assert time.monotonic() - began >= 10 / 50


def test_who_is_told_to_come_later_does_and_the_others_wait_too() -> None:
    calls: list[tuple[int, float]] = []

    def work(n: int) -> int:
        calls.append((n, time.monotonic()))
        if len(calls) == 1:
            raise RateLimitError("later", retry_after=0.1)
        return n

    results = list(map_bounded(work, range(4), 1))
    assert [(r.value, r.error) for r in results] == [(n, None) for n in range(4)]
    assert [n for n, _ in calls] == [0, 0, 1, 2, 3]
    assert calls[1][1] - calls[0][1] >= 0.1


@pytest.mark.parametrize("later", [None, 3600.0, 0.001])
def test_who_is_told_to_come_much_later_or_again_and_again_has_failed(later: float | None) -> None:
    calls = itertools.count()

    def work(n: int) -> int:
        next(calls)
        raise RateLimitError("later", retry_after=later)

    (result,) = map_bounded(work, [1], 1)
    assert isinstance(result.error, RateLimitError)
    assert next(calls) == (3 if later == 0.001 else 1)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"rate": -1}])
def test_a_bound_that_cannot_be_is_refused_at_once(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        map_bounded(lambda n: n, [1], **wrong)  # type: ignore[arg-type]


@pytest.fixture
def fault_only(fault: FaultServer) -> FaultServer:
    perfkit.configure(
        providers={"local": {"kind": "openai", "base_url": fault.base_url, "api_key": "sk-test"}},
        client={"default_model": "tiny"},
        router={"retry_share": 0.0, "retries_per_second": 0.0},
    )
    return fault


def test_calls_under_way_end_with_the_time_of_their_batch(fault_only: FaultServer) -> None:
    fault_only.behave(*[faults.hang()] * 4)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        perfkit.batch(["one", "two", "three", "four"], max_concurrent=2, timeout=0.3)
    assert batch_threads() == 0
    assert fault_only.stats()["requests"] <= 2
    assert time.monotonic() - began < 20  # the router's own timeout is 30 s


def test_a_batch_waits_as_long_as_a_provider_says(fault_only: FaultServer) -> None:
    fault_only.behave(faults.rate_limited(retry_after=1), faults.ok("one"), faults.ok("two"))
    answers = perfkit.batch(["a", "b"], max_concurrent=1)
    assert [answer.text for answer in answers] == ["one", "two"]


def test_a_batch_of_calls_is_cancelled_too(fault_only: FaultServer) -> None:
    stop = Cancellation()
    stop.cancel()
    with pytest.raises(CancelledError):
        perfkit.batch(["a", "b"], cancel=stop)
    assert fault_only.stats()["requests"] == 0


def test_a_spent_budget_ends_a_batch_before_it_is_overdrawn(fault_only: FaultServer) -> None:
    perfkit.configure(tokens={"prices": {"tiny": {"input": 1_000_000.0, "output": 1_000_000.0}}})
    perfkit.optimizer.set_budget(("user", "anna"), 40.0, "day")
    asked = ({"messages": f"one {n}", "user": "anna", "max_tokens": 5} for n in itertools.count())
    with pytest.raises(perfkit.BudgetExceededError):
        perfkit.batch(asked, max_concurrent=4)
    assert 0 < fault_only.stats()["requests"] < 40
    assert batch_threads() == 0
