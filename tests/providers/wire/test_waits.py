from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.providers.wire.waits import asked_wait, limit_wait

NOW = 1_763_636_300.0  # 2025-11-20T10:58:20Z


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "0.2"}, 0.2),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "tomorrow"}, None),
        ({}, None),
    ],
)
def test_the_most_exact_header_wins(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("2m59.56s", 179.56),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("60", 60.0),
        ("2025-11-20T11:00:00Z", 100.0),
        ("2025-11-20T11:00:00.500+00:00", 100.5),
        (str(int(NOW) + 7), 7.0),  # epoch seconds
        (str(int(NOW + 7) * 1000), 7.0),  # OpenRouter: epoch milliseconds
    ],
)
@pytest.mark.parametrize(
    "name", ["x-ratelimit-reset-tokens", "X-RateLimit-Reset", "anthropic-ratelimit-requests-reset"]
)
def test_reset_headers_of_both_vendors(name: str, value: str, seconds: float) -> None:
    assert limit_wait({name: value}, "", now=NOW) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["-1", "", "soon", "6x", "nan"])
def test_a_reset_that_says_nothing_is_passed_over(value: str) -> None:
    assert limit_wait({"x-ratelimit-reset-tokens": value}, "", now=NOW) is None


def test_only_limits_that_are_used_up_count_and_all_of_them_must_be_over() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2h",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "7.66s",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2025-11-20T10:58:30Z",
    }
    assert limit_wait(headers, "try again in 1s", now=NOW) == 10.0


def test_words_are_better_than_the_reset_of_a_limit_not_used_up() -> None:
    headers = {"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "50s"}
    assert limit_wait(headers, "Please try again in 5.289s. Visit", now=NOW) == 5.289
    assert limit_wait(headers, "", now=NOW) == 50.0


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Limit 6000, Used 5200. Please try again in 5.289s. Visit https://console.groq.com", 5.289),
        ("Please try again in 7m12.48s.", 432.48),
        ("Please try again in 450ms.", 0.45),
        ("Rate limit reached. Please try again in 20 seconds.", 20.0),
        ("Please retry in 46.2s", 46.2),
        ("Try again in 3 minutes", 180.0),
        ("try again later", None),
        ("wait 5s", None),
    ],
)
def test_words(message: str, seconds: float | None) -> None:
    found = limit_wait({}, message, now=NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


@given(st.text(), st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens"]))
def test_no_header_breaks_it_or_asks_for_a_negative_wait(value: str, name: str) -> None:
    for found in (asked_wait({name: value}, now=NOW), limit_wait({name: value}, value, now=NOW)):
        assert found is None or 0 <= found < float("inf")
