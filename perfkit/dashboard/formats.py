"""Values as people read them; a dash stands for what is not known."""

from __future__ import annotations

import math
from datetime import UTC, datetime

__all__ = ["count", "dollars", "measure", "minute", "moment", "name", "percent", "seconds", "size", "text"]

NOTHING = "\N{EN DASH}"
LONGEST = 120  # characters of a name


def text(value: object) -> str:
    """Return any value as text; what cannot be seen, or turns other text around, is made visible."""
    if value is None or value == "":
        return NOTHING
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(value))


def name(value: object) -> str:
    """Return a name as text, a very long one cut."""
    told = text(value)
    return told if len(told) <= LONGEST else f"{told[:LONGEST]}\N{HORIZONTAL ELLIPSIS}"


def count(value: float | None) -> str:
    """Return a number of things: 1,234 or 1.2 M."""
    if value is None:
        return NOTHING
    if value >= 1e6:  # noqa: PLR2004 - a million
        return f"{value / 1e6:,.1f} M"
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"  # noqa: PLR2004 - three digits


def seconds(value: float | None) -> str:
    """Return a time: 850 us, 12 ms, 1.25 s or 12 min."""
    if value is None:
        return NOTHING
    for least, unit, factor in ((120.0, "min", 60.0), (1.0, "s", 1.0), (1e-3, "ms", 1e-3)):
        if value >= least:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e-6:.3g} us" if value else "0 s"


def percent(value: float | None) -> str:
    """Return a part of 1 as percent."""
    return NOTHING if value is None else f"{100 * value:.3g} %"


def dollars(value: float | None) -> str:
    """Return US dollars: cents, and below one dollar three digits."""
    if value is None:
        return NOTHING
    if value == 0 or value >= 1:
        return f"${value:,.2f}"
    whole, _, part = f"{value:.{2 - math.floor(math.log10(abs(value)))}f}".partition(".")
    return f"${whole}.{part[:2]}{part[2:].rstrip('0')}"


def measure(what: str, value: object) -> str:
    """Return the value of a measure that alerts are about, in the unit that its name tells."""
    if not isinstance(value, float):
        return text(value)
    units = {"_rate": percent, "_cost": dollars, "_limit": dollars, "_time": seconds, "_token": seconds}
    return next((form(value) for end, form in units.items() if what.endswith(end)), f"{value:.4g}")


def size(value: float | None) -> str:
    """Return bytes in binary units."""
    if value is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:  # noqa: PLR2004 - the base of the units
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} GiB"


def moment(value: float | None) -> str:
    """Return epoch seconds as month, day and time of day in UTC."""
    return NOTHING if value is None else datetime.fromtimestamp(value, UTC).strftime("%m-%d %H:%M:%S")


def minute(value: float) -> str:
    """Return epoch seconds as hour and minute in UTC, for an axis."""
    return datetime.fromtimestamp(value, UTC).strftime("%H:%M")
