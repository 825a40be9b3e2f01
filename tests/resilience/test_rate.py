from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from _servers import Redis, polled
from hypothesis import given
from hypothesis import strategies as st

from perfkit.clock import SYSTEM_CLOCK, FakeClock
from perfkit.resilience import RateLimit, SharedRateLimit
from perfkit.state import RedisLink


def link(redis: Redis) -> RedisLink:
    made = RedisLink(redis.url, timeout=5.0)
    polled(lambda: made.available or made.call("PING"))
    return made


def siblings(redis: Redis, name: str, period: float = 60.0) -> tuple[SharedRateLimit, SharedRateLimit]:
    one, other = link(redis), link(redis)
    first = SharedRateLimit(name, lambda: one, 600, period=period)
    return first, SharedRateLimit(name, lambda: other, 600, period=period)


def most_in_a_window(times: list[float], period: float) -> int:
    window: deque[float] = deque()
    most = 0
    for time in sorted(times):
        window.append(time)
        while window[0] <= time - period:
            window.popleft()
        most = max(most, len(window))
    return most


@given(limit=st.integers(1, 3000), gaps=st.lists(st.floats(0, 30), max_size=20))
def test_no_window_ever_holds_more_than_the_limit(limit: int, gaps: list[float]) -> None:
    clock, times = FakeClock(), []
    rate = RateLimit(limit, clock=clock)
    for gap in [*gaps, 0.0]:
        clock.advance(gap)
        for _ in range(max(1, limit // 10)):
            wait = rate.take(patience=20.0)
            if wait <= 20.0:
                times.append(clock.now() + wait)
    assert most_in_a_window(times, 60.0) <= limit


@pytest.mark.parametrize("limit", [1, 7, 60, 100, 1000])
def test_a_rush_never_passes_the_limit_in_any_window(limit: int) -> None:
    clock = FakeClock()
    rate = RateLimit(limit, clock=clock)
    times = [clock.now() + rate.take(patience=1e9) for _ in range(3 * limit)]
    assert most_in_a_window(times, 60.0) <= limit


@pytest.mark.parametrize("limit", [1, 7, 60, 1000])
def test_those_who_wait_use_97_percent_of_the_limit(limit: int) -> None:
    clock = FakeClock()
    rate = RateLimit(limit, clock=clock)
    until = clock.now() + 600
    taken = 0
    while clock.now() < until:
        clock.advance(rate.take(patience=1e9))
        taken += 1
    assert 0.97 * limit * 10 <= taken <= limit * 10 + 1


def test_a_wait_beyond_patience_takes_nothing() -> None:
    clock = FakeClock()
    rate = RateLimit(60, clock=clock)
    assert rate.take() == 0.0
    wait = rate.wait()
    assert 1.0 <= wait <= 1.1
    assert [rate.take(patience=0.5) for _ in range(3)] == [wait] * 3
    clock.advance(wait)
    assert rate.take() == 0.0


def test_large_amounts_leave_a_debt_and_can_be_corrected() -> None:
    clock = FakeClock()
    tokens = RateLimit(6000, clock=clock)
    assert tokens.take(3000) == 0.0
    assert 29 < tokens.wait() < 31
    tokens.give_back(2700)
    assert tokens.wait() < 3.1


def test_threads_share_it_exactly() -> None:
    rate = RateLimit(1000, clock=FakeClock())
    with ThreadPoolExecutor(16) as pool:
        waits = sorted(pool.map(lambda _: rate.take(patience=1e9), range(1000)))
    each = 60 / 1000 / 0.98
    assert waits == pytest.approx([max(0, n - 9) * each for n in range(1000)], abs=1e-6)


# --- shared


def test_processes_share_one_limit(redis: Redis) -> None:
    first, second = siblings(redis, "two")
    began = SYSTEM_CLOCK.now()
    waits = [limit.take(patience=60.0) for _ in range(50) for limit in (first, second)]
    as_of_one = 94 * 60 / 600 / 0.98  # six at once
    assert as_of_one - (SYSTEM_CLOCK.now() - began) <= max(waits) <= as_of_one * 1.01
    assert first.take(patience=0.0) > 5


def test_what_was_not_used_goes_back_to_all(redis: Redis) -> None:
    first, second = siblings(redis, "back")
    first.take(600.0)
    assert second.take(patience=0.0) > 30
    first.give_back(590.0)
    assert second.take(patience=0.0) < 3


def test_without_redis_each_process_keeps_the_limit_by_itself() -> None:
    away = RedisLink("unix:///nowhere/at.all", timeout=0.05)
    rate = SharedRateLimit("away", lambda: away, 60, clock=FakeClock())
    assert rate.take() == 0.0
    assert rate.take() > 0.9
    none: Any = SharedRateLimit("none", lambda: None, 60, clock=FakeClock())
    assert (none.take(), none.take() > 0.9) == (0.0, True)
    away.close()


def test_a_key_does_not_outlive_its_use(redis: Redis) -> None:
    connection = link(redis)
    SharedRateLimit("brief", lambda: connection, 60).take()
    assert 0 < connection.call("PTTL", connection.key("rate", "brief")) <= 2100


def test_a_forked_child_has_a_lock_of_its_own() -> None:
    rate = RateLimit(60, clock=FakeClock())
    with rate._lock:
        rate._after_fork()
        assert rate.take() == 0.0
    assert isinstance(rate._lock, type(threading.Lock()))


def test_what_remains_falls_with_each_that_is_taken_and_comes_back() -> None:
    clock = FakeClock()
    rate = RateLimit(600, clock=clock)  # six at once
    seen = [rate.remaining]
    for _ in range(6):
        rate.take()
        seen.append(rate.remaining)
    assert seen == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])
    clock.advance(0.31)
    assert rate.remaining == pytest.approx(0.5, abs=0.01)


def test_what_siblings_have_taken_no_longer_remains(redis: Redis) -> None:
    one, other = siblings(redis, "remaining", 600.0)  # ten minutes: what is taken does not come back meanwhile
    for _ in range(5):
        assert one.take() == 0.0
    assert other.remaining == 1.0  # it has not asked yet
    other.take()
    assert other.remaining < 0.5
    assert one.take(patience=0.0) > 0.0 or one.remaining < 0.5
