"""Bounded dicts of what was used last."""

from __future__ import annotations

from perfkit.tokens.recent import Recent


def test_the_entry_that_was_longest_not_used_goes_first() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.find("a") == 1
    recent.put("c", 3)
    assert (recent.find("a"), recent.find("b"), recent.find("c"), len(recent)) == (1, None, 3, 2)


def test_setting_again_is_a_use() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.put("a", 4) == 4
    recent.put("c", 3)
    assert list(recent) == ["a", "c"]
