"""Short texts are read once, long ones again each time: they would fill the memory."""

from __future__ import annotations

from perfkit.caching.remembering import LONG, MOST, remembered


def test_a_short_text_is_read_once_and_a_long_one_is_not_remembered() -> None:
    read: list[int] = []

    @remembered
    def length(text: str) -> int:
        read.append(len(text))
        return len(text)

    for text in ("short", "short", "x" * LONG, "x" * LONG, "y" * (LONG + 1), "y" * (LONG + 1)):
        assert length(text) == len(text)
    assert read == [5, LONG, LONG + 1, LONG + 1]


def test_no_more_than_so_many_texts_are_remembered() -> None:
    read: list[str] = []
    note = remembered(read.append)
    for text in [*map(str, range(MOST + 1)), str(MOST), "0"]:
        note(text)
    assert read == [*map(str, range(MOST + 1)), "0"]
