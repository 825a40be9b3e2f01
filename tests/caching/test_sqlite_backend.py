"""The backend of one file: its bounds, and what it says where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perfkit.caching.response import ResponseCache
from perfkit.clock import FakeClock
from perfkit.errors import ConfigError
from perfkit.metrics import PerformanceTracker

Make = Callable[..., ResponseCache]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[ResponseCache] = []

    def one(**settings: Any) -> ResponseCache:
        given = {"url": f"sqlite:///{tmp_path}/cache.db", **settings}
        made.append(ResponseCache(backend="sqlite", clock=FakeClock(), tracker=PerformanceTracker(), **given))
        return made[-1]

    yield one
    for cache in made:
        cache.close()


def test_entries_never_exceed_their_bound_and_the_one_to_expire_first_goes_first(make: Make) -> None:
    cache = make(max_entries=3)
    for number in range(6):
        cache.set(f"key{number}", number, ttl=60 + number)
    reader = make()
    assert [reader.get(f"key{number}") for number in range(6)] == [None, None, None, 3, 4, 5]


def test_a_value_larger_than_the_cache_replaces_what_was_there_by_nothing(make: Make) -> None:
    cache = make(max_bytes=10_000)
    cache.set("key", "small")
    cache.set("key", "x" * 20_000)
    assert make().get("key") is None


def test_a_cache_without_a_file_says_where_to_name_one(make: Make) -> None:
    with pytest.raises(ConfigError, match=r'needs \[cache\] url or \[state\] url = "sqlite:///<path>"'):
        make(url=None).get("key")
    with pytest.raises(ConfigError, match="must begin with sqlite:///"):
        make(url="redis://127.0.0.1").get("key")
