"""When budget periods begin and end, in the time zone people chose: pure calendar arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from perfkit.errors import ConfigError

__all__ = ["PERIODS", "time_zone", "window"]

PERIODS: Final = ("request", "minute", "day", "month", "total")


def time_zone(name: str) -> tzinfo:
    """Return the time zone called `name`, for example "Europe/Berlin".

    Raises:
        ConfigError: this machine's time zone database does not have it.
    """
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # takes 4 ms, and most servers run on UTC

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigError(
            f"no time zone {name!r} on this machine; use an IANA name such as 'Europe/Berlin' (package tzdata has all)",
            key="tokens.timezone",
        ) from None


def window(period: str, now: float, zone: tzinfo) -> tuple[float, float | None]:
    """Return epoch seconds of the begin and the end of the period that holds `now`; the end is None for "total".

    Days and months begin at local midnight, so a day has 23 or 25 hours where clocks are changed.
    """
    if period == "minute":
        return now // 60 * 60, now // 60 * 60 + 60
    if period not in ("day", "month"):
        return 0.0, None
    local = datetime.fromtimestamp(now, zone)
    begin = datetime(local.year, local.month, local.day if period == "day" else 1, tzinfo=zone)
    later = begin + timedelta(days=1 if period == "day" else 32)
    end = later if period == "day" else datetime(later.year, later.month, 1, tzinfo=zone)
    return begin.timestamp(), end.timestamp()
