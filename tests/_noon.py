"""A time zone in which no day ends while tests run."""

from __future__ import annotations

import time

__all__ = ["noon"]


def noon() -> str:
    """Return one where it is between 12 and 13 o'clock; the signs of these names are turned round."""
    return f"Etc/GMT{time.gmtime().tm_hour - 12:+d}"
