from __future__ import annotations

import enum
import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.caching.keys import scoped_key
from perfkit.caching.response import ResponseCache
from perfkit.clock import FakeClock
from perfkit.errors import BudgetExceededError, DeadlineExceeded, PoolTimeout, RecursiveCallError
from perfkit.metrics import PerformanceTracker
from perfkit.values import Attempt, ChatResponse, Usage

ANSWER = ChatResponse(
    "hi", Usage(1, 2), "m", "p", tool_calls=({"id": "1"},), attempts=(Attempt("p", "m", 1.0, 0.1, "ok"),)
)


def cache(**settings: Any) -> ResponseCache:
    clock = FakeClock()
    made = ResponseCache(clock=clock, tracker=PerformanceTracker(clock=clock), **settings)
    made.clock = clock  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("value", [None, 0, "", False, [], {}, 0.0])
def test_falsy_results_are_results(value: object) -> None:
    kept, calls = cache(), []

    def compute() -> object:
        calls.append(1)
        return value

    assert [kept.get("key", compute) for _ in range(3)] == [value] * 3
    assert len(calls) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_what_goes_in_comes_out_equal_and_of_the_same_type(value: object) -> None:
    kept = cache()
    kept.set("key", value)
    assert repr(kept.get("key")) == repr(value)


def test_a_response_comes_out_equal() -> None:
    kept = cache()
    kept.set("key", ANSWER)
    assert kept.get("key") == ANSWER


@pytest.mark.parametrize("value", [(1, 2), {1: "a"}, {"a": (1,)}, {1, 2}, object(), b"x"])
def test_a_value_that_would_come_back_changed_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        cache().set("key", value)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        cache().set("key", float("nan"))


def test_who_got_a_value_cannot_change_what_the_next_one_gets() -> None:
    kept = cache()
    kept.set("key", {"list": [1]})
    kept.get("key")["list"].append(2)
    assert kept.get("key") == {"list": [1]}


def test_an_entry_lives_for_its_ttl() -> None:
    kept = cache(ttl=60)
    kept.set("usual", 1)
    kept.set("short", 2, ttl=10)
    kept.clock.advance(10)  # type: ignore[attr-defined]
    assert (kept.get("usual"), kept.get("short")) == (1, None)
    kept.clock.advance(50)  # type: ignore[attr-defined]
    assert kept.get("usual") is None
    assert kept.stats()["expired"] == 2
    assert len(kept) == 0


def test_bytes_never_exceed_the_bound() -> None:
    kept, rng = cache(max_bytes=100_000), random.Random(7)
    for number in range(3000):
        kept.set(f"key{number}", "x" * rng.randint(1, 5000))
        assert kept.stats()["bytes"] <= 100_000
    assert kept.stats()["evictions"] > 0


def test_a_value_larger_than_the_cache_is_returned_but_not_kept() -> None:
    kept = cache(max_bytes=1000)
    kept.set("key", "old")
    assert kept.get("big", lambda: "x" * 5000) == "x" * 5000
    assert kept.get("key") == "old"
    kept.set("key", "x" * 5000)
    assert kept.get("key") is None


def test_entries_never_exceed_their_bound_and_the_one_not_asked_for_goes_first() -> None:
    kept = cache(max_entries=2)
    kept.set("a", 1)
    kept.set("b", 2)
    kept.get("a")
    kept.set("c", 3)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)


def test_a_smaller_bound_takes_effect_at_once() -> None:
    kept = cache()
    for number in range(50):
        kept.set(f"key{number}", "x" * 1000)
    kept.configure(max_bytes=10_000)
    assert kept.stats()["bytes"] <= 10_000
    assert kept.get("key49") is not None


def test_64_threads_missing_one_key_make_one_call() -> None:
    kept, calls, ready = cache(), [], threading.Barrier(64)

    def compute() -> str:
        calls.append(1)
        return "answer"

    def ask(_: int) -> Any:
        ready.wait()
        return kept.get("key", compute)

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(ask, range(64))) == {"answer"}
    assert len(calls) == 1


def test_an_error_is_not_kept() -> None:
    kept = cache()

    def fail() -> object:
        raise LookupError

    with pytest.raises(LookupError):
        kept.get("key", fail)
    assert kept.get("key", lambda: "fine") == "fine"


def test_a_waiter_gives_up_at_its_own_deadline() -> None:
    kept, started, go = cache(), threading.Event(), threading.Event()

    def slow() -> str:
        started.set()
        go.wait()
        return "late"

    leader = threading.Thread(target=kept.get, args=("key", slow))
    leader.start()
    started.wait()
    with pytest.raises(DeadlineExceeded):
        kept.get("key", slow, timeout=0.01)
    go.set()
    leader.join()


def test_a_fallback_that_asks_for_its_own_key_is_told() -> None:
    kept = cache()
    with pytest.raises(RecursiveCallError):
        kept.get("key", lambda: kept.get("key", lambda: 1))


def test_invalidate_removes_a_key_or_what_a_pattern_matches_and_nothing_else() -> None:
    kept = cache()
    for key in ("weather:rome", "weather:oslo", "news:rome", "weather[1]"):
        kept.set(key, 1)
    assert kept.invalidate("weather:*") == 2
    assert kept.invalidate("weather[1]") == 1
    assert kept.get("news:rome") == 1


def test_any_json_value_is_a_key_whatever_the_order_of_its_parts() -> None:
    kept = cache()
    kept.set({"a": 1, "b": [2]}, "value")
    assert kept.get({"b": [2], "a": 1}) == "value"
    assert kept.get({"b": [2], "a": "1"}) is None
    with pytest.raises(TypeError):
        kept.get({"a": object()})


def test_hits_and_misses_are_counted_here_and_in_the_tracker() -> None:
    kept = cache()
    assert kept.hit_rate == 0.0
    kept.get("key", lambda: 1)
    for _ in range(3):
        kept.get("key")
    assert kept.hit_rate == 75.0
    tracker = kept._tracker
    assert tracker is not None
    assert tracker.get_stats("cache_hit")["sum"] == 3
    assert tracker.get_stats("cache_miss")["sum"] == 1


def test_reset_forgets_entries_and_counters() -> None:
    kept = cache()
    kept.get("key", lambda: 1)
    kept.reset()
    assert len(kept) == 0
    assert kept.stats()["misses"] == 0


def test_a_tag_removes_what_carries_it() -> None:
    kept = cache()
    kept.set("a", 1, tags=["city", "rome"])
    kept.get("b", lambda: 2, tags=["city"])
    kept.set("c", 3, tags=["news"])
    assert kept.invalidate("city") == 2
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (None, None, 3)


def test_a_value_of_one_scope_is_never_seen_in_another() -> None:
    kept = cache()
    kept.set("balance", 100, scope="anna")
    assert kept.get("balance", scope="anna") == 100
    assert kept.get("balance", default="none", scope="bert") == "none"
    assert kept.get("balance") is None
    assert not kept.delete("balance", scope="bert")
    assert kept.invalidate("bal*") == 1
    assert not any("anna" in key for key in kept._shelf.near._entries)


def test_delete_removes_one_key() -> None:
    kept = cache()
    kept.set("a", 1)
    assert kept.delete("a")
    assert not kept.delete("a")


def test_size_and_evictions_can_be_read() -> None:
    kept = cache(max_entries=1)
    assert kept.cache_size == 0
    kept.set("a", "x" * 100)
    assert kept.cache_size > 100
    kept.set("b", 1)
    assert kept.eviction_count == 1


def test_a_child_forked_at_rest_keeps_what_is_cached() -> None:
    kept = cache()
    kept.set("a", 1)
    kept._after_fork()
    assert kept.get("a") == 1


def test_a_child_forked_in_the_middle_of_a_change_begins_empty() -> None:
    kept = cache()
    kept.set("a", 1)
    with kept._shelf.near.lock:  # by another thread, in the parent
        kept._after_fork()
    assert len(kept) == 0
    kept.set("b", 2)
    assert kept.get("b") == 2


def together(kept: ResponseCache, load: Callable[[], Any], threads: int = 4) -> list[Any]:
    """Ask for one key in several threads at once; the first computes only when all others wait."""

    def loaded() -> Any:
        for _ in range(10_000):
            if len(kept._loader.flights._waiting) >= threads - 1:
                return load()
            threading.Event().wait(0.001)
        raise AssertionError("the others do not wait")

    with ThreadPoolExecutor(threads) as pool:
        return [f.result(20) for f in [pool.submit(kept.fetch, "key", loaded) for _ in range(threads)]]


def test_those_who_wait_get_a_value_each_and_count_as_hits() -> None:
    kept = cache()
    kept.clock.advance(7)  # type: ignore[attr-defined]
    found = together(kept, lambda: [1])
    assert len({id(value) for value in [one.value for one in found]}) == 4
    assert [one.value for one in found] == [[1]] * 4
    assert sorted(str(one.stored_at) for one in found) == ["1700000007.0"] * 3 + ["None"]
    assert (kept.stats()["hits"], kept.stats()["misses"]) == (3, 1)
    tracker = kept._tracker
    assert tracker is not None
    assert (tracker.get_stats("cache_hit")["sum"], tracker.get_stats("cache_miss")["sum"]) == (3, 1)


def test_those_who_wait_for_a_value_too_large_to_keep_get_one_each() -> None:
    found = together(cache(max_bytes=1000), lambda: ["x" * 5000])
    assert len({id(value) for value in [one.value for one in found]}) == 4


@pytest.mark.parametrize("limit", [DeadlineExceeded, PoolTimeout, BudgetExceededError])
def test_a_limit_of_one_thread_is_not_the_others(limit: type[Exception]) -> None:
    kept, loads = cache(), iter([limit("mine"), "answer"])

    def load() -> Any:
        one = next(loads)
        if isinstance(one, Exception):
            raise one
        return one

    with ThreadPoolExecutor(2) as pool:
        started, go = threading.Event(), threading.Event()

        def first() -> Any:
            started.set()
            go.wait(10)
            return load()

        leader = pool.submit(kept.get, "key", first)
        started.wait(10)
        follower = pool.submit(kept.get, "key", load)
        while not kept._loader.flights._waiting:
            threading.Event().wait(0.001)
        go.set()
        assert follower.result(20) == "answer"
        with pytest.raises(limit):
            leader.result(20)


def odd(**changes: Any) -> ChatResponse:
    return ANSWER.evolve(raw={"handle": object()}, **changes)


def test_an_answer_that_cannot_be_kept_is_delivered_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    kept, answer = cache(), odd()
    with caplog.at_level(logging.WARNING, "perfkit.caching"):
        assert [kept.fetch("key", lambda: answer).value for _ in range(3)] == [answer] * 3
        kept.store("key", odd())
        kept.store("key", ANSWER.evolve(tool_calls=({"circle": circle()},)))
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == [
        "TypeError",
        "ValueError",
    ]
    assert len(kept) == 0
    tracker = kept._tracker
    assert tracker is not None
    assert tracker.get_stats("cache_unstorable")["sum"] == 5
    assert {one.value.text for one in together(kept, odd)} == {"hi"}


def circle() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["self"] = made
    return made


def test_direct_use_is_told_that_a_value_cannot_be_kept() -> None:
    kept = cache()
    with pytest.raises(TypeError):
        kept.set("key", odd())
    with pytest.raises(TypeError):
        kept.get("key", odd)
    with pytest.raises(TypeError):
        kept.get("key", lambda: {1, 2})


@pytest.mark.parametrize("ttl", [float("nan"), float("inf"), -1, 0])
def test_a_ttl_that_is_none_is_refused_before_anything_runs(ttl: float) -> None:
    kept, calls = cache(), []
    with pytest.raises(ValueError, match="ttl"):
        kept.get("key", lambda: calls.append(1), ttl=ttl)
    with pytest.raises(ValueError, match="ttl"):
        kept.set("key", 1, ttl=ttl)
    assert calls == []
    assert len(kept) == 0


@pytest.mark.parametrize("tags", ["city", b"city", [1], ""])
def test_tags_are_names_and_not_one_string(tags: Any) -> None:
    kept, calls = cache(), []
    with pytest.raises(TypeError, match="tags"):
        kept.get("key", lambda: calls.append(1), tags=tags)
    with pytest.raises(TypeError, match="tags"):
        kept.set("key", 1, tags=tags)
    assert calls == []


def test_only_a_pattern_for_chats_removes_answers_of_models() -> None:
    kept = cache()
    for user in (None, "anna"):
        kept.store(scoped_key(b"digest", user), ANSWER)
    for key in ("chat:mine", "other", {"a": 1}):
        kept.set(key, 1)
    assert kept.invalidate("*:user:*") == 0
    assert kept.invalidate("o*") == 1
    assert kept.invalidate("*") == 2
    assert len(kept) == 2
    assert kept.invalidate("chat:*:public") == 1
    assert kept.invalidate("chat:*") == 1


def test_no_key_of_a_user_reads_what_is_kept_under_another_kind_of_key() -> None:
    kept = cache()
    kept.set("secret", 1, scope="anna")
    kept.set({"a": 1}, 2)
    kept.store(scoped_key(b"digest", None), ANSWER)
    for key in list(kept._shelf.near._entries):
        assert kept.get(key) is None
        assert kept.get(key.removeprefix("key:")) is None
        assert kept.get(key, scope="anna") is None


def test_a_loader_that_asks_for_its_own_key_through_another_thread_ends_with_a_timeout() -> None:
    kept = cache()
    with ThreadPoolExecutor(1) as pool:

        def load() -> Any:
            return pool.submit(kept.get, "key", lambda: 1, timeout=0.01).result(20)

        with pytest.raises(DeadlineExceeded):
            kept.get("key", load)
    with pytest.raises(ValueError, match="timeout"):
        kept.get("key", load, timeout=-1)


def test_parts_of_a_reply_that_are_of_a_class_of_their_own_come_back_as_json_says_them() -> None:
    class Reason(enum.StrEnum):
        STOP = "stop"

    one = cache()
    one.set("key", ChatResponse("hi", Usage(1, 2), "m", "p", ({"id": "1"},), raw={"reason": Reason.STOP}))
    back = one.get("key")
    assert (back.raw, back.tool_calls) == ({"reason": "stop"}, ({"id": "1"},))
    assert type(back.raw["reason"]) is str
