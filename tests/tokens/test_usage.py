from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from perfkit.clock import FakeClock
from perfkit.errors import UnknownNameError
from perfkit.tokens import usage
from perfkit.tokens.usage import OTHER, UsageLog

START = datetime(2026, 5, 4, 12, tzinfo=UTC).timestamp()
BY_MODEL = ("agent", "model")
MINUTE, HOUR, DAY = 60, 3600, 86400


def log_at(wall: float = START) -> tuple[UsageLog, FakeClock]:
    clock = FakeClock(wall=wall)
    return UsageLog(clock), clock


def requests(log: UsageLog, since: float | datetime | timedelta | None = None, until: float | None = None) -> int:
    report = log.report(since, until, ("agent",))
    return int(report["a"]["request_count"]) if report else 0


def add(log: UsageLog, times: int = 1, agent: str = "a", user: str = "", nano: int | None = 1000) -> None:
    for _ in range(times):
        log.add((agent, "m", "p", user, ""), 10, nano)


def test_report_has_totals_and_averages_by_agent_and_model() -> None:
    log, _ = log_at()
    log.add(("support", "gpt-4o", "openai", "", ""), 100, 2_000_000)
    log.add(("support", "gpt-4o", "openai", "", ""), 201, 4_000_000)
    log.add(("support", "claude", "anthropic", "", ""), 50, 1_000_000)
    assert log.report(None, None, BY_MODEL) == {
        "support": {
            "claude": {
                "total_tokens": 50,
                "total_cost": 0.001,
                "request_count": 1,
                "avg_cost_per_request": 0.001,
                "avg_tokens_per_request": 50,
                "unpriced_requests": 0,
            },
            "gpt-4o": {
                "total_tokens": 301,
                "total_cost": 0.006,
                "request_count": 2,
                "avg_cost_per_request": 0.003,
                "avg_tokens_per_request": 150,
                "unpriced_requests": 0,
            },
        }
    }


def test_unknown_cost_is_counted_apart_and_not_as_zero() -> None:
    log, _ = log_at()
    add(log, nano=4_000_000)
    add(log, nano=None)
    totals = log.report(None, None, ("agent",))["a"]
    assert (totals["request_count"], totals["unpriced_requests"]) == (2, 1)
    assert (totals["total_cost"], totals["avg_cost_per_request"]) == (0.004, 0.004)
    add(log, agent="b", nano=None)
    unpriced = log.report(None, None, ("agent",))["b"]
    assert (unpriced["total_cost"], unpriced["avg_cost_per_request"]) == (None, None)


def test_free_call_costs_zero_and_not_none() -> None:
    log, _ = log_at()
    add(log, nano=0)
    assert log.report(None, None, ("agent",))["a"]["total_cost"] == 0.0


def test_report_covers_the_last_day_unless_told() -> None:
    log, clock = log_at()
    add(log)
    clock.advance(DAY - MINUTE)
    add(log, 2)
    assert requests(log) == 3
    clock.advance(2 * MINUTE)
    assert requests(log) == 2
    assert requests(log, timedelta(days=2)) == 3


def test_range_may_be_epoch_seconds_datetime_or_timedelta() -> None:
    log, clock = log_at()
    for _ in range(3):
        add(log)
        clock.advance(HOUR)
    assert requests(log, START + HOUR) == 2
    assert requests(log, datetime.fromtimestamp(START + 2 * HOUR, UTC)) == 1
    assert requests(log, timedelta(hours=2, minutes=30)) == 2
    assert requests(log, START, START + HOUR + 1) == 2
    assert requests(log, START + 5 * HOUR) == 0


def test_groups_may_be_any_of_the_dimensions_in_any_order() -> None:
    log, _ = log_at()
    log.add(("a", "m", "p", "anna", ""), 10, 1)
    log.add(("b", "m", "p", "anna", ""), 20, 1)
    assert log.report(None, None, ("user",))["anna"]["total_tokens"] == 30
    assert log.report(None, None, ("provider", "user", "agent"))["p"]["anna"]["b"]["total_tokens"] == 20


@pytest.mark.parametrize("group_by", [("agent", "modle"), ()])
def test_unknown_group_is_refused(group_by: tuple[str, ...]) -> None:
    log, _ = log_at()
    with pytest.raises(UnknownNameError, match="known: agent, model, provider, tag, user"):
        log.report(None, None, group_by)


def test_no_use_is_an_empty_report() -> None:
    log, _ = log_at()
    assert log.report(None, None, BY_MODEL) == {}


def test_old_minutes_become_hours_without_losing_a_call() -> None:
    log, clock = log_at()
    for _ in range(3 * 24 * 4):
        add(log)
        clock.advance(15 * MINUTE)
    assert len(log._minutes) <= 25 * 4 + 1
    assert len(log._hours) <= 48
    assert requests(log, timedelta(days=4)) == 3 * 24 * 4
    assert requests(log, timedelta(hours=1)) == 4


def test_use_older_than_a_month_is_dropped() -> None:
    log, clock = log_at()
    for _ in range(40):
        add(log)
        clock.advance(DAY)
    assert requests(log, timedelta(days=60)) == 32  # 31 days, and the day that runs
    assert log._cells == sum(len(bucket) for buckets in (log._minutes, log._hours) for bucket in buckets.values())


def test_many_users_in_a_minute_are_counted_together_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_NAMES", 10)
    log, _ = log_at()
    for number in range(100):
        add(log, user=str(number))
        log.add((f"agent{number}", "m", "p", str(number), ""), 10, 1)
    report = log.report(None, None, ("user",))
    assert report[OTHER]["request_count"] == 200 - 10
    assert len(log.report(None, None, ("agent",))) <= 21
    assert len(next(iter(log._minutes.values()))) <= 21
    assert sum(row["request_count"] for row in log.report(None, None, ("agent",)).values()) == 200


def test_too_many_cells_cost_detail_first_and_then_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_CELLS", 100)
    log, clock = log_at()
    for minute in range(300):
        for user in range(10):
            add(log, user=f"{minute // 60} {user}")
        clock.advance(MINUTE)
    assert log._cells <= 110
    assert log._cells == sum(len(bucket) for buckets in (log._minutes, log._hours) for bucket in buckets.values())
    assert requests(log) == 3000  # ten users fit an hour: nothing is lost
    for minute in range(300):
        for user in range(50):
            add(log, user=f"{minute} {user}")
        clock.advance(MINUTE)
    assert log._cells <= 150
    assert requests(log, timedelta(minutes=1)) == 50


@pytest.mark.usefixtures("_give_way")
def test_no_call_of_many_threads_is_lost() -> None:
    log, clock = log_at()
    barrier = threading.Barrier(8)

    def record(number: int) -> None:
        barrier.wait()
        for _ in range(15):
            add(log, user=str(number))
            clock.advance(50)
            log.report(timedelta(minutes=5), None, BY_MODEL)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(8)))
    assert requests(log) == 120


def test_forked_child_starts_with_nothing_recorded() -> None:
    log, _ = log_at()
    add(log)
    log._lock.acquire()  # as another thread of the parent held it
    log.after_fork()
    assert log.report(None, None, BY_MODEL) == {}
