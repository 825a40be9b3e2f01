"""What a miss does: stale answers, refreshes, errors that are known, and answers overtaken by an invalidation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from perfkit.caching.response import ResponseCache
from perfkit.clock import FakeClock
from perfkit.errors import BadRequestError, ContentFilterError, ModelNotFoundError, ServerError
from perfkit.metrics import PerformanceTracker


class Made(ResponseCache):
    """A cache with a clock to set."""

    def __init__(self, **settings: Any) -> None:
        self.time = FakeClock()
        super().__init__(clock=self.time, tracker=PerformanceTracker(clock=self.time), **settings)

    def counted(self, name: str) -> float:
        assert self._tracker is not None
        return float(self._tracker.get_stats(name).get("sum", 0))


def counter() -> Callable[[], int]:
    numbers = iter(range(10**9))
    return lambda: next(numbers)


def test_a_stale_answer_is_served_while_one_thread_makes_a_new_one() -> None:
    cache, go, threads = Made(ttl=60, stale_ttl=30), threading.Event(), []
    cache.get("key", lambda: "old")
    cache.time.advance(60)

    def slow() -> str:
        threads.append(threading.current_thread().name)
        assert go.wait(10)
        return "new"

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: cache.get("key", slow), range(64))) == {"old"}  # nobody waits for `go`
    go.set()
    assert cache._loader.refresher.wait(10)
    assert threads == ["perfkit-refresh"]
    assert cache.get("key", slow) == "new"
    assert cache.stats()["stale_hits"] == 64 == cache.counted("cache_stale")


def test_beyond_its_stale_time_an_answer_is_not_served() -> None:
    cache = Made(ttl=60)
    cache.get("key", lambda: "old", stale_ttl=30)
    cache.time.advance(90)
    assert cache.get("key", lambda: "new") == "new"


def test_without_a_loader_a_stale_answer_is_none() -> None:
    cache = Made(ttl=60, stale_ttl=30)
    cache.set("key", "old")
    cache.time.advance(61)
    assert cache.get("key", default="none") == "none"


def test_a_failed_refresh_is_counted_and_the_upstream_left_alone_for_a_moment() -> None:
    cache, calls = Made(ttl=60, stale_ttl=600), counter()
    cache.get("key", lambda: "old")
    cache.time.advance(60)

    def fail() -> str:
        calls()
        raise ServerError("down")

    for _ in range(5):
        assert cache.get("key", fail) == "old"
        assert cache._loader.refresher.wait(10)
    cache.time.advance(2)
    assert cache.get("key", fail) == "old"
    assert cache._loader.refresher.wait(10)
    assert calls() == 2
    assert cache.counted("cache_refresh_failed") == 2


def test_where_the_upstream_fails_the_old_answer_serves() -> None:
    cache = Made(ttl=60, stale_if_error=600)
    cache.get("key", lambda: "old")
    cache.time.advance(60)

    def fail() -> str:
        raise ServerError("down")

    assert cache.get("key", fail) == "old"
    assert cache.get("key", lambda: "new") == "new"
    cache.time.advance(660)
    with pytest.raises(ServerError):
        cache.get("key", fail)


def test_a_definite_error_is_not_hidden_by_an_old_answer() -> None:
    cache = Made(ttl=60, stale_if_error=600)
    cache.fetch("key", lambda: "old")
    cache.time.advance(60)

    def gone() -> str:
        raise ModelNotFoundError("404")

    with pytest.raises(ModelNotFoundError):
        cache.fetch("key", gone)


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (BadRequestError("400"), 1),
        (ModelNotFoundError("404"), 1),
        (ServerError("500"), 3),
        (ContentFilterError("no"), 3),
    ],
)
def test_a_definite_error_is_remembered_for_a_moment(error: Exception, calls: int) -> None:
    cache, asked = Made(error_ttl=10), counter()

    def fail() -> str:
        asked()
        raise error

    for _ in range(3):
        with pytest.raises(type(error), match=str(error)):
            cache.fetch("key", fail)
    assert asked() == calls
    cache.time.advance(10)
    assert cache.fetch("key", lambda: "fine").value == "fine"


def test_no_error_is_remembered_unless_asked_for() -> None:
    cache = Made()

    def fail() -> str:
        raise BadRequestError("400")

    with pytest.raises(BadRequestError):
        cache.fetch("key", fail)
    assert cache.fetch("key", lambda: "fine").value == "fine"


def test_an_answer_invalidated_on_its_way_is_delivered_and_not_kept() -> None:
    cache = Made()
    for name, invalidate in {
        "tag": lambda: cache.invalidate("city"),
        "name": lambda: cache.invalidate("key"),
        "delete": lambda: cache.delete("key"),
        "all": cache.clear,
    }.items():

        def load(invalidate: Callable[[], Any] = invalidate) -> str:
            invalidate()
            return "overtaken"

        assert cache.get("key", load, tags=["city"]) == "overtaken", name
        assert cache.get("key") is None, name
    assert cache.get("key", lambda: cache.invalidate("other") or "kept") == "kept"
    assert cache.get("key") == "kept"


def test_more_invalidations_than_are_remembered_overtake_everything() -> None:
    cache = Made()

    def load() -> str:
        for number in range(300):
            cache.invalidate(f"other{number}")
        return "overtaken"

    assert cache.get("key", load) == "overtaken"
    assert cache.get("key") is None


def test_an_early_refresh_comes_before_the_end_and_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, numbers = Made(ttl=60, early_refresh=1.0), counter()

    def load() -> int:
        cache.time.advance(2)  # seconds it takes
        return numbers()

    assert cache.get("key", load) == 0
    monkeypatch.setattr("perfkit.caching.response.random.random", lambda: 0.99)  # 2 s * ln 100 = 9.2 s ahead
    cache.time.advance(50)
    assert cache.get("key", load) == 0
    assert cache._loader.refresher.wait(10)
    assert numbers() == 1  # not yet
    cache.time.advance(1)
    assert cache.get("key", load) == 0
    assert cache._loader.refresher.wait(10)
    assert cache.get("key", load) == 2


def test_a_refresh_in_a_child_process_begins_anew() -> None:
    cache = Made(ttl=60, stale_ttl=60)
    cache.get("key", lambda: "old")
    cache.time.advance(60)
    with cache._loader.refresher._lock:  # as by a thread of the parent
        cache._loader.refresher._running["key"] = threading.current_thread()
        cache._loader.refresher._after_fork()
    assert cache.get("key", lambda: "new") == "old"
    assert cache._loader.refresher.wait(10)
    assert cache.get("key", lambda: "newer") == "new"


def test_64_threads_that_meet_an_error_make_one_call_and_all_get_it() -> None:
    cache, calls, ready = Made(), counter(), threading.Barrier(64)

    def fail() -> str:
        for _ in range(10_000):
            if len(cache._loader.flights._waiting) == 63:
                break
            threading.Event().wait(0.001)
        calls()
        raise ServerError("down")

    def ask(_: int) -> str:
        ready.wait()
        with pytest.raises(ServerError) as caught:
            cache.get("key", fail)
        return str(caught.value)

    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(ask, range(64))) == ["down"] * 64
    assert calls() == 1


def test_the_background_sweep_removes_what_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Any] = []
    monkeypatch.setattr("perfkit._process.background.every", lambda interval, work: jobs.append(work))
    cache = Made(ttl=60)
    cache.set("a", 1)
    cache.set("b", 2, ttl=600)
    cache.time.advance(60)
    [sweep] = jobs
    sweep()
    assert len(cache) == 1
    assert cache.stats()["expired"] == 1


def test_a_stale_answer_serves_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, numbers = Made(ttl=10, stale_ttl=60), counter()
    assert cache.get("key", numbers) == 0
    cache.time.advance(20)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refused)
        assert cache.get("key", numbers) == 0
    assert cache.get("key", numbers) == 0  # and begins the refresh
    assert cache._loader.refresher.wait(10)
    assert cache.get("key", numbers) == 1


def refused(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
