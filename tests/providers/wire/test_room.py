from __future__ import annotations

import pytest

from perfkit.providers.wire.room import Room, room_told

OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-05-04T12:00:30Z",
    "anthropic-ratelimit-output-tokens-limit": "8000",
    "anthropic-ratelimit-output-tokens-remaining": "2000",
    "anthropic-ratelimit-output-tokens-reset": "2026-05-04T12:00:45Z",
}
NOON = 1777896000.0  # 2026-05-04T12:00:00Z


def test_the_documented_headers_are_read() -> None:
    assert room_told(OPENAI, now=NOON) == (Room("requests", 59, 60, 1), Room("tokens", 149984, 150000, 360))
    assert room_told(ANTHROPIC, now=NOON) == (Room("requests", 49, 50, 30), Room("tokens", 2000, 8000, 45))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"x-ratelimit-remaining-requests": "5"},
        OPENAI | {"x-ratelimit-limit-requests": "0", "x-ratelimit-limit-tokens": "-1"},
        OPENAI | {"x-ratelimit-remaining-requests": "many", "x-ratelimit-remaining-tokens": "nan"},
        OPENAI | {"x-ratelimit-reset-requests": "soon", "x-ratelimit-reset-tokens": ""},
        OPENAI | {"x-ratelimit-remaining-requests": "61", "x-ratelimit-remaining-tokens": "1e999"},
    ],
)
def test_what_is_not_told_in_full_tells_nothing(wrong: dict[str, str]) -> None:
    assert room_told(wrong, now=NOON) == ()


def test_room_comes_back_until_the_reset() -> None:
    room = Room("requests", 0, 60, 60)
    assert [room.left(seconds) for seconds in (0, 30, 60, 1000)] == [0, 30, 60, 60]
    assert room.wait(1, 0) == pytest.approx(1.0)
    assert room.wait(3, 1) == pytest.approx(2.0)
    assert room.wait(1, 5) == 0.0
    assert room.wait(1000, 0) == pytest.approx(60.0)
    assert Room("requests", 60, 60, 0).wait(60, 0) == 0.0
    assert Room("requests", 60, 60, 9).wait(60, 0) == 0.0
