from __future__ import annotations

import random
import threading
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.caching.entry import ENTRY_OVERHEAD, Entry, Kept, Life
from perfkit.caching.store import MAIN, Store

HOUR = Life(3600.0)


def entry(key: str, size: int = ENTRY_OVERHEAD, life: Life = HOUR) -> Entry:
    return Entry(key, Kept(None, key, size), life, now=0.0, stored_at=0.0)


def zipf(requests: int, keys: int, seed: int) -> list[str]:
    weights = [1 / rank for rank in range(1, keys + 1)]
    return [str(key) for key in random.Random(seed).choices(range(keys), weights, k=requests)]


def hits(store: Store, trace: list[str]) -> int:
    found = 0
    for key in trace:
        if store.get(key, 0.0) is None:
            store.put(entry(key))
        else:
            found += 1
    return found


class Plain:
    """S3-FIFO as its paper has it, without times, bytes and removals, and moving on after one use."""

    def __init__(self, room: int) -> None:
        self.room, self.tenth = room, max(1, room // 10)
        self.small: deque[str] = deque()
        self.main: deque[str] = deque()
        self.uses: dict[str, int] = {}
        self.ghosts: OrderedDict[str, None] = OrderedDict()

    def ask(self, key: str) -> bool:
        if key in self.uses:
            self.uses[key] = min(3, self.uses[key] + 1)
            return True
        while len(self.uses) >= self.room:
            self.leave()
        if key in self.ghosts:
            del self.ghosts[key]
            self.main.append(key)
        else:
            self.small.append(key)
        self.uses[key] = 0
        return False

    def leave(self) -> None:
        if len(self.small) >= self.tenth or not self.main:
            key = self.small.popleft()
            if self.uses[key]:
                self.uses[key] = 0
                self.main.append(key)
                return
            del self.uses[key]
            self.ghosts[key] = None
            if len(self.ghosts) > self.room:
                self.ghosts.popitem(last=False)
            return
        key = self.main.popleft()
        if self.uses[key]:
            self.uses[key] -= 1
            self.main.append(key)
        else:
            del self.uses[key]


@pytest.mark.parametrize("by_bytes", [False, True])
def test_the_hit_ratio_is_that_of_the_plain_algorithm(by_bytes: bool) -> None:
    trace, plain = zipf(40_000, 5000, seed=1), Plain(200)
    store = Store((ENTRY_OVERHEAD + 4) * 200 if by_bytes else 2**40, None if by_bytes else 200)
    assert abs(hits(store, trace) - sum(plain.ask(key) for key in trace)) < 0.01 * len(trace)


def test_a_scan_leaves_what_is_asked_for_alone() -> None:
    store = Store(2**40, 100)
    for _ in range(3):
        for key in range(50):
            if store.get(f"hot{key}", 0.0) is None:
                store.put(entry(f"hot{key}"))
    for key in range(5000):
        store.put(entry(f"scan{key}"))
    assert sum(f"hot{key}" in store for key in range(50)) == 50


@given(
    st.lists(st.tuples(st.sampled_from(["put", "get", "remove", "sweep"]), st.integers(0, 20), st.integers(600, 1200))),
    st.integers(900, 6000),
    st.one_of(st.none(), st.integers(1, 8)),
)
def test_bounds_and_sums_hold_after_every_step(
    steps: list[tuple[str, int, int]], max_bytes: int, max_entries: int | None
) -> None:
    store, now = Store(max_bytes, max_entries), 0.0
    for step, number, size in steps:
        now += 1.0
        key, before = str(number), {kept.key for kept in store.entries()}
        if step == "put":
            made = Entry(key, Kept(None, key, size), Life(5.0), now=now, stored_at=0.0)
            assert store.put(made) == (made.size <= max_bytes)
            assert (key in store) == (made.size <= max_bytes)
        elif step == "get":
            found = store.get(key, now)
            assert found is None or (found.key == key and found.expires > now)
        elif step == "remove":
            assert store.remove(key) == (key in before)
            assert key not in store
        else:
            store.sweep(now)
            assert all(kept.gone > now for kept in store.entries())
        assert store.bytes == sum(kept.size for kept in store.entries()) <= max_bytes
        assert store._main_bytes == sum(kept.size for kept in store.entries() if kept.queue == MAIN)
        assert len(store) <= (max_entries or 10**9)


def test_removed_entries_do_not_gather_in_the_queues() -> None:
    store = Store(2**40)
    for _ in range(10_000):
        store.put(entry("same"))
        store.remove("same")
    assert len(store._small) + len(store._main) < 200


def test_ghosts_are_as_many_as_entries_at_most() -> None:
    store = Store(2**40, 10)
    for key in range(5000):
        store.put(entry(str(key)))
    assert len(store._ghosts) <= 11
    assert len(store._passed) <= 11


def test_an_expired_entry_is_no_hit_and_a_stale_one_stays_until_it_is_gone() -> None:
    store = Store(2**40)
    store.put(entry("a", life=Life(10.0, stale=5.0)))
    assert store.get("a", 9.9) is not None
    assert store.get("a", 10.0) is None
    assert store.peek("a", 14.9) is not None
    assert store.peek("a", 15.0) is None
    assert store.get("a", 15.0) is None
    assert (len(store), store.expired, store.hits) == (0, 1, 1)


def test_a_sweep_removes_what_nobody_asks_for_any_more() -> None:
    store = Store(2**40)
    for number in range(10):
        store.put(entry(str(number), life=Life(1.0 + number)))
    assert store.sweep(5.0) == 5
    assert (len(store), store.expired) == (5, 5)


def test_16_threads_keep_the_sums_right() -> None:
    store, ready = Store(200_000), threading.Barrier(16)

    def work(seed: int) -> int:
        rng, found = random.Random(seed), 0
        ready.wait()
        for _ in range(2000):
            key = str(rng.randrange(300))
            if store.get(key, 0.0) is not None:
                found += 1
            elif rng.random() < 0.1:
                store.remove(key)
            else:
                store.put(entry(key, rng.randrange(600, 2600)))
        return found

    with ThreadPoolExecutor(16) as pool:
        found = sum(pool.map(work, range(16)))
    assert store.hits == found
    assert store.bytes == sum(kept.size for kept in store.entries()) <= 200_000
    assert store._main_bytes == sum(kept.size for kept in store.entries() if kept.queue == MAIN)
