"""Everything counts once: through every store, whoever ends, forks, is killed or falls behind."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest
from _forks import in_child
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfkit.clock import FakeClock
from perfkit.metrics import MergedView, PerformanceTracker
from perfkit.metrics.sharing import Store
from perfkit.metrics.sharing.fold import fold
from perfkit.metrics.window import DAY

Hire = Callable[..., PerformanceTracker]


def count(view: MergedView, name: str = "x", **tags: str) -> float:
    return view.get_stats(name, since=0, tags=tags).get("count", 0)


def fold_now(store: Store, clock: FakeClock, limit: int = 2000) -> bool:
    return fold(store, "folder", clock.wall(), limit=limit, least=1)


# --- what is told


def test_workers_see_each_others_closed_slots(hire: Hire, clock: FakeClock) -> None:
    a, b = hire(), hire()
    for worker, value in ((a, 1.0), (b, 2.0), (b, 3.0)):
        worker.record_metric("x", value, {"who": value})
        worker._share()
    assert a.merged().names() == []  # the slot is not over
    clock.advance(10)
    a._share()
    b._share()
    stats = {name: a.merged().get_stats("x")[name] for name in ("count", "sum", "min", "max", "p50")}
    assert stats == {"count": 3, "sum": 6.0, "min": 1.0, "max": 3.0, "p50": 2.0}
    assert b.merged().get_stats("x", tags={"who": 2.0})["sum"] == 2.0
    assert a.get_stats("x")["count"] == 1  # its own


def test_kinds_tags_and_the_newest_gauge_are_kept(hire: Hire, clock: FakeClock, store: Store) -> None:
    a, b = hire(), hire()
    for worker, depth in ((a, 5.0), (b, 7.0)):
        worker.increment("hits", 3, {"page": "a"})
        worker.gauge("depth", depth)
        worker.record_metric("x_duration", 0.5)
        worker.flush()
        clock.advance(1)
    for _ in range(2):
        series = {one.name: one for one in a.merged().series()}
        assert {name: one.kind for name, one in series.items()} == {
            "hits": "counter", "depth": "gauge", "x_duration": "timing",
        }  # fmt: skip
        assert dict(series["hits"].tags) == {"page": "a"}
        assert series["hits"].lifetime().total == 6
        assert (series["depth"].last, series["hits"].last) == (7.0, None)
        assert sum(series["hits"].days.values()) == 6
        fold_now(store, clock)


def test_values_that_come_after_a_flush_in_the_same_slot_count_too(hire: Hire) -> None:
    worker = hire()
    for n in range(1, 4):
        worker.record_metric("x", float(n))
        worker.flush()
        assert count(worker.merged()) == n
    assert worker.get_stats("x")["count"] == 3


def test_a_clock_set_back_counts_nothing_twice(hire: Hire, clock: FakeClock) -> None:
    worker = hire()
    for step in (0, 20, -25, 10, 10, 30):
        clock._wall += step
        clock.advance(11)
        worker.record_metric("x", 1.0)
        worker._share()
    worker.flush()
    assert count(worker.merged()) == worker.get_stats("x", since=0)["count"] == 6


def test_merged_snapshots_are_not_told_again(hire: Hire, make: Hire) -> None:
    worker, other = hire(), make()
    other.record_metric("x", 1.0)
    worker.merge(other.snapshot())
    worker.flush()
    assert worker.get_stats("x")["count"] == 1
    assert count(worker.merged()) == 0


def test_without_a_store_the_view_is_of_this_process(make: Hire) -> None:
    tracker = make()
    tracker.record_metric("x", 1.0)
    view = tracker.merged()
    assert (count(view), [worker.pid for worker in view.workers], view.age) == (1, [os.getpid()], 0.0)


# --- who tells


def test_the_view_says_how_many_reported_and_how_old_it_is(hire: Hire, clock: FakeClock, store: Store) -> None:
    workers = [hire() for _ in range(3)]
    for worker in workers:
        worker.record_metric("x", 1.0)
        worker.flush()
        clock.advance(2)
    for _ in range(2):
        view = workers[0].merged()
        assert [worker.pid for worker in view.workers] == [os.getpid()] * 3
        assert view.age == 6
        fold_now(store, clock)
    workers[1].close()
    assert len(workers[0].merged().workers) == 2
    clock.advance(61)
    workers[2].flush()
    view = workers[0].merged()
    assert (len(view.workers), view.age, count(view)) == (1, 0, 3)


def test_a_worker_that_was_killed_is_not_counted_among_them(hire: Hire) -> None:
    worker = hire()

    def told() -> int:
        worker.record_metric("x", 1.0)
        worker.flush()
        return len(worker.merged().workers)

    worker.flush()
    assert in_child(told) == 2  # it ends without a word
    view = worker.merged()
    assert (len(view.workers), count(view)) == (1, 1)


def test_a_worker_nobody_has_heard_of_ends_silently(hire: Hire, store: Store) -> None:
    hire().close()
    assert store.names() == []


def test_forked_children_tell_their_own_values_only(hire: Hire, clock: FakeClock) -> None:
    worker = hire()
    worker.record_metric("x", 1.0)
    clock.advance(10)
    worker.record_metric("x", 1.0)  # in the buffer, and one closed slot, neither told yet

    def child() -> float:
        worker.increment("child")
        worker.flush()
        return count(worker.merged())

    assert in_child(child) == 0
    worker.flush()
    view = worker.merged()
    assert (count(view), count(view, "child")) == (2, 1)


def test_nothing_is_lost_on_a_graceful_end(hire: Hire) -> None:
    worker = hire()

    def child() -> None:
        for _ in range(1000):
            worker.record_metric("x", 1.0)
        worker.close()

    in_child(child)
    assert count(worker.merged()) == 1000


# --- folding


def test_folding_at_any_moment_changes_no_count(hire: Hire, clock: FakeClock, store: Store) -> None:
    source = random.Random(5)
    workers, n = [hire() for _ in range(3)], 0
    for step in range(120):
        for worker in workers:
            for _ in range(source.randrange(4)):
                worker.record_metric("x", source.random())
                n += 1
        clock.advance(source.choice((3, 10, 45)))
        for worker in workers:
            worker._share()
        if step % 7 == 0:
            fold_now(store, clock)
        if step % 5 == 0:
            for worker in workers:
                worker.flush()
            assert count(workers[0].merged()) == n
    assert workers[0].merged().series()[0].lifetime().count == n


def test_deltas_are_folded_when_there_are_many(hire: Hire, clock: FakeClock, store: Store) -> None:
    worker = hire()
    for n in range(1, 200):
        worker.record_metric("x", 1.0)
        clock.advance(10)
        worker._share()
        assert count(worker.merged()) == n
        assert len(store.names()) < 40


def test_a_day_stays_readable_and_the_total_for_ever(hire: Hire, clock: FakeClock, store: Store) -> None:
    worker, lifetime = hire(), 0
    began = clock.wall()
    for step in range(1, 31):
        for _ in range(40):
            worker.record_metric("x", 1.0)
            clock.advance(90)
            worker._share()
        fold_now(store, clock)
        view = worker.merged()
        now = view.series()[0].lifetime().count
        assert now >= lifetime
        lifetime = now
        worker.flush()
        assert worker.merged().series()[0].lifetime().count == step * 40
    view = worker.merged()
    day = view.get_stats("x", since=clock.wall() - DAY + 900)["count"]
    assert day == pytest.approx((DAY - 900) / 90, abs=12)  # to the width of a slot
    assert count(view) <= (DAY + 3600 + 1800) / 90  # older ones are gone
    assert view.get_stats("x")["count"] == pytest.approx(3600 / 90, abs=2)
    assert sum(view.series()[0].days.values()) == 1200
    assert clock.wall() - began > DAY
    size = sum(len(data or b"") for data in store.read(store.names()))
    assert size < 60_000


def test_128_dead_workers_leave_no_litter(hire: Hire, clock: FakeClock, store: Store) -> None:
    survivor = hire()
    for i in range(128):
        worker = hire()
        for tag in range(3):
            worker.record_metric("x", 1.0, {"n": tag})
        worker.flush()
        worker._series.forget()  # killed: it ends without a word
        if i % 2:
            clock.advance(1)
    for _ in range(8):
        clock.advance(10)
        survivor._share()
    assert count(survivor.merged()) == 384
    assert len(store.names()) <= 5 + 8
    assert sum(len(data or b"") for data in store.read(store.names())) < 20_000


def test_only_one_folds_at_a_time(hire: Hire, clock: FakeClock, store: Store) -> None:
    worker = hire()
    worker.record_metric("x", 1.0)
    worker.flush()
    with store.folding() as commit:
        assert commit is not None
        assert not fold_now(store, clock)
    assert fold_now(store, clock)
    assert count(worker.merged()) == 1


def test_the_limit_of_series_holds_for_all_workers_together(hire: Hire, clock: FakeClock, store: Store) -> None:
    workers = [hire(max_series=50) for _ in range(5)]
    for i, worker in enumerate(workers):
        for n in range(40):
            worker.record_metric("x", 1.0, {"n": f"{i}-{n}"})
        worker.flush()
        fold_now(store, clock, limit=50)
    view = workers[0].merged()
    assert len(view.series()) == 51
    assert count(view) == 200
    assert count(view, **{"perfkit.overflow": "true"}) == 150


def test_series_idle_for_a_day_make_room_in_the_store(hire: Hire, clock: FakeClock, store: Store) -> None:
    worker = hire()
    for n in range(10):
        worker.record_metric("old", 1.0, {"n": n})
    worker.flush()
    fold_now(store, clock, limit=10)
    clock.advance(2 * DAY)
    worker.record_metric("new", 1.0, {"n": 1})
    worker.flush()
    fold_now(store, clock, limit=10)
    assert worker.merged().names() == ["new"]
    assert not count(worker.merged(), "new", **{"perfkit.overflow": "true"})


# --- trouble


class Broken(Exception):  # noqa: N818 - what a killed process does not even raise
    pass


class Brittle:
    """A store that fails at its n-th step, before or after it was done.

    Args:
        inner: does the work.
        at: the step that fails, counted from 1.
        error: how.
        done: whether the step is done nevertheless.
        only: the methods that count.
    """

    def __init__(self, inner: Store, at: int, error: type[Exception], *, done: bool, only: str = "") -> None:
        self.inner, self.left, self.error, self.done, self.only = inner, at, error, done, only

    def _step(self, name: str, work: Callable[[], Any]) -> Any:
        if self.only and name != self.only:
            return work()
        self.left -= 1
        if self.left != 0:
            return work()
        if self.done:
            work()
        raise self.error(name)

    def names(self) -> list[str]:
        found: list[str] = self._step("names", self.inner.names)
        return found

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = self._step("read", lambda: self.inner.read(names))
        return found

    def write(self, name: str, data: bytes) -> None:
        self._step("write", lambda: self.inner.write(name, data))

    def remove(self, names: Any) -> None:
        for name in list(names):
            self._step("remove", partial(self.inner.remove, [name]))

    def folding(self) -> AbstractContextManager[Callable[[str, bytes], bool] | None]:
        @contextmanager
        def turn() -> Iterator[Any]:
            with self.inner.folding() as commit:
                yield commit and (lambda name, data: self._step("commit", lambda: commit(name, data)))

        return turn()


class Away(Brittle):
    """A store that cannot be reached at all."""

    def __init__(self) -> None:
        super().__init__(self, 0, ConnectionError, done=False)

    def _step(self, name: str, work: Callable[[], Any]) -> Any:
        raise ConnectionError(name)


@pytest.mark.parametrize("done", [False, True])
def test_a_folder_killed_at_any_step_loses_and_doubles_nothing(
    hire: Hire, clock: FakeClock, store: Store, done: bool
) -> None:
    worker, n, killed = hire(), 0, 0
    for step in range(1, 60):
        for _ in range(3):
            worker.record_metric("x", 1.0)
            n += 1
            clock.advance(10)
            worker._share()
        brittle = Brittle(store, step % 20 + 1, Broken, done=done)
        try:
            fold(brittle, f"victim{step}", clock.wall(), limit=2000, least=1)
        except Broken:
            killed += 1
        assert count(worker.merged()) == n
    assert killed > 30
    fold_now(store, clock)
    assert count(worker.merged()) == n
    assert len(store.names()) == 5  # nothing they left is still there


def test_what_is_recorded_while_the_store_is_away_arrives_later(
    hire: Hire, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = hire()
    assert worker._exchange is not None
    store = worker._exchange.store
    worker._exchange.store = Away()
    with caplog.at_level(logging.WARNING):
        for _ in range(600):
            worker.record_metric("x", 1.0)
            clock.advance(10)
            worker._share()
    told = [record for record in caplog.records if "not shared" in record.getMessage()]
    assert len(told) == 1
    assert worker.get_stats("state_unavailable", since=0)["sum"] >= 600
    [handle] = [one for one in worker.series() if one.name == "x"]
    assert len(handle._window.unsent or {}) < 150
    worker._exchange.store = store
    worker.flush()
    view = worker.merged()
    assert count(view) == 600
    assert view.get_stats("x", since=clock.wall() - 300)["count"] == pytest.approx(30, abs=1)


def test_the_view_is_the_last_one_while_the_store_is_away(hire: Hire, clock: FakeClock) -> None:
    worker = hire()
    worker.record_metric("x", 1.0)
    worker.flush()
    assert count(worker.merged()) == 1
    assert worker._exchange is not None
    worker._exchange.store = Brittle(worker._exchange.store, 1, ConnectionError, done=False)
    clock.advance(30)
    view = worker.merged()
    assert (count(view), view.age) == (1, 30)


def test_a_delta_written_twice_after_a_lost_reply_counts_once(hire: Hire, clock: FakeClock, store: Store) -> None:
    worker, other = hire(), hire()
    worker.record_metric("x", 1.0)
    assert worker._exchange is not None
    worker._exchange.store = Brittle(store, 1, TimeoutError, done=True, only="write")
    worker.flush()  # it was written, but nobody said so
    for _ in range(3):
        other.flush()
        assert fold_now(store, clock)
    clock.advance(10)
    worker._share()  # written again
    assert count(worker.merged()) == 1
    fold_now(store, clock)
    assert count(worker.merged()) == 1


def test_deltas_that_cannot_be_removed_for_long_count_once(hire: Hire, clock: FakeClock, store: Store) -> None:
    class Keeping(Brittle):
        def remove(self, names: Any) -> None:
            raise ConnectionError("remove")

    worker, keeping = hire(), Keeping(store, 0, ConnectionError, done=False)
    for n in range(1, 8):
        worker.record_metric("x", 1.0)
        worker.flush()
        with pytest.raises(ConnectionError):
            fold(keeping, "keeper", clock.wall(), limit=10, least=1)
        clock.advance(100)
        assert count(worker.merged()) == n
    worker.flush()
    fold_now(store, clock)
    assert (count(worker.merged()), len(store.names())) == (7, 5)


def test_a_reader_overtaken_by_a_folder_reads_again(hire: Hire, clock: FakeClock, store: Store) -> None:
    class Overtaking(Brittle):
        def read(self, names: Sequence[str]) -> list[bytes | None]:
            found = self.inner.read(names)
            if names == ["manifest"] and folds:
                folds.pop()
                worker.record_metric("x", 1.0)
                worker.flush()
                assert fold_now(store, clock)
            return found

    worker, reader, folds = hire(), hire(), [1, 2, 3, 4, 5]
    worker.record_metric("x", 1.0)
    worker.flush()
    assert reader._exchange is not None
    reader._exchange.store = Overtaking(store, 0, ConnectionError, done=False)
    assert count(reader.merged()) == 6


@pytest.mark.parametrize("data", [b"", b"\x00" * 50, b"{}\n", b'{"version":9}\n', b'{"version":1,"series":7}\n'])
def test_a_blob_that_cannot_be_read_is_left_out(hire: Hire, clock: FakeClock, store: Store, data: bytes) -> None:
    worker = hire()
    worker.record_metric("x", 1.0)
    worker.flush()
    store.write("delta.strange", data)
    assert count(worker.merged()) == 1
    fold_now(store, clock)
    assert count(worker.merged()) == 1
    assert "delta.strange" not in store.names()


def test_a_manifest_that_cannot_be_read_harms_nobody(hire: Hire, store: Store) -> None:
    worker = hire()
    store.write("manifest", b"?")
    worker.record_metric("x", 1.0)
    worker.flush()
    assert worker.merged().names() == []


def test_readers_never_see_a_wrong_count_while_others_tell_and_fold(hire: Hire, clock: FakeClock, store: Store) -> None:
    workers, told, over = [hire() for _ in range(2)], [0, 0], threading.Event()

    def read() -> list[tuple[int, float]]:
        reader, seen = hire(), []
        while not over.is_set():
            seen.append((sum(told), count(reader.merged())))
        return seen

    def tell(i: int) -> None:
        for _ in range(100):
            workers[i].record_metric("x", 1.0)
            workers[i].flush()
            told[i] += 1
            if told[i] % 5 == 0:
                fold_now(store, clock)

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        list(threads.map(tell, range(2)))
        over.set()
        seen = [pair for reader in readers for pair in reader.result()]
    assert [pair for pair in seen if not pair[0] <= pair[1] <= 200] == []
    assert count(workers[0].merged()) == 200


# --- properties

steps = st.lists(
    st.tuples(
        st.integers(0, 2), st.floats(-1e6, 1e6), st.integers(0, 40), st.sampled_from(["", "tell", "fold", "flush"])
    ),
    max_size=60,
)


@pytest.mark.parametrize("setting", ["files"], indirect=True)
@given(steps=steps)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_view_of_all_equals_one_tracker_with_everything(
    hire: Hire, make: Hire, clock: FakeClock, store: Store, steps: list[tuple[int, float, int, str]]
) -> None:
    store.remove(store.names())
    workers, single = [hire() for _ in range(3)], make(clock=clock)
    for who, value, seconds, then in steps:
        workers[who].record_metric("x", value)
        single.record_metric("x", value)
        clock.advance(seconds)
        if then == "fold":
            fold_now(store, clock)
        elif then:
            workers[who]._share() if then == "tell" else workers[who].flush()
    for worker in workers:
        worker.flush()
    mine, theirs = single.get_stats("x", since=0), workers[0].merged().get_stats("x", since=0)
    assert set(mine) == set(theirs)
    for name, value in mine.items():
        exact = name in ("count", "min", "max")
        assert theirs[name] == value if exact else theirs[name] == pytest.approx(value, rel=0.011, abs=1e-6), name
