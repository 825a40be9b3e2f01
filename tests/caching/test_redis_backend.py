"""Two processes, or two caches that stand for them, over a real Redis that is killed, silenced, filled and spoiled."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from _parts import needs_module
from _servers import Redis, environment, polled

from perfkit._process import background
from perfkit.caching.backends import redis as redis_module
from perfkit.caching.backends.redis import RedisBackend
from perfkit.caching.backends.turns import LIFE
from perfkit.caching.response import ResponseCache
from perfkit.clock import FakeClock
from perfkit.errors import BadRequestError, DeadlineExceeded, PerfkitError, StateUnavailableError
from perfkit.metrics import PerformanceTracker
from perfkit.state import RedisLink, StateHub
from perfkit.values import ChatResponse, Usage

PATIENT = {"PERFKIT_STATE__TIMEOUT": "5"}  # of other processes: a busy machine is no outage


@pytest.fixture
def make(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ResponseCache]]:
    made = []
    monkeypatch.setattr(redis_module, "PATIENCE", 5.0)  # a late subscription would drop what is in memory
    StateHub.instance().configure(timeout=5.0)  # a busy machine is no outage

    def one(**settings: Any) -> ResponseCache:
        cache = ResponseCache(backend="redis", tracker=PerformanceTracker(), **{"url": redis.url, **settings})
        made.append(cache)
        return cache

    yield one
    for cache in made:
        cache.close()


Make = Callable[..., ResponseCache]


def backend(cache: ResponseCache) -> RedisBackend:
    assert isinstance(cache._shelf.far, RedisBackend)
    return cache._shelf.far


def link(cache: ResponseCache) -> RedisLink:
    return backend(cache)._listening()


def test_a_second_hit_comes_from_memory(make: Make) -> None:
    one, two = make(), make()
    one.set("a", [1])
    assert two.get("a") == [1]
    link(two).call("FLUSHALL")  # behind everybody's back
    assert two.get("a") == [1]


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.set("a", 2),
        lambda cache: cache.delete("a"),
        lambda cache: cache.invalidate("a"),
        lambda cache: cache.invalidate("t*"),
        lambda cache: cache.invalidate("a*"),
        lambda cache: cache.clear(),
    ],
    ids=["set", "delete", "name", "tag by glob", "glob", "clear"],
)
def test_what_one_process_changes_leaves_the_memory_of_the_others(
    make: Make, change: Callable[[ResponseCache], Any], request: pytest.FixtureRequest
) -> None:
    one, two = make(), make()
    one.set("a", 1, tags=["t"])
    assert two.get("a") == 1
    wanted = {"set": 2, "tag by glob": 1}.get(request.node.callspec.id)  # globs are for names, not for tags
    change(one)
    polled(lambda: two.get("a") == wanted, 5)


def test_only_its_own_keys_are_removed(make: Make) -> None:
    cache = make()
    others = ["mine", "perfkit:cache", "perfkit:cache:x", "perfkit:cache::entryx", "perfkit:other:key:a"]
    for key in others:
        link(cache).call("SET", key, "x")
    cache.set("a", 1, tags=["t"])
    assert cache.invalidate("*") == 1
    cache.clear()
    assert link(cache).call("EXISTS", *others) == len(others)


def test_neither_keys_nor_flush_is_ever_sent(make: Make) -> None:
    cache = make()
    cache.set("a", 1, tags=["t"])
    cache.get("b", lambda: 2)
    cache.invalidate("t")
    cache.invalidate("*")
    cache.clear()
    sent = link(cache).call("INFO", "commandstats")
    sent = sent if isinstance(sent, dict) else {line.split(":")[0]: 1 for line in sent.decode().split()}
    assert "cmdstat_zscan" in sent
    assert not [name for name in sent if name.removeprefix("cmdstat_") in ("keys", "scan", "flushall", "flushdb")]


def test_every_value_ends_with_its_time(make: Make) -> None:
    cache = make(ttl=60, stale_ttl=30)
    cache.set("a", 1, tags=["t"])
    names = [
        name for name in link(cache).call("SCAN", 0, "COUNT", 1000)[1] if not name.endswith((b":epoch:", b":index:"))
    ]
    assert len(names) == 2
    for name in names:
        assert 80_000 < link(cache).call("PTTL", name) <= 90_000


def test_an_evicted_epoch_makes_everything_unreadable_and_nothing_wrong(make: Make) -> None:
    one, two = make(), make()
    one.set("a", "old")
    one.clear()
    one.set("b", 1)
    link(one).call("DEL", backend(one)._key(link(one), "epoch"))
    assert two.get("b") is None
    one.set("b", 2)
    assert two.get("b") == 2
    assert two.get("a") is None


@pytest.mark.parametrize("evicted", [("index",), ("tag", "t")])
@pytest.mark.parametrize("wanted", ["t", "a*"])
def test_what_cannot_be_found_to_invalidate_is_not_served(make: Make, evicted: tuple[str, ...], wanted: str) -> None:
    one, two = make(), make()
    one.set("a", "old", tags=["t"])
    link(one).call("DEL", backend(one)._key(link(one), *evicted))  # as Redis does where memory is short
    one.invalidate(wanted)
    assert two.get("a") is None
    one.set("b", 1, tags=["t"])
    assert make().get("b") == 1
    assert one.invalidate("t") >= 1  # what nobody can read any more may still be found


def test_what_was_stored_before_an_index_was_evicted_is_not_served_afterwards(make: Make) -> None:
    one = make()
    one.set("a", "old")
    link(one).call("DEL", backend(one)._key(link(one), "index"))
    one.set("b", 1)
    assert make().get("a") is None
    assert make().get("b") == 1


def test_the_index_holds_what_is_there_and_no_more(make: Make) -> None:
    cache = make()

    def indexed() -> set[bytes]:
        return set(link(cache).call("ZRANGE", backend(cache)._key(link(cache), "index"), 0, -1))

    cache.set("short", 1, ttl=0.001, tags=["t"])
    cache.set("a", 1, ttl=60)
    polled(lambda: link(cache).call("EXISTS", backend(cache)._key(link(cache), "entry", "key:short")) == 0)
    cache.set("b", 1, ttl=60, scope="user 1")
    assert {name.rpartition(b":")[2] for name in indexed()} == {b"", b"a", b"b"}
    assert cache.invalidate("b") == 1
    cache.delete("a")
    assert indexed() == {b""}


def test_garbage_is_a_miss_and_is_replaced(make: Make) -> None:
    cache = make()
    cache.set("other", 1)
    for number, spoil in enumerate([b"", b"\x80garbage", b"pk1j{}"]):
        epoch = link(cache).call("GET", backend(cache)._key(link(cache), "epoch"))
        link(cache).call("SET", backend(cache)._key(link(cache), "entry", f"key:k{number}"), epoch + spoil)
        assert cache.get(f"k{number}", lambda: "fresh") == "fresh"
        assert make().get(f"k{number}") == "fresh"
    link(cache).call("LPUSH", backend(cache)._key(link(cache), "entry", "key:list"), "x")
    assert cache.get("list", lambda: "fresh") == "fresh"


def test_a_full_redis_still_serves_and_memory_takes_what_it_cannot(redis: Redis, make: Make) -> None:
    cache = make()
    cache.set("before", 1)
    link(cache).call("CONFIG", "SET", "maxmemory", "1")
    link(cache).call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert cache.get("a", lambda: "answer") == "answer"
    assert cache.get("a") == "answer"
    assert make().get("before") == 1


def test_a_killed_redis_fails_no_call_and_one_that_is_back_is_used(redis: Redis, make: Make) -> None:
    cache, other = make(), make()
    assert cache.get("a", lambda: 1) == 1
    redis.kill()
    for number in range(20):
        assert cache.get(f"key{number}", lambda: "answer") == "answer"
        assert cache.get(f"key{number}") == "answer"
    assert cache.invalidate("key1*") == 11
    redis.start()
    polled(lambda: link(cache).available and link(other).available)
    cache.set("b", 2)
    polled(lambda: other.get("b") == 2, 5)


def test_copies_are_dropped_when_messages_may_have_been_missed(redis: Redis, make: Make) -> None:
    cache = make()
    cache.set("a", 1)
    assert cache.get("a") == 1
    redis.kill()
    assert cache.get("a") == 1
    redis.start()
    polled(lambda: cache.get("a") is None, 5)


def test_a_silent_redis_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_module("redis")
    asked, connect = [], RedisLink._connect

    def counted(link: RedisLink) -> Any:
        asked.append(threading.current_thread())
        return connect(link)

    monkeypatch.setattr(RedisLink, "_connect", counted)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        cache = ResponseCache(backend="redis", url=url, tracker=PerformanceTracker())
        assert [cache.get(f"k{number}", lambda: 1) for number in range(200)] == [1] * 200
        cache.close()
    assert asked.count(threading.current_thread()) <= 1  # the listener's thread goes on asking


def test_a_refused_redis_costs_nothing() -> None:
    needs_module("redis")
    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    cache = ResponseCache(backend="redis", url=f"redis://127.0.0.1:{port}", tracker=PerformanceTracker())
    assert [cache.get(f"k{number}", lambda: 1) for number in range(50)] == [1] * 50
    assert not link(cache).available
    cache.close()


WORKER = """
import sys, threading, time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from perfkit.caching.backends import redis
from perfkit.caching.response import ResponseCache
redis.PATIENCE = 10.0  # seconds: what is stored before it listens is dropped
url, directory, key = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
cache = ResponseCache(backend="redis", url=url)
cache.get("warm", lambda: 1)
(directory / f"ready{sys.argv[4]}").touch()
while not (directory / "go").exists():
    time.sleep(0.002)
def load():
    with (directory / "calls").open("a") as file:
        file.write("x")
    time.sleep(0.3)
    return "answer"
with ThreadPoolExecutor(16) as pool:
    assert set(pool.map(lambda _: cache.get(key, load), range(16))) == {"answer"}
"""


def test_4_processes_of_16_threads_make_one_call(redis: Redis, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, redis.url, str(tmp_path), "key"]
    workers = [subprocess.Popen([*command, str(number)], env=environment(**PATIENT)) for number in range(4)]
    polled(lambda: all((tmp_path / f"ready{number}").exists() for number in range(4)))
    (tmp_path / "go").touch()
    assert [worker.wait(30) for worker in workers] == [0] * 4
    assert (tmp_path / "calls").read_text() == "x"


def test_a_dead_leader_is_followed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perfkit.caching.backends.turns.LIFE", 0.4)
    one, two = make(), make()
    one.get("warm", lambda: 1)
    turn = backend(one).turns.take("key:key", None)  # type: ignore[union-attr]
    assert turn.mine
    backend(one).turns._held.clear()  # type: ignore[union-attr]  # as if its process were gone: nobody renews it
    assert two.get("key", lambda: "mine") == "mine"
    assert two.stats()["misses"] == 1


@contextmanager
def led(
    one: ResponseCache, two: ResponseCache, load: Callable[[], str]
) -> Iterator[tuple[ThreadPoolExecutor, Future[str], threading.Event]]:
    """Have `one` load a key, which ends once the event is set; to it, `two` is another process."""
    loads, go = threading.Event(), threading.Event()
    two.get("warm", lambda: 1)

    def load_then() -> str:
        loads.set()
        assert go.wait(10)
        return load()

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(one.get, "key", load_then)
        assert loads.wait(10)
        yield pool, leader, go


def follow(pool: ThreadPoolExecutor, two: ResponseCache, load: Callable[[], str]) -> Future[str]:
    """Ask `two` for the same key, and return once it waits."""
    turns: Any = backend(two).turns
    waits, wait = threading.Event(), turns._wait

    def waiting(*what: Any) -> Any:
        waits.set()
        return wait(*what)

    turns._wait = waiting
    follower: Future[str] = pool.submit(two.get, "key", load)
    assert waits.wait(10)
    return follower


def failing(error: Exception, calls: list[int]) -> Callable[[], str]:
    def fail() -> str:
        calls.append(1)
        raise error

    return fail


def test_a_turn_is_renewed_while_its_owner_computes(make: Make) -> None:
    one, two = make(), make()
    with led(one, two, lambda: "answer") as (pool, leader, go):
        follower = follow(pool, two, lambda: pytest.fail("a second call"))
        [turn] = backend(one).turns._held  # type: ignore[union-attr]
        link(one).call("PEXPIRE", turn, int(800 * LIFE))
        polled(lambda: link(one).call("PTTL", turn) > 800 * LIFE)
        go.set()
        assert (leader.result(10), follower.result(10)) == ("answer", "answer")


@pytest.mark.parametrize("error", [BadRequestError("no", status=400, provider="p"), LookupError("odd")])
def test_an_error_of_perfkit_is_shared_with_other_processes_and_any_other_is_not(make: Make, error: Exception) -> None:
    one, two, calls = make(), make(), list[int]()
    with led(one, two, failing(error, calls)) as (pool, leader, go):
        follower = follow(pool, two, failing(error, calls))
        go.set()
        for one_of in (leader, follower):
            caught = one_of.exception(10)
            assert type(caught) is type(error)
            assert str(caught) == str(error)
            assert vars(caught).get("status") == vars(error).get("status")
    assert len(calls) == (1 if isinstance(error, PerfkitError) else 2)


def test_who_has_more_time_than_the_leader_takes_his_turn(make: Make) -> None:
    one, two = make(), make()
    with led(one, two, failing(DeadlineExceeded("mine"), [])) as (pool, leader, go):
        follower = follow(pool, two, lambda: "answer")
        go.set()
        assert follower.result(10) == "answer"
        assert isinstance(leader.exception(10), DeadlineExceeded)


def test_a_waiter_in_another_process_gives_up_at_its_own_deadline(make: Make) -> None:
    one, two = make(), make()
    with led(one, two, lambda: "late") as (_, leader, go):
        with pytest.raises(DeadlineExceeded):
            two.get("key", lambda: 1, timeout=0.05)
        go.set()
        assert leader.result(10) == "late"


@pytest.mark.parametrize("more", [{}, {"kept": False, "error": 7}, {"error": {"type": "NetworkError"}}])
def test_what_another_version_says_of_its_turn_lets_who_waits_compute(make: Make, more: dict[str, Any]) -> None:
    one, two = make(), make()
    with led(one, two, lambda: "leader's") as (pool, leader, go):
        follower = follow(pool, two, lambda: "own")
        news = json.dumps({"from": "x", "turn": "key:key", **more})
        link(one).publish(backend(one)._channel(link(one)), news)
        assert follower.result(10) == "own"
        go.set()
        assert leader.result(10) == "leader's"


def test_redis_dying_under_a_waiter_lets_him_compute(redis: Redis, make: Make) -> None:
    one, two = make(), make()
    with led(one, two, lambda: "leader's") as (pool, leader, go):
        follower = follow(pool, two, lambda: "own")
        redis.kill()
        assert follower.result(10) == "own"
        go.set()
        assert leader.result(10) == "leader's"


def test_a_stale_answer_is_refreshed_by_one_process(make: Make, clock: FakeClock) -> None:
    one, two = (make(ttl=60, stale_ttl=60, clock=clock) for _ in range(2))
    go, calls = threading.Event(), list[int]()
    one.set("key", "old")
    assert two.get("key") == "old"
    clock.advance(61)

    def slow() -> str:
        calls.append(1)
        assert go.wait(10)
        return "new"

    assert one.get("key", slow, ttl=60) == "old"
    polled(lambda: calls)
    assert two.get("key", slow, ttl=60) == "old"
    assert two._loader.refresher.wait(10)
    go.set()
    assert one._loader.refresher.wait(10)
    polled(lambda: two.get("key", slow, ttl=60) == "new", 5)
    assert calls == [1]


def test_a_value_moved_to_another_users_key_is_not_served(make: Make) -> None:
    one, two = make(), make()
    one.set("balance", 100, scope="anna")
    one.set("balance", 1, scope="bert")
    keys = sorted(key for key in link(one).call("SCAN", 0, "COUNT", 1000)[1] if b":entry" in key)
    link(one).call("SET", keys[1], link(one).call("GET", keys[0]))
    found = {two.get("balance", scope="anna"), two.get("balance", scope="bert")}
    assert found in ({None, 100}, {None, 1})


def test_answers_of_models_come_back_whole(make: Make) -> None:
    answer = ChatResponse("hi", Usage(1, 2), "m", "p", raw={"a": [1]}, cost=0.5)
    one, two = make(), make()
    one.store("chat:x:public", answer)
    found = two.lookup("chat:x:public")
    assert found is not None
    assert found.value == answer


WRITER = """
import sys
from perfkit.caching.response import ResponseCache
cache = ResponseCache(**{"backend": sys.argv[1], "url": sys.argv[2], "max_bytes": 2**30})
for number in range(10_000):
    cache.set(f"key{number}", [number] * 50)
    print(number, flush=True)
"""


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
def test_a_writer_that_is_killed_loses_at_most_the_write_under_way(kind: str, tmp_path: Path) -> None:
    one = Redis(tmp_path) if kind == "redis" else None
    if one is not None:
        one.start()
    url = one.url if one is not None else f"sqlite:///{tmp_path}/cache.db"
    command = [sys.executable, "-c", WRITER, kind, url]
    with subprocess.Popen(command, env=environment(**PATIENT), stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) == 300:
                writer.kill()
                break
        written = 301 + len([line for line in writer.stdout if line.endswith("\n")])
    StateHub.instance().configure(timeout=5.0)
    cache = ResponseCache(backend=kind, url=url, tracker=PerformanceTracker())
    found = [cache.get(f"key{number}") for number in range(written + 2)]
    cache.close()
    if one is not None:
        one.kill()
    assert found[:written] == [[number] * 50 for number in range(written)]
    assert found[written] in (None, [written] * 50)
    assert found[written + 1] is None


def test_who_computes_is_told_of_an_invalidation_before_redis_is_looked_through(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make(), make()
    other.set("a", 1)
    before, names = other.departures, backend(one)._names

    def slow(*what: Any) -> Any:
        polled(lambda: other.departures > before, 5)
        return names(*what)

    monkeypatch.setattr(backend(one), "_names", slow)
    assert one.invalidate("a*") == 1


def test_a_value_that_would_hold_up_everybody_stays_in_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "LARGEST", 1000)
    one, other = make(), make()
    one.set("a", "small")
    assert other.get("a") == "small"
    one.set("a", "x" * 1000)
    assert one.get("a") == "x" * 1000
    polled(lambda: other.get("a") is None, 5)


def test_a_closed_cache_does_not_come_back_to_tell_redis_what_it_missed(make: Make) -> None:
    cache = make()
    cache.set("a", 1)
    link(cache).call("CONFIG", "SET", "maxmemory", "1")
    link(cache).call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    cache.set("a", 2)
    assert cache._shelf._owed.count
    sweep = weakref.WeakMethod(cache._shelf.sweep)
    assert sweep in background._jobs
    cache.close()
    assert sweep not in background._jobs


def test_an_unknown_message_harms_nobody(make: Make) -> None:
    cache = make()
    cache.set("a", 1)
    for message in (b"garbage", b"{}", json.dumps({"from": "x", "turn": "nobody's", "kept": True}).encode()):
        link(cache).publish(backend(cache)._channel(link(cache)), message)
    cache.set("b", 1)
    assert (cache.get("a"), cache.get("b")) == (1, 1)
    with pytest.raises(StateUnavailableError):
        link(cache).call("NOSUCH")
