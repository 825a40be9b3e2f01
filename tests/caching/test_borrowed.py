"""What a cache of the application's may do to the answers kept in it: drop anything, at any time, and fail."""

from __future__ import annotations

import random
from typing import Any

import pytest
from _parts import needs_module

from perfkit._settings import CacheSettings
from perfkit.caching.backends import Setup
from perfkit.caching.backends.borrowed import BorrowedBackend, _Flask
from perfkit.caching.codec import Codec
from perfkit.caching.response import ResponseCache
from perfkit.clock import FakeClock
from perfkit.errors import ConfigError
from perfkit.metrics import PerformanceTracker


class Forgetful:
    """A cache that is one dict, and loses what the test takes out of it."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {"app:key": "the application's"}
        self.broken, self.takes, self.asked = False, 0.0, 0
        self.clock = FakeClock()

    def get_many(self, names: Any) -> dict[str, Any]:
        self.asked += 1
        if self.broken:
            self.clock.advance(self.takes)
            raise ConnectionError("away")
        return {name: self.held[name] for name in names if name in self.held}

    def set(self, name: str, value: Any, seconds: float) -> None:
        if self.broken:
            raise ConnectionError("away")
        assert isinstance(value, bytes | str)
        assert 0 < seconds <= 7 * 86400
        self.held[name] = value

    def begin(self, name: str, number: int) -> None:
        self.held.setdefault(name, number)

    def increase(self, name: str) -> int:
        self.held[name] += 1
        return int(self.held[name])

    def delete(self, name: str) -> bool:
        if self.broken:
            raise ConnectionError("away")
        return self.held.pop(name, None) is not None


@pytest.fixture
def lender() -> Forgetful:
    return Forgetful()


@pytest.fixture
def cache(lender: Forgetful) -> ResponseCache:
    clock, settings = lender.clock, CacheSettings()
    setup = Setup(settings, Codec(clock), clock, PerformanceTracker(), lambda _: None)
    return ResponseCache(clock=clock, tracker=setup.tracker, backend=BorrowedBackend(setup, lender, "a cache"))


def test_whatever_is_dropped_nothing_invalid_comes_back(cache: ResponseCache, lender: Forgetful) -> None:
    rng, valid = random.Random(5), {}
    for step in range(3000):
        key = f"k{rng.randrange(5)}"
        match rng.randrange(5):
            case 0:
                cache.set(key, step, tags=["t"] if step % 2 else [])
                valid[key] = (step, step % 2 == 1)
            case 1:
                cache.invalidate("t")
                valid = {name: kept for name, kept in valid.items() if not kept[1]}
            case 2:
                cache.invalidate(key)
                valid.pop(key, None)
            case 3 if rng.random() < 0.2:
                lender.held.pop(rng.choice([name for name in lender.held if name != "app:key"] or ["none"]), None)
            case _:
                found = cache.get(key)
                assert found is None or valid[key][0] == found
    assert lender.held["app:key"] == "the application's"


def test_clear_and_a_new_counter_never_fit_old_values(cache: ResponseCache, lender: Forgetful) -> None:
    cache.set("a", 1)
    cache.clear()
    assert cache.get("a") is None
    cache.set("b", 2)
    assert (cache.get("a"), cache.get("b")) == (None, 2)


def test_too_many_invalidations_make_a_value_unreadable_instead_of_slow(cache: ResponseCache) -> None:
    cache.set("a", 1)
    for number in range(200):
        cache.invalidate(f"other{number}")
    assert cache.get("a") == 1
    for number in range(100):
        cache.invalidate(f"other{number}")
    assert cache.get("a") is None


def test_a_broken_cache_breaks_no_call(
    cache: ResponseCache, lender: Forgetful, caplog: pytest.LogCaptureFixture
) -> None:
    lender.broken = True
    for number in range(3):
        assert cache.get(f"k{number}", lambda: "answer") == "answer"
    assert cache.invalidate("t") == 0
    assert len(caplog.records) == 1
    lender.broken = False
    assert cache.get("k", lambda: "kept") == "kept"
    assert cache.get("k") == "kept"


def test_a_cache_that_is_slow_to_fail_is_left_alone_for_a_second(cache: ResponseCache, lender: Forgetful) -> None:
    lender.broken, lender.takes = True, 20.0
    for number in range(3):
        assert cache.get(f"k{number}", lambda: "answer") == "answer"
    assert lender.asked == 1
    lender.broken = False
    lender.clock.advance(1)
    assert cache.get("k", lambda: "kept") == "kept"
    assert cache.get("k") == "kept"


def test_a_cache_that_keeps_nothing_is_no_outage(
    cache: ResponseCache, lender: Forgetful, caplog: pytest.LogCaptureFixture
) -> None:
    lender.held = Nothing()
    for number in range(3):
        assert cache.get("k", lambda: number) == number  # noqa: B023 - called at once
        assert cache.invalidate("k") == 0
    assert not caplog.records


class Nothing(dict[str, Any]):
    """What Django's DummyCache and Flask-Caching's NullCache hold."""

    def __setitem__(self, name: str, value: object) -> None:
        return

    def setdefault(self, name: str, value: object = None) -> object:
        return value


def test_without_an_application_the_flask_backend_says_what_it_needs() -> None:
    needs_module("flask")
    with pytest.raises(ConfigError, match="Flask-Caching"):
        _Flask().get_many(["a"])


def test_where_it_is_not_known_any_more_what_was_made_invalid_nothing_older_is_read(
    cache: ResponseCache, lender: Forgetful
) -> None:
    cache.set("a", 1, tags=["t"])
    cache.set("b", 2)
    before = set(lender.held)
    cache.invalidate("t")
    [mark] = set(lender.held) - before
    del lender.held[mark]
    assert (cache.get("a"), cache.get("b")) == (None, None)
