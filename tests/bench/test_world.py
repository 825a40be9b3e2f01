"""The simulated world: time, waiting, and code that blocks side by side."""

from __future__ import annotations

from queue import Empty
from typing import Any

import pytest

from perfkit.bench.world import Event, Pool, Queue, World


def run(world: World, *works: Any) -> None:
    for work in works:
        world.spawn(work)
    world.run()


def test_sleepers_wake_in_the_order_of_time_and_the_clock_jumps() -> None:
    world, seen = World(), list[Any]()

    def sleeper(seconds: float) -> None:
        world.sleep(seconds)
        seen.append((seconds, world.now()))

    for seconds in (3.0, 1.0, 86_400.0, 2.0):
        world.spawn(sleeper, seconds)
    world.run()
    assert seen == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (86_400.0, 86_400.0)]
    assert world.wall() - World().wall() == 86_400.0


def test_those_of_the_same_moment_go_in_the_order_they_came() -> None:
    world, seen = World(), list[Any]()
    for number in range(5):
        world.spawn(seen.append, number, after=1.0)
    world.run()
    assert seen == [0, 1, 2, 3, 4]


def test_an_event_lets_all_go_on_and_a_wait_may_end_before() -> None:
    world, seen = World(), list[tuple[bool, float]]()
    event = Event(world)

    def waiter(timeout: float | None) -> None:
        seen.append((event.wait(timeout), world.now()))

    def setter() -> None:
        world.sleep(2.0)
        event.set()
        seen.append((event.is_set(), world.now()))

    world.spawn(waiter, None)
    world.spawn(waiter, 1.0)
    world.spawn(waiter, 5.0)
    run(world, setter)
    assert seen == [(False, 1.0), (True, 2.0), (True, 2.0), (True, 2.0)]
    assert world.now() == 2.0  # nobody waits for the last timeout


def test_a_queue_hands_each_item_to_one_and_gives_up_in_time() -> None:
    world, seen = World(), list[Any]()
    queue = Queue(world)

    def taker(timeout: float | None) -> None:
        try:
            seen.append((queue.get(timeout=timeout), world.now()))
        except Empty:
            seen.append(("empty", world.now()))

    def putter() -> None:
        world.sleep(1.0)
        queue.put("a")
        queue.put("b")

    world.spawn(taker, 0.5)
    world.spawn(taker, None)
    world.spawn(taker, 9.0)
    run(world, putter)
    assert seen == [("empty", 0.5), ("a", 1.0), ("b", 1.0)]
    assert queue.empty()
    with pytest.raises(Empty):
        queue.get_nowait()


def test_a_pool_works_beside_the_one_who_asks() -> None:
    world, seen = World(), list[Any]()
    pool = Pool(world)

    def work() -> None:
        world.sleep(1.0)
        seen.append("worked")

    def asks() -> None:
        pool.submit(work)
        seen.append("asked")

    run(world, asks)
    pool.shutdown()
    assert seen == ["asked", "worked"]


def test_what_fails_in_the_world_is_seen_outside() -> None:
    world = World()

    def broken() -> None:
        world.sleep(1.0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run(world, broken)
