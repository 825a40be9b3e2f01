"""Moments at which somebody could be left asleep, made to happen."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any

import pytest

from perfkit.agents import belt as module
from perfkit.agents.batch import _Work
from perfkit.agents.belt import Belt


def belt_of(items: Any = (), room: int = 1) -> Belt[Any]:
    return Belt(items, room, lambda: None)


def take(belt: Belt[Any]) -> Any:
    """Return the next item as a worker on long calls gets it."""
    for number, item in belt.take():
        belt.taken = number + 1
        return number, item
    return None


def get(belt: Belt[Any], until: float | None = None) -> Any:
    """Return the next result as the reader gets it."""
    while True:
        try:
            return belt.results.popleft()
        except IndexError:
            belt.listen(until)


def put(belt: Belt[Any], result: object, *, brief: bool = False) -> None:
    belt.results.append(result)
    belt.tell(brief=brief)


def leave(belt: Belt[Any]) -> None:
    belt.left += 1
    belt.wake()


class Meddled(deque[Any]):
    """A deque at one of whose steps something else happens just before."""

    def __init__(self, method: str, happens: Callable[[], object]) -> None:
        super().__init__()
        self._method, self._happens = method, [happens]

    def _meddle(self, method: str) -> None:
        if method == self._method and self._happens:
            self._happens.pop()()

    def append(self, item: Any) -> None:
        self._meddle("append")
        super().append(item)

    def popleft(self) -> Any:
        try:
            return super().popleft()
        except IndexError:
            self._meddle("popleft")
            raise


def test_a_result_that_comes_while_the_reader_lies_down_is_seen() -> None:
    belt = belt_of()
    belt.results = Meddled("popleft", lambda: put(belt, "late"))
    assert get(belt, time.monotonic() + 5) == "late"


def test_room_made_while_a_worker_lies_down_is_seen() -> None:
    belt = belt_of(itertools.count())
    take(belt)
    belt._resting = Meddled("append", lambda: leave(belt))
    taken: list[Any] = []
    worker = threading.Thread(target=lambda: taken.append(take(belt)), daemon=True)
    worker.start()
    worker.join(5)
    assert taken == [(1, 1)]


def test_a_worker_that_rests_wakes_the_reader_who_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUIET", 5.0)
    belt, quiet = belt_of(range(100)), list[bool]()
    put(belt, "brief", brief=True)
    get(belt)
    monkeypatch.setattr(belt, "_hurry", lambda *, brief: quiet.append(brief))

    def work() -> None:
        while not belt.over:
            for number, item in belt.take():
                belt.taken = number + 1
                put(belt, item, brief=True)
        put(belt, None, brief=True)
        belt._ring()

    worker = threading.Thread(target=work)
    worker.start()
    for number in range(100):
        assert get(belt) == number
        belt.left = number + 1
    worker.join(10)
    assert quiet == []  # nobody had to wake by himself


def test_a_reader_sleeps_when_no_result_comes_after_brief_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    belt, looks = belt_of(), itertools.count()
    listen = belt.listen

    def noted(until: float | None) -> None:
        next(looks)
        listen(until)

    monkeypatch.setattr(belt, "listen", noted)
    put(belt, "brief", brief=True)
    assert get(belt) == "brief"
    with pytest.raises(Empty):
        get(belt, time.monotonic() + 0.6)
    assert next(looks) == 2  # one doze, one sleep


def test_an_iterator_is_never_entered_by_two_threads() -> None:
    pause = threading.Event()

    def items() -> Iterator[int]:
        for n in range(6):
            pause.wait(0.005)
            yield n

    belt, taken = belt_of(items(), room=10), list[Any]()
    workers = [threading.Thread(target=lambda: taken.extend(iter(lambda: take(belt), None))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(10)
    assert sorted(taken) == [(n, n) for n in range(6)]


class Turning(Belt[Any]):
    """A belt where something happens just after it was first asked whether calls are brief."""

    happens: Callable[[], object] | None = None

    @property
    def brief(self) -> bool:
        answer, happens = self._brief, self.happens
        if happens is not None:
            self.happens = None
            happens()
        return answer

    @brief.setter
    def brief(self, value: bool) -> None:
        self._brief = value


def test_calls_that_become_brief_while_the_reader_lies_down_wake_it() -> None:
    belt = Turning((), 1, lambda: None)
    belt.happens = lambda: belt.tell(brief=True)
    belt.listen(time.monotonic() + 5)  # raises Empty, had nobody rung


def test_a_result_is_there_before_a_worker_asks_whether_to_tell_of_it() -> None:
    work: _Work[int, int] = _Work(abs, [], window=4, rate=None)
    belt, there = Turning((), 4, lambda: None), list[int]()
    belt.brief, belt.happens, work.belt = True, lambda: there.append(len(belt.results)), belt
    work._work([(0, -1)])
    assert there == [1]
