"""What a cache does with every backend, whoever wrote it: one suite over the registry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from _backends import prepared
from _parts import needs_module

from perfkit.caching import BACKENDS
from perfkit.caching.response import ResponseCache
from perfkit.clock import FakeClock
from perfkit.errors import StateUnavailableError
from perfkit.metrics import PerformanceTracker
from perfkit.values import Attempt, ChatResponse, Usage

ANSWER = ChatResponse(
    "hi", Usage(1, 2), "m", "p", ({"id": "1"},), 0.5, attempts=(Attempt("p", "m", 1.0, 0.1, "ok"),), raw={"a": [1]}
)
VALUES: list[Any] = [ANSWER, None, 0, "", False, [], {"a": [1, 1.0, True, None, "é\ud800"]}, "x" * 5000]

Make = Callable[..., ResponseCache]


@pytest.fixture(params=list(BACKENDS))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    with prepared(request.param, tmp_path) as settings:
        clock, made = FakeClock(), []

        def one(**more: Any) -> ResponseCache:
            cache = ResponseCache(clock=clock, tracker=PerformanceTracker(clock=clock), **{**settings, **more})
            made.append(cache)
            cache.clock = clock  # type: ignore[attr-defined]
            return cache

        yield one
        for cache in made:
            cache.close()


@pytest.mark.parametrize("value", VALUES, ids=[type(value).__name__ for value in VALUES])
def test_what_goes_in_comes_out_equal_and_of_the_same_type(make: Make, value: Any) -> None:
    cache = make()
    cache.set("key", value)
    assert repr(cache.get("key", default="none")) == repr(value)
    assert repr(cache.get("key", lambda: pytest.fail("it is there"))) == repr(value)


def test_who_got_a_value_cannot_change_what_the_next_one_gets(make: Make) -> None:
    cache = make()
    cache.set("key", {"list": [1]})
    cache.get("key")["list"].append(2)
    assert cache.get("key") == {"list": [1]}


def test_an_entry_lives_for_its_ttl(make: Make) -> None:
    cache = make(ttl=60)
    cache.set("usual", 1)
    cache.set("short", 2, ttl=10)
    cache.clock.advance(10)  # type: ignore[attr-defined]
    assert (cache.get("usual"), cache.get("short")) == (1, None)
    cache.clock.advance(50)  # type: ignore[attr-defined]
    assert cache.get("usual") is None


def test_a_stale_answer_is_served_and_made_fresh(make: Make) -> None:
    cache = make(ttl=60, stale_ttl=60)
    cache.set("key", "old")
    cache.clock.advance(60)  # type: ignore[attr-defined]
    assert cache.get("key", lambda: "new") == "old"
    assert cache._loader.refresher.wait(10)
    assert cache.get("key", lambda: "newer") == "new"


def test_one_key_is_removed_and_no_other(make: Make) -> None:
    cache = make()
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.delete("a")
    assert not cache.delete("a")
    assert (cache.get("a"), cache.get("b")) == (None, 2)


@pytest.mark.parametrize(("wanted", "left"), [("city", "c"), ("n*", "ab"), ("a", "bc"), ("c", "ab"), ("*", "")])
def test_a_tag_a_glob_or_a_name_removes_what_it_means(make: Make, wanted: str, left: str) -> None:
    cache, names = make(), {"a": "a", "b": "b", "c": "new"}
    cache.set("a", 1, tags=["city", "rome"])
    cache.set("b", 1, tags=["city"])
    cache.set("new", 1, tags=["c"])
    cache.store("chat:digest:public", ANSWER, tags=["city"])
    cache.invalidate(wanted)
    assert "".join(short for short, name in names.items() if cache.get(name) is not None) == left
    assert cache.lookup("chat:digest:public") is not None
    cache.set("a", 2, tags=["city"])
    assert cache.get("a") == 2


def test_a_value_of_one_scope_is_never_seen_in_another(make: Make) -> None:
    cache = make()
    cache.set("balance", 100, scope="anna")
    assert cache.get("balance", scope="anna") == 100
    assert cache.get("balance", default="none", scope="bert") == "none"
    assert cache.get("balance", default="none") == "none"


HOSTILE = [
    "",
    "\ud800",
    "a\0b",
    "[",
    "[!",
    "a[b]c",
    "\\",
    "tag:x",
    "chat:a:public",
    "scope:x",
    "json:",
    "\n",
    "{}",
    "é\u202e",
    "'--",
]


def test_any_text_can_be_a_key_a_tag_and_a_scope(make: Make) -> None:
    cache, other = make(), make()
    for name in HOSTILE:
        cache.set("tagged", 1, tags=[name])
        cache.set(name, 2)
        cache.set("mine", 3, scope=name)
        assert (cache.get(name), cache.get("mine", scope=name)) == (2, 3), ascii(name)
        if cache._shelf.far is not None:
            assert (other.get(name), other.get("mine", scope=name)) == (2, 3), ascii(name)
        cache.invalidate(name)
        found = (cache.get(name), cache.get("tagged"), cache.get("mine", scope=name))
        assert found == (None, None, 3), ascii(name)


def test_clear_removes_everything(make: Make) -> None:
    cache = make()
    cache.set("a", 1)
    cache.clear()
    assert cache.get("a") is None
    cache.set("a", 2)
    assert cache.get("a") == 2


def test_another_generation_sees_nothing_of_this_one(make: Make) -> None:
    cache = make(generation="1")
    cache.set("a", 1)
    cache.configure(generation="2")
    assert cache.get("a") is None
    cache.set("a", 2)
    assert cache.get("a") == 2


def test_threads_that_miss_one_key_make_one_call(make: Make) -> None:
    cache, calls, ready = make(), [], threading.Barrier(8)
    cache.get("other")  # in the thread that has the application

    def load() -> str:
        calls.append(1)
        return "answer"

    def ask(_: int) -> Any:
        ready.wait()
        return cache.get("key", load)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"answer"}
    assert calls == [1]


def test_an_answer_invalidated_while_it_is_written_is_not_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make()
    far = cache._shelf.far
    if far is not None:
        put = far.put
        monkeypatch.setattr(far, "put", lambda entry: [cache.invalidate("city"), put(entry)])
        cache.set("key", "old", tags=["city"])
        assert (cache.get("key"), make().get("key")) == (None, None)


CHANGES: dict[str, Callable[[ResponseCache], Any]] = {
    "set": lambda cache: cache.set("key", "new"),
    "delete": lambda cache: cache.delete("key"),
    "tag": lambda cache: cache.invalidate("city"),
    "glob": lambda cache: cache.invalidate("k*"),
    "clear": lambda cache: cache.clear(),
}


def test_what_was_changed_while_the_backend_was_away_does_not_come_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make()
    far = cache._shelf.far
    for name, change in CHANGES.items() if far is not None else ():
        cache.set("key", "old", tags=["city"])
        with monkeypatch.context() as away:
            for method in ("get", "put", "delete", "invalidate", "clear"):
                away.setattr(far, method, refuse)
            change(cache)
        cache._shelf.near.clear()
        assert cache.get("key") is None, name
        assert make().get("key") is None, name


def test_what_the_backend_still_has_to_be_told_is_not_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make()
    cache.set("key", "old", tags=["city"])
    cache.set("other", 1)
    far = cache._shelf.far
    if far is not None:
        monkeypatch.setattr(far, "invalidate", refuse)  # as with a full disk: reading goes on
        cache.invalidate("city")
        told = cache._shelf._owed
        monkeypatch.setattr(told, "known", counted(told.known, tries := list[object]()))
        for _ in range(3):
            assert (cache.get("key"), cache.get("other")) == (None, 1)
        assert len(tries) == 1  # there may be much to tell: once a second is enough


def counted(call: Callable[[], Any], calls: list[object]) -> Callable[[], Any]:
    def counting() -> Any:
        calls.append(call)
        return call()

    return counting


def refuse(*_: object) -> None:
    raise StateUnavailableError("away")


def test_an_answer_invalidated_on_its_way_is_not_kept(make: Make) -> None:
    cache = make()
    assert cache.get("key", lambda: [cache.invalidate("city"), "late"][1], tags=["city"]) == "late"
    assert cache.get("key") is None


def test_a_second_cache_sees_what_the_first_one_keeps_unless_it_is_in_memory(make: Make) -> None:
    one, two = make(), make()
    one.set("a", {"b": 1}, tags=["t"])
    if one.settings.backend != "memory":
        assert two.get("a") == {"b": 1}
    assert one.get("a") == {"b": 1}


def test_compressed_and_encrypted_values_come_back(make: Make) -> None:
    needs_module("cryptography")
    from cryptography.fernet import Fernet

    key = Fernet.generate_key().decode()
    cache, other = make(encryption_key=key, compression="zlib"), make(encryption_key=Fernet.generate_key().decode())
    cache.set("a", "secret" * 1000)
    assert cache.get("a") == "secret" * 1000
    assert other.get("a") is None


def test_its_state_can_be_read(make: Make) -> None:
    cache = make()
    cache.set("a", "x" * 100)
    stats = cache.stats()
    assert stats["backend"] == cache.settings.backend
    assert cache.settings.backend in repr(cache)
    assert len(cache) >= 0
    assert cache.cache_size >= 0
