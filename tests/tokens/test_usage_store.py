from __future__ import annotations

import csv
import io
import json
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from _servers import Redis, polled

from perfkit.clock import FakeClock
from perfkit.errors import UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.state import StateHub
from perfkit.tokens import TokenOptimizer
from perfkit.values import Usage

START = datetime(2026, 5, 4, 12, tzinfo=UTC).timestamp()
MINUTE, HOUR, DAY = 60, 3600, 86400
Worker = Callable[[], TokenOptimizer]


@pytest.fixture(params=["sqlite", "redis", "none"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    if request.param == "redis":
        return str(request.getfixturevalue("redis").url)
    return f"sqlite:///{tmp_path / 'usage.db'}" if request.param == "sqlite" else None


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(wall=START)


@pytest.fixture
def worker(url: str | None, clock: FakeClock) -> Iterator[Worker]:
    """Return what makes a worker: memory and connections of its own."""
    made: list[tuple[TokenOptimizer, StateHub]] = []

    def make() -> TokenOptimizer:
        tracker = PerformanceTracker(clock=clock)
        hub = StateHub(url=url, tracker=tracker, timeout=5.0)
        made.append((TokenOptimizer(clock=clock, tracker=tracker, state=hub), hub))
        return made[-1][0]

    yield make
    for optimizer, hub in made:
        optimizer.close()
        hub.close()


def call(optimizer: TokenOptimizer, cost: float = 0.5, **names: Any) -> None:
    optimizer.track_usage(names.pop("agent", "a"), names.pop("model", "m"), Usage(90, 10), cost, **names)


def requests(report: dict[str, Any]) -> dict[str, int]:
    return {name: totals["request_count"] for name, totals in report.items()}


def test_usage_is_reported_by_any_name(worker: Worker) -> None:
    optimizer = worker()
    call(optimizer, agent="x", provider="p", user="u", tag="t")
    call(optimizer, agent="y", provider="p", user="v", tag="t")
    for name, expected in (
        ("agent", {"x": 1, "y": 1}),
        ("provider", {"p": 2}),
        ("user", {"u": 1, "v": 1}),
        ("tag", {"t": 2}),
    ):
        assert requests(optimizer.get_usage_report(group_by=(name,))) == expected


def test_any_time_range_can_be_asked_for(worker: Worker, clock: FakeClock) -> None:
    optimizer = worker()
    for _ in range(40):
        call(optimizer)
        clock.advance(HOUR)
    for hours in (1, 5, 24, 30, 40):
        assert requests(optimizer.get_usage_report(timedelta(hours=hours), group_by=("agent",))) == {"a": hours}
    between = optimizer.get_usage_report(START + 2 * HOUR, START + 5 * HOUR - 1, group_by=("agent",))
    assert requests(between) == {"a": 3}


def test_minutes_are_told_apart_for_a_day(worker: Worker, clock: FakeClock) -> None:
    optimizer = worker()
    for _ in range(10):
        call(optimizer)
        clock.advance(MINUTE)
    assert requests(optimizer.get_usage_report(timedelta(minutes=3), group_by=("agent",))) == {"a": 3}


def test_all_workers_are_in_the_report_and_it_outlives_them(url: str | None, worker: Worker) -> None:
    one, other = worker(), worker()
    for optimizer in (one, other, one):
        call(optimizer)
    other.close()
    kept = {"a": 3} if url is not None else {}
    assert requests(one.get_usage_report(group_by=("agent",))) == (kept or {"a": 2})
    assert requests(worker().get_usage_report(group_by=("agent",))) == kept
    one.reset()
    assert requests(one.get_usage_report(group_by=("agent",))) == kept


def test_without_its_store_a_worker_reports_what_it_knows_and_tells_it_later(redis: Redis, clock: FakeClock) -> None:
    tracker = PerformanceTracker(clock=clock)
    hub = StateHub(url=redis.url, tracker=tracker, timeout=5.0)
    optimizer = TokenOptimizer(clock=clock, tracker=tracker, state=hub)
    redis.kill()
    call(optimizer)
    assert requests(optimizer.get_usage_report(group_by=("agent",))) == {"a": 1}
    redis.start()
    polled(lambda: hub.redis is not None and hub.redis.available)
    optimizer._usage.flush()
    later = TokenOptimizer(clock=clock, tracker=tracker, state=hub)
    assert requests(later.get_usage_report(group_by=("agent",))) == {"a": 1}
    hub.close()


def test_spending_is_told_by_day_and_month(worker: Worker, clock: FakeClock) -> None:
    optimizer = worker()
    for _ in range(30):  # from May 4th, noon, to June 3rd
        call(optimizer, 1.0)
        clock.advance(DAY)
    days = optimizer.spending("day", timedelta(days=31))
    assert [day["cost"] for day in days] == [1.0] * 30
    assert days[0]["begin"] == START - 12 * HOUR
    months = optimizer.spending("month", timedelta(days=31))
    assert [month["cost"] for month in months] == [28.0, 2.0]
    with pytest.raises(UnknownNameError, match="day, month"):
        optimizer.spending("week")


def test_days_are_those_of_the_time_zone() -> None:
    clock = FakeClock(wall=datetime(2026, 5, 4, 22, 30, tzinfo=UTC).timestamp())
    optimizer = TokenOptimizer(clock=clock, tracker=PerformanceTracker(clock=clock), timezone="Europe/Berlin")
    call(optimizer)
    assert optimizer.spending()[0]["begin"] == datetime(2026, 5, 4, 22, tzinfo=UTC).timestamp()


def test_run_rate_is_that_of_the_time_since_the_first_call(worker: Worker, clock: FakeClock) -> None:
    optimizer = worker()
    assert optimizer.run_rate() == {"per_day": 0.0, "per_month": 0.0}
    for _ in range(6):
        call(optimizer, 1.0)
        clock.advance(HOUR)
    rate = optimizer.run_rate()
    assert rate["per_day"] == pytest.approx(24.0)
    assert rate["per_month"] == pytest.approx(24.0 * 30.4, rel=0.01)


def test_savings_are_told_by_their_cause(worker: Worker) -> None:
    optimizer = worker()
    usage = Usage(10_000, 100, cached_tokens=8_000)
    optimizer.track_usage("a", "gpt-4o", usage)
    optimizer.track_usage("a", "gpt-4o-mini", Usage(10_000, 100), instead_of="gpt-4o")
    optimizer.track_saving(0.25, "a", "gpt-4o")
    optimizer.track_saving(None, "a", "gpt-4o")
    saved = optimizer.savings()
    assert saved["cache"] == 0.25
    assert saved["prefix"] == pytest.approx(8_000 * (2.50 - 1.25) / 1e6)
    assert saved["choice"] == pytest.approx((10_000 * (2.50 - 0.15) + 100 * (10.0 - 0.60)) / 1e6)
    assert saved["spent"] == pytest.approx(0.016 + 0.00156, rel=0.01)
    assert requests(optimizer.get_usage_report(group_by=("agent",))) == {"a": 2}


def test_prefix_that_was_written_and_not_read_counts_as_a_loss() -> None:
    optimizer = TokenOptimizer(tracker=PerformanceTracker())
    optimizer.track_usage("a", "claude-sonnet-4-5", Usage(10_000, 100, cache_write_tokens=8_000))
    assert optimizer.savings()["prefix"] == pytest.approx(-8_000 * 0.25 * 3 / 1e6)


def test_usage_is_exported_as_csv_and_json(worker: Worker, tmp_path: Path) -> None:
    optimizer = worker()
    call(optimizer, agent="=SUM(A1)", user="ü", tag="nightly, eu")
    rows = list(csv.DictReader(io.StringIO(optimizer.export_usage())))
    assert len(rows) == 1
    assert (rows[0]["agent"], rows[0]["user"], rows[0]["tag"], rows[0]["cost"]) == (
        "'=SUM(A1)",
        "ü",
        "nightly, eu",
        "0.5",
    )
    optimizer.export_usage(tmp_path / "usage.json")
    [row] = json.loads((tmp_path / "usage.json").read_text())
    assert (row["agent"], row["requests"], row["tokens"], row["begin"]) == (
        "=SUM(A1)",
        1,
        100,
        "2026-05-04T12:00:00+00:00",
    )
    with pytest.raises(UnknownNameError, match="csv, json"):
        optimizer.export_usage(kind="xml")


def test_unpriced_calls_export_no_cost(worker: Worker) -> None:
    optimizer = worker()
    optimizer.track_usage("a", "nobody's", Usage(1, 1))
    [row] = json.loads(optimizer.export_usage(kind="json"))
    assert row["cost"] is None


def test_a_batch_whose_reply_was_lost_is_counted_once(redis: Redis, clock: FakeClock) -> None:
    tracker = PerformanceTracker(clock=clock)
    hub = StateHub(url=redis.url, tracker=tracker, timeout=2.0)
    optimizer = TokenOptimizer(clock=clock, tracker=tracker, state=hub)
    try:
        call(optimizer)
        optimizer._usage.flush()
        call(optimizer)
        redis.signal(signal.SIGSTOP)
        optimizer._usage.flush()  # gives up; what was sent is taken as soon as Redis goes on
        redis.signal(signal.SIGCONT)
        call(optimizer)
        polled(lambda: hub.redis is not None and hub.redis.available)
        optimizer._usage.flush()
        assert not optimizer._usage._batches
        assert requests(optimizer.get_usage_report(group_by=("agent",))) == {"a": 3}
    finally:
        hub.close()
