from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.errors import ConfigError
from perfkit.tokens.periods import time_zone, window

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_minute_and_day_and_month_hold_now() -> None:
    now = epoch("2026-03-14T15:09:26+00:00")
    assert window("minute", now, UTC) == (epoch("2026-03-14T15:09:00+00:00"), epoch("2026-03-14T15:10:00+00:00"))
    assert window("day", now, UTC) == (epoch("2026-03-14T00:00:00+00:00"), epoch("2026-03-15T00:00:00+00:00"))
    assert window("month", now, UTC) == (epoch("2026-03-01T00:00:00+00:00"), epoch("2026-04-01T00:00:00+00:00"))


def test_day_begins_at_local_midnight() -> None:
    now = epoch("2026-01-31T23:30:00+00:00")  # half past midnight in Berlin, and already February
    assert window("day", now, BERLIN)[0] == epoch("2026-02-01T00:00:00+01:00")
    assert window("month", now, BERLIN) == (epoch("2026-02-01T00:00:00+01:00"), epoch("2026-03-01T00:00:00+01:00"))


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)])
def test_day_of_a_clock_change_has_23_or_25_hours(day: str, hours: int) -> None:
    for at in ("00:30", "02:30", "12:00", "23:59"):
        begin, end = window("day", datetime.fromisoformat(f"{day}T{at}").replace(tzinfo=BERLIN).timestamp(), BERLIN)
        assert end is not None
        assert end - begin == hours * HOUR


def test_second_midnight_of_a_day_does_not_begin_it_again() -> None:
    havana = ZoneInfo("America/Havana")  # at 01:00 the clock goes back to 00:00
    first = datetime(2025, 11, 2, 0, 30, tzinfo=havana)
    second = first.replace(fold=1)
    assert second.timestamp() - first.timestamp() == HOUR
    assert window("day", first.timestamp(), havana) == window("day", second.timestamp(), havana)


def test_day_without_midnight_begins_at_the_change() -> None:
    cairo = ZoneInfo("Africa/Cairo")  # 2025-04-25 begins at 01:00
    assert window("day", epoch("2025-04-25T12:00:00+03:00"), cairo)[0] == epoch("2025-04-25T00:00:00+02:00")


@pytest.mark.parametrize("period", ["total", "request"])
def test_total_never_ends(period: str) -> None:
    assert window(period, 1.7e9, BERLIN) == (0.0, None)


@given(
    st.floats(0, 4e9),
    st.sampled_from(["minute", "day", "month"]),
    st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "UTC"]),
)
def test_windows_follow_each_other_without_gap(now: float, period: str, zone: str) -> None:
    begin, end = window(period, now, ZoneInfo(zone))
    assert end is not None
    assert begin <= now < end
    assert window(period, end, ZoneInfo(zone))[0] == end


def test_machine_time_zone_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert window("day", epoch("2026-03-14T20:00:00+00:00"), UTC)[0] == epoch("2026-03-14T00:00:00+00:00")
    finally:
        monkeypatch.delenv("TZ") if before is None else monkeypatch.setenv("TZ", before)
        time.tzset()


@pytest.mark.parametrize("name", ["Europe/Berln", "", "../etc/passwd", "/etc/localtime"])
def test_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no time zone"):
        time_zone(name)
