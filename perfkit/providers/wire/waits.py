"""How long a provider asks to wait, from the headers and words of its refusal; seconds.

Order, most exact first: `retry-after-ms` (OpenAI, Azure), `Retry-After` in seconds or as a date (RFC 9110, 10.2.3),
`retryDelay` in the error's details (Gemini), the reset headers of the limits that are used up (`x-ratelimit-reset-*` of
OpenAI and Groq, `anthropic-ratelimit-*-reset`), "try again in 5.289s" in the message (Groq, OpenAI), and at last the
nearest reset of any limit.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["asked_wait", "limit_wait", "number_told", "seconds_told"]

_PART = r"(\d+(?:\.\d+)?) ?(ms|milli|[smhd])[a-z]*"
_DURATION = re.compile(rf"(?:{_PART})+", re.IGNORECASE)
_IN_WORDS = re.compile(rf"(?:try again|retry) (?:in|after) ((?:{_PART})+)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EPOCH, _EPOCH_MS = 1e9, 1e11  # plain numbers this large are points in time, as OpenRouter sends them
_RESET = re.compile(r"x-ratelimit-reset(.*)|anthropic-ratelimit(-.+)-reset", re.IGNORECASE)


def asked_wait(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds of `retry-after-ms` or `Retry-After`, None when there is neither.

    Args:
        headers: of the reply, in a case-insensitive mapping or with names in lower case.
        now: epoch seconds, for a date.
    """
    milliseconds = number_told(headers.get("retry-after-ms"))
    return milliseconds / 1000 if milliseconds is not None else seconds_told(headers.get("retry-after"), now)


def limit_wait(headers: Mapping[str, str], message: str, *, now: float, told: str | None = None) -> float | None:
    """Return the seconds until the limit that was hit is reset, None when nothing tells.

    Args:
        headers: of the reply.
        message: the provider's words.
        now: epoch seconds, for resets given as a point in time.
        told: a duration in the error itself, as Gemini has it.
    """
    if told is not None and _DURATION.fullmatch(told):
        return _duration(told)
    resets = list(_resets(headers, now))
    used_up = [wait for wait, is_used_up in resets if is_used_up]
    if used_up:
        return max(used_up)  # all of them have to be over
    words = _IN_WORDS.search(message)
    if words is not None:
        return _duration(words[1])
    return min((wait for wait, _ in resets), default=None)


def _resets(headers: Mapping[str, str], now: float) -> Iterator[tuple[float, bool]]:
    """Yield each limit's reset in seconds and whether nothing remains of it (or that is not told)."""
    lower = {name.lower(): value for name, value in headers.items()}
    for name, value in lower.items():
        found = _RESET.fullmatch(name)
        wait = seconds_told(value, now) if found else None
        if wait is not None:
            remaining = lower.get(name.replace("-reset", "-remaining"))
            yield wait, number_told(remaining) in (None, 0)


def seconds_told(value: str | None, now: float) -> float | None:
    """Read seconds, an epoch, a duration such as "6m0s", an HTTP date or an RFC 3339 time."""
    if not value:
        return None
    seconds = number_told(value)
    if seconds is not None:
        return max(0.0, seconds / (1000 if seconds > _EPOCH_MS else 1) - now) if seconds > _EPOCH else seconds
    if _DURATION.fullmatch(value):
        return _duration(value)
    moment = _moment(value)
    return None if moment is None else max(0.0, moment - now)


def number_told(value: str | None) -> float | None:
    """Return a finite number that is not negative; Azure sends -1 for "unknown"."""
    try:
        number = float(value) if value else -1.0
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _duration(text: str) -> float:
    return sum(float(amount) * _SECONDS[unit.lower()] for amount, unit in re.findall(_PART, text, re.IGNORECASE))


def _moment(text: str) -> float | None:
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text.strip())
        except ValueError:
            continue
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    return None
