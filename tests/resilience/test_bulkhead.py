from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from perfkit.resilience import Bulkhead, GradientLimit


def waiting(bulkhead: Bulkhead, number: int) -> None:
    done = threading.Event()
    for _ in range(2000):
        if bulkhead.waiting == number:
            return
        done.wait(0.005)
    raise AssertionError(repr(bulkhead))


def test_no_more_than_the_limit_are_inside() -> None:
    bulkhead = Bulkhead(4, max_waiting=64)
    most, lock, inside = 0, threading.Lock(), 0

    def work(_: int) -> None:
        nonlocal most, inside
        assert bulkhead.enter(20)
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
        bulkhead.leave()

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(2000)))
    assert 1 <= most <= 4
    assert (bulkhead.inside, bulkhead.waiting) == (0, 0)


def test_a_full_queue_refuses_at_once_and_a_slow_one_in_time() -> None:
    bulkhead = Bulkhead(1, max_waiting=1)
    assert bulkhead.try_enter()
    assert not bulkhead.try_enter()
    assert not bulkhead.enter(0.01)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(bulkhead.enter, 20)
        waiting(bulkhead, 1)
        assert bulkhead.full
        assert not bulkhead.enter(20)  # returns at once: there is no place in the queue
        bulkhead.leave()
        assert second.result(10)
    assert bulkhead.inside == 1
    bulkhead.leave()
    assert not bulkhead.busy


def test_places_go_in_the_order_of_arrival() -> None:
    bulkhead, order, lock = Bulkhead(1, max_waiting=8), [], threading.Lock()
    assert bulkhead.try_enter()

    def enter(number: int) -> None:
        assert bulkhead.enter(20)
        with lock:
            order.append(number)
        bulkhead.leave()

    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(enter, number)
            waiting(bulkhead, number + 1)
        assert not bulkhead.try_enter()  # nobody overtakes
        bulkhead.leave()
    assert order == list(range(8))


def test_a_place_handed_over_while_time_runs_out_is_kept_or_given_on() -> None:
    bulkhead = Bulkhead(2, max_waiting=64)

    def brief(_: int) -> int:
        if not bulkhead.enter(0.0005):
            return 0
        bulkhead.leave()
        return 1

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(brief, range(3000))) > 0
    assert (bulkhead.inside, bulkhead.waiting) == (0, 0)


def test_the_gradient_falls_when_calls_queue_and_rises_again() -> None:
    limit = GradientLimit(start=20)
    for _ in range(200):
        limit.sample(0.1, limit.limit)
    grown = limit.limit
    assert grown > 20
    for _ in range(50):
        limit.sample(1.0, limit.limit)
    assert limit.limit < grown / 2
    for _ in range(600):
        limit.sample(0.1, limit.limit)
    assert limit.limit > grown / 2


def test_the_gradient_stays_where_it_is_while_there_is_room() -> None:
    limit = GradientLimit(start=20)
    for _ in range(100):
        limit.sample(0.1, 3)
    assert limit.limit == 20


def test_refusals_lower_the_gradient_within_bounds() -> None:
    gradient = GradientLimit(start=20, least=2)
    bulkhead = Bulkhead(gradient, max_waiting=0)
    for _ in range(60):
        assert bulkhead.try_enter()
        bulkhead.leave(refused=True)
    assert bulkhead.limit == 2
    assert repr(bulkhead) == "<Bulkhead 0 of 2 inside, 0 of 0 waiting>"


@pytest.mark.parametrize("found", [15, 40])
def test_the_gradient_finds_about_the_capacity_of_the_other_side(found: int) -> None:
    gradient, inside = GradientLimit(start=10, most=200), 0.0
    for _ in range(3000):
        inside = gradient.limit
        gradient.sample(0.1 * max(1.0, inside / found), int(inside))  # beyond its capacity calls queue there
    assert found <= gradient.limit <= found * 3


def test_a_forked_child_forgets_who_was_inside() -> None:
    bulkhead = Bulkhead(1, max_waiting=1)
    assert bulkhead.try_enter()
    bulkhead._after_fork()
    assert bulkhead.try_enter()
