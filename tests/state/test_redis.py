from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from _forks import in_child
from _servers import Redis, polled

import perfkit
from perfkit.errors import ConfigError, StateUnavailableError
from perfkit.metrics import PerformanceTracker
from perfkit.state import RedisLink, StateHub

from .conftest import reachable


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "perfkit-state"]


def unavailable(tracker: PerformanceTracker) -> int:
    return int(tracker.get_stats("state_unavailable").get("sum", 0))


def test_commands_pipelines_and_scripts_are_answered(link: RedisLink) -> None:
    key = link.key("a", 1)
    assert key == "perfkit:a:1"
    assert link.call("SET", key, b"\x00x") in (b"OK", True, "OK")
    assert link.call("GET", key) == b"\x00x"
    assert link.pipeline([("GET", key), ("GET", "absent")]) == [b"\x00x", None]
    twice = link.script("return {ARGV[1], redis.call('GET', KEYS[1])}")
    assert twice([key], ["y"]) == [b"y", b"\x00x"]
    link.call("SCRIPT", "FLUSH")
    assert twice([key], ["y"]) == [b"y", b"\x00x"]
    assert threads() == []


def test_connection_that_the_server_closed_is_not_used_again(link: RedisLink, tracker: PerformanceTracker) -> None:
    count = link.script("return redis.call('INCR', KEYS[1])")
    assert count(["n"]) == 1
    link.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert count(["n"]) == 2
    assert unavailable(tracker) == 0


def test_a_refused_command_is_no_outage(link: RedisLink) -> None:
    link.call("SET", "text", "x")
    with pytest.raises(StateUnavailableError, match="ResponseError"):
        link.call("INCR", "text")
    assert link.available
    assert link.call("GET", "text") == b"x"


def test_full_server_refuses_writes_and_answers_reads(redis: Redis, link: RedisLink) -> None:
    link.call("SET", "before", "x")
    link.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StateUnavailableError):
        link.call("SET", "more", "y")
    assert link.call("GET", "before") == b"x"
    assert link.available


def test_killed_server_is_asked_once_and_found_again(
    redis: Redis, link: RedisLink, tracker: PerformanceTracker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "perfkit.state")
    redis.kill()
    for _ in range(100):
        with pytest.raises(StateUnavailableError):
            link.call("GET", "x")
    assert not link.available
    assert unavailable(tracker) == 100
    redis.start()
    polled(lambda: link.available)
    assert reachable(link)
    polled(lambda: threads() == [])
    assert [record.message.split(",")[0] for record in caplog.records] == [
        f"Redis at {redis.path} is away",
        f"Redis at {redis.path} is back",
    ]


def test_silent_server_costs_one_timeout(
    redis: Redis, tracker: PerformanceTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = RedisLink(redis.url, tracker=tracker)
    polled(lambda: reachable(link))
    redis.signal(signal.SIGSTOP)
    asked = []
    connect = link._connect
    main = threading.get_ident()

    def counted() -> object:
        if threading.get_ident() == main:
            asked.append(1)
        return connect()

    monkeypatch.setattr(link, "_connect", counted)
    try:
        for _ in range(20):
            with pytest.raises(StateUnavailableError):
                link.call("GET", "x")
        assert len(asked) == 1
    finally:
        redis.signal(signal.SIGCONT)
    polled(lambda: link.available)
    link.close()


@pytest.fixture
def babbler() -> Iterator[str]:
    """Answer whatever comes with garbage."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                    with peer:
                        peer.recv(1000)
                        peer.sendall(b"\x00\xffHTTP/1.1 400 what\r\n\r\n" * 3)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_garbage_is_an_outage(babbler: str, tracker: PerformanceTracker) -> None:
    link = RedisLink(babbler, tracker=tracker)
    with pytest.raises(StateUnavailableError):
        link.call("GET", "x")
    assert not link.available
    link.close()
    assert threads() == []


def test_nothing_listens_there(tracker: PerformanceTracker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    link = RedisLink(f"redis://user:sesame@127.0.0.1:{port}", tracker=tracker)
    with pytest.raises(StateUnavailableError) as caught:
        link.call("GET", "x")
    assert "sesame" not in str(caught.value) + repr(link)
    link.close()


def test_messages_reach_all_links(redis: Redis, link: RedisLink, tracker: PerformanceTracker) -> None:
    other = RedisLink(redis.url, timeout=5.0, tracker=tracker)
    heard: list[bytes] = []
    ready = threading.Event()
    channel = link.key("channel")
    end = other.subscribe(channel, heard.append, ready.set)
    assert ready.wait(10)
    second = threading.Event()
    end_second = other.subscribe("later", lambda _: second.set(), ready.clear)
    polled(lambda: not ready.is_set())
    link.publish(channel, b"1")
    link.publish("later", b"2")
    assert second.wait(10)
    assert heard == [b"1"]
    assert len(threads()) == 1
    end()
    end_second()
    polled(lambda: threads() == [])


def test_a_gap_is_told_after_a_restart(redis: Redis, link: RedisLink) -> None:
    heard: list[bytes] = []
    gaps: list[int] = []
    link.subscribe("channel", heard.append, lambda: gaps.append(1))
    polled(lambda: gaps == [1])
    redis.kill()
    redis.start()
    polled(lambda: len(gaps) > 1)
    link.publish("channel", b"again")
    polled(lambda: heard == [b"again"])


def test_forgotten_owner_hears_nothing_and_a_failing_one_disturbs_nobody(link: RedisLink) -> None:
    class Owner:
        def hear(self, data: bytes) -> None:
            heard.append(b"owner " + data)

    heard: list[bytes] = []
    ready = threading.Event()
    owner = Owner()
    link.subscribe("channel", owner.hear)
    link.subscribe("channel", lambda data: heard.append(data[99]))  # type: ignore[arg-type]
    link.subscribe("channel", heard.append, ready.set)
    assert ready.wait(10)
    link.publish("channel", b"1")
    polled(lambda: b"1" in heard)
    del owner
    link.publish("channel", b"2")
    polled(lambda: b"2" in heard)
    assert heard == [b"owner 1", b"1", b"2"]


def test_who_joins_others_in_a_channel_is_told_of_a_gap_before_messages_come_and_the_others_are_not(
    link: RedisLink,
) -> None:
    told: list[Any] = []
    link.subscribe("channel", lambda data: told.append(("first", data)), lambda: told.append("first"))
    polled(lambda: told == ["first"])
    link.subscribe("channel", lambda data: told.append(("second", data)), lambda: told.append("second"))
    polled(lambda: told == ["first", "second"])
    link.publish("channel", b"1")
    polled(lambda: len(told) == 4)
    assert told == ["first", "second", ("first", b"1"), ("second", b"1")]


def test_child_uses_connections_of_its_own(link: RedisLink) -> None:
    heard = threading.Event()
    ready = threading.Event()
    link.subscribe("channel", lambda _: heard.set(), ready.set)
    assert ready.wait(10)

    def child() -> bool:
        ready.clear()
        return bool(link.call("SET", "from", "child")) and ready.wait(10)

    assert in_child(child)
    assert link.call("GET", "from") == b"child"
    link.publish("channel", b"")
    assert heard.wait(10)


def test_sixteen_threads_get_their_own_answers(link: RedisLink) -> None:
    def ask(number: int) -> bool:
        link.call("SET", f"n{number}", number)
        return all(link.call("GET", f"n{number}") == str(number).encode() for _ in range(20))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(16)))


def test_hub_follows_the_configuration(redis: Redis) -> None:
    hub = StateHub.instance()
    assert repr(hub) == "StateHub(None)"
    perfkit.configure(state={"url": redis.url, "prefix": "shop"})
    link = hub.redis
    assert link is not None
    assert link.key("x") == "shop:x"
    perfkit.configure(state={"url": f"sqlite:///{redis.path.parent / 'state.db'}"})
    assert repr(hub).startswith("StateHub(SqliteFile")
    with pytest.raises(ConfigError, match="redis://"):
        perfkit.configure(state={"url": "http://localhost"})
    assert repr(hub).startswith("StateHub(SqliteFile")


def test_password_of_the_address_is_never_shown() -> None:
    from perfkit.config import Config

    rows = Config({"state": {"url": "redis://user:sesame@host:1/0"}}).explain()
    assert [row["value"] for row in rows if row["setting"] == "state.url"] == ["redis://***@host:1/0"]
