from __future__ import annotations

import pytest

from perfkit.dashboard import formats

DASH = "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, DASH), (0, "0"), (3.25, "3.2"), (12.0, "12"), (1234.4, "1,234"), (2_500_000, "2.5 M")],
)
def test_counts(value: float | None, shown: str) -> None:
    assert formats.count(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, DASH), (0, "0 s"), (8.5e-4, "850 us"), (0.012, "12 ms"), (1.25, "1.25 s"), (720, "12 min")],
)
def test_times(value: float | None, shown: str) -> None:
    assert formats.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, DASH), (17, "17 B"), (1536, "1.5 KiB"), (3 * 2**20, "3 MiB"), (5 * 2**40, "5120 GiB")]
)
def test_sizes(value: float | None, shown: str) -> None:
    assert formats.size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, DASH), (0, "$0.00"), (0.000123, "$0.000123"), (0.5, "$0.50"), (1234.5, "$1,234.50")]
)
def test_dollars(value: float | None, shown: str) -> None:
    assert formats.dollars(value) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("avg_response_time", 0.1322, "132 ms"),
        ("daily_cost", 24.0, "$24.00"),
        ("error_rate", 0.05, "5 %"),
        ("provider", "groq", "groq"),
        ('count("x")', 20.0, "20"),
    ],
)
def test_measures_have_the_unit_that_their_name_tells(name: str, value: object, shown: str) -> None:
    assert formats.measure(name, value) == shown


def test_times_of_day_have_their_day() -> None:
    assert (formats.moment(1.7e9), formats.minute(1.7e9)) == ("11-14 22:13:20", "22:13")
