from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _forks import in_child
from _servers import Redis, polled

from perfkit.alerts.seat import FileSeat, LocalSeat, RedisSeat, Seat
from perfkit.state import RedisLink


@pytest.fixture(params=["file", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Seat]]:
    """Return what makes seats of one application, as its processes have them."""
    if request.param == "file":
        yield lambda: FileSeat(tmp_path / "made" / "here")
        return
    redis: Redis = request.getfixturevalue("redis")
    links: list[RedisLink] = []

    def build() -> Seat:
        links.append(RedisLink(redis.url, timeout=2.0))
        return RedisSeat(links[-1], 60.0, FileSeat(tmp_path))

    yield build
    for link in links:
        link.close()


def test_one_has_the_seat_until_it_leaves(make: Callable[[], Seat]) -> None:
    first, second = make(), make()
    assert [first.take(), second.take(), first.take()] == [True, False, True]
    second.leave()
    assert second.take() is False
    first.leave()
    assert [second.take(), first.take()] == [True, False]


def test_notes_are_for_all(make: Callable[[], Seat]) -> None:
    first, second = make(), make()
    assert second.read() is None
    first.take()
    first.write({"alerts": [1, "ü"]})
    assert second.read() == {"alerts": [1, "ü"]}


def test_a_forked_child_does_not_have_the_parents_seat_nor_free_it(make: Callable[[], Seat]) -> None:
    first = make()
    first.take()

    def work() -> bool:
        first.renew()
        return first.take()

    assert in_child(work) is False
    assert make().take() is False


def test_the_seat_of_a_killed_process_is_free(tmp_path: Path) -> None:
    seat = FileSeat(tmp_path)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        FileSeat.take(seat)
        os.write(writer, b"x")
        signal.pause()
    os.read(reader, 1)
    assert seat.take() is False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert seat.take() is True
    seat.leave()


def test_a_seat_in_redis_that_is_not_renewed_is_free_after_a_while(redis: Redis, tmp_path: Path) -> None:
    link = RedisLink(redis.url, timeout=2.0)
    first, second = (RedisSeat(link, 60.0, LocalSeat()) for _ in range(2))
    assert first.take()
    assert not second.take()
    assert 0 < link.call("PTTL", link.key("alerts", "seat")) <= 60_000
    link.call("PEXPIRE", link.key("alerts", "seat"), 1)  # as if a minute had gone by
    polled(second.take)
    assert not first.take()
    link.close()


def test_while_redis_is_away_one_process_of_the_host_has_the_seat(redis: Redis, tmp_path: Path) -> None:
    link = RedisLink(redis.url, timeout=2.0)
    first, second = (RedisSeat(link, 60.0, FileSeat(tmp_path)) for _ in range(2))
    assert [first.take(), second.take()] == [True, False]
    first.write({"alerts": []})
    redis.kill()
    assert [first.take(), second.take(), first.take()] == [True, False, True]
    first.write({"alerts": [1]})
    assert second.read() == {"alerts": [1]}
    first.leave()
    assert second.take() is True
    link.close()


def test_a_directory_that_cannot_be_made_means_nobody_watches(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    seat: Any = FileSeat(tmp_path / "file")
    assert seat.take() is False
    assert seat.read() is None
    seat.write({})
