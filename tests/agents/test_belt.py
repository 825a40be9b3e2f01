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
from perfkit.agents.belt import END, Belt


def belt_of(items: Any = (), room: int = 1) -> Belt[Any]:
    return Belt(items, room, lambda: None)


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
    belt._results = Meddled("popleft", lambda: belt.put("late"))
    assert belt.get(time.monotonic() + 5) == "late"


def test_room_made_while_a_worker_lies_down_is_seen() -> None:
    belt = belt_of(itertools.count())
    belt.take()
    belt._resting = Meddled("append", belt.left)
    taken: list[Any] = []
    worker = threading.Thread(target=lambda: taken.append(belt.take()), daemon=True)
    worker.start()
    worker.join(5)
    assert taken == [(1, 1)]


def test_a_worker_that_rests_wakes_the_reader_who_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUIET", 5.0)
    belt, quiet = belt_of(range(100)), list[bool]()
    belt.put("brief", brief=True)
    belt.get(None)
    monkeypatch.setattr(belt, "_hurry", lambda *, brief: quiet.append(brief))

    def work() -> None:
        while (item := belt.take()) is not END:
            belt.put(item, brief=True)
        belt.put(None, brief=True)
        belt._ring()

    worker = threading.Thread(target=work)
    worker.start()
    for number in range(100):
        assert belt.get(None) == (number, number)
        belt.left()
    worker.join(10)
    assert quiet == []  # nobody had to wake by himself


def test_a_reader_sleeps_when_no_result_comes_after_brief_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    belt, looks = belt_of(), itertools.count()
    listen = belt._listen

    def noted(until: float | None) -> None:
        next(looks)
        listen(until)

    monkeypatch.setattr(belt, "_listen", noted)
    belt.put("brief", brief=True)
    assert belt.get(None) == "brief"
    with pytest.raises(Empty):
        belt.get(time.monotonic() + 0.1)
    assert next(looks) == 2  # one doze, one sleep


def test_an_iterator_is_never_entered_by_two_threads() -> None:
    pause = threading.Event()

    def items() -> Iterator[int]:
        for n in range(6):
            pause.wait(0.005)
            yield n

    belt, taken = belt_of(items(), room=10), list[Any]()
    workers = [threading.Thread(target=lambda: taken.extend(iter(belt.take, END))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(10)
    assert sorted(taken) == [(n, n) for n in range(6)]
