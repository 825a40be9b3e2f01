from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _servers import Redis, environment, polled

from perfkit.clock import SYSTEM_CLOCK, FakeClock
from perfkit.errors import BudgetExceededError
from perfkit.metrics import PerformanceTracker
from perfkit.state import StateHub
from perfkit.tokens import TokenOptimizer

SPENDER = str(Path(__file__).with_name("spender.py"))


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker()


@pytest.fixture
def hub(redis: Redis, tracker: PerformanceTracker) -> Iterator[StateHub]:
    hub = StateHub(url=redis.url, tracker=tracker, timeout=5)
    yield hub
    hub.close()


def optimizer(hub: StateHub, tracker: PerformanceTracker, limit: float = 1.0) -> TokenOptimizer:
    """Return what another worker would have: its own memory, the same Redis."""
    made = TokenOptimizer(tracker=tracker, state=hub)
    made.set_budget("global", limit, "total")
    return made


def spender(url: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, SPENDER, url, *arguments]
    worker = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() in {"ready\n", "held\n"}
    return worker


def row(of: TokenOptimizer) -> tuple[float, float]:
    [budget] = of.budgets()
    return budget["spent"], budget["held"]


def test_processes_together_never_overspend_and_use_nearly_all(
    hub: StateHub, tracker: PerformanceTracker, redis: Redis
) -> None:
    workers = [spender(redis.url, "spend", "8", "20") for _ in range(3)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    made = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    spent, held = row(optimizer(hub, tracker))
    assert spent == pytest.approx(sum(made) / 100)
    assert 0.97 <= spent <= 1.0
    assert held == 0
    assert all(made)


def test_what_one_worker_holds_another_one_sees(hub: StateHub, tracker: PerformanceTracker) -> None:
    one, other = optimizer(hub, tracker), optimizer(hub, tracker)
    hold = one.reserve({}, 0.6)
    with pytest.raises(BudgetExceededError) as refused:
        other.reserve({}, 0.6)
    assert (refused.value.spent, refused.value.held, refused.value.limit) == (0.6, 0.6, 1.0)
    hold.settle(0.1)
    other.reserve({}, 0.6).settle(0.2)
    assert row(one) == row(other)
    assert list(row(one)) == [pytest.approx(0.3), 0]


def test_hold_ends_once_and_may_be_released(hub: StateHub, tracker: PerformanceTracker) -> None:
    one = optimizer(hub, tracker)
    hold = one.reserve({}, 0.5)
    hold.release()
    hold.settle(0.5)
    assert row(one) == (0.0, 0)


def test_all_budgets_are_taken_or_none(hub: StateHub, tracker: PerformanceTracker) -> None:
    one = optimizer(hub, tracker)
    one.set_budget(("user", "*"), 0.5, "day")
    with pytest.raises(BudgetExceededError) as refused:
        one.reserve({"user": "anna"}, 0.6)
    assert refused.value.scope == ("user", "anna")
    assert [budget["held"] for budget in one.budgets()] == [0, 0]
    one.reserve({"user": "anna"}, 0.5)
    assert [budget["held"] for budget in one.budgets()] == [0.5, 0.5]


def test_request_budget_refuses_without_asking_redis(hub: StateHub, tracker: PerformanceTracker) -> None:
    one = optimizer(hub, tracker)
    one.set_budget("global", 0.1, "request")
    with pytest.raises(BudgetExceededError) as refused:
        one.reserve({}, 0.2)
    assert refused.value.period == "request"
    one.reserve({}, 0.1).settle(0.1)
    assert optimizer(hub, tracker).budgets()[0]["spent"] == 0.1


def test_hold_of_a_killed_worker_returns(hub: StateHub, tracker: PerformanceTracker, redis: Redis) -> None:
    worker = spender(redis.url, "hold")
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    one = optimizer(hub, tracker)
    with pytest.raises(BudgetExceededError):
        one.reserve({}, 0.5)

    def let_in() -> bool:
        try:
            one.reserve({}, 0.5).settle(0.5)
        except BudgetExceededError:
            return False
        return True

    polled(let_in)
    assert row(one) == (0.5, 0)


def test_expired_holds_leave_those_that_live(hub: StateHub, tracker: PerformanceTracker) -> None:
    one = optimizer(hub, tracker)
    for ttl in (0.001, 300, 0.002, 600):
        one.reserve({}, 0.1, ttl=ttl)

    def expired() -> bool:
        one.reserve({}, 0.0).release()
        return bool(row(one)[1] == 0.2)

    polled(expired, 5)


def test_call_that_outlives_its_hold_gives_nothing_back_twice(hub: StateHub, tracker: PerformanceTracker) -> None:
    one = optimizer(hub, tracker)
    late, other = one.reserve({}, 0.5, ttl=0.001), one.reserve({}, 0.3, ttl=300)

    def expired() -> bool:
        one.reserve({}, 0.0, ttl=300).release()
        return bool(row(one)[1] == 0.3)

    polled(expired, 5)
    late.settle(0.1)
    assert row(optimizer(hub, tracker)) == (0.1, 0.3)
    other.settle(0.3)
    assert row(optimizer(hub, tracker)) == (0.4, 0)


def test_account_stays_small_with_many_calls_under_way(hub: StateHub, tracker: PerformanceTracker) -> None:
    one = optimizer(hub, tracker)
    holds = [one.reserve({}, 0.001) for _ in range(300)]
    assert hub.redis is not None
    [key] = hub.redis.call("KEYS", "*")
    assert hub.redis.call("HLEN", key) <= len(("held", "next")) + 2
    for hold in holds:
        hold.settle(0.0005)
    assert list(row(one)) == [pytest.approx(0.15), 0]


def test_without_redis_each_worker_goes_on_from_what_it_heard(
    hub: StateHub, redis: Redis, tracker: PerformanceTracker
) -> None:
    one, other = optimizer(hub, tracker), optimizer(hub, tracker)
    under_way = one.reserve({}, 0.1)
    other.reserve({}, 0.6).settle(0.6)
    one.reserve({}, 0.0).release()  # hears of it
    redis.kill()
    with pytest.raises(BudgetExceededError) as refused:
        one.reserve({}, 0.4)
    assert refused.value.spent == pytest.approx(0.7)
    one.reserve({}, 0.2).settle(0.2)
    under_way.settle(0.05)
    assert row(one)[0] == pytest.approx(0.85)
    assert tracker.get_stats("state_unavailable")["count"] > 0
    redis.start()
    polled(lambda: hub.redis is not None and hub.redis.available)
    one.reserve({}, 0.0).release()  # tells it what was spent meanwhile
    assert row(optimizer(hub, tracker))[0] == pytest.approx(0.25)


def test_account_of_a_period_is_forgotten_after_it(hub: StateHub, tracker: PerformanceTracker) -> None:
    one = TokenOptimizer(tracker=tracker, state=hub, clock=FakeClock(wall=SYSTEM_CLOCK.wall() // 86400 * 86400))
    one.set_budget("global", 1.0, "day")
    hold = one.reserve({}, 0.1)
    assert hub.redis is not None
    [key] = hub.redis.call("KEYS", "*")
    assert 86400 < hub.redis.call("TTL", key) <= 86400 + 3600
    hub.redis.call("DEL", key)  # as a server does that starts without its data
    hold.settle(0.1)
    assert 86400 < hub.redis.call("TTL", key) <= 86400 + 3600
    assert key.decode().startswith("perfkit:{budgets}:global::day:")
