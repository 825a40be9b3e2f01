"""Forget streams in reference cycles while the collector runs at any line of busy threads; a program to run.

It ends with "done" once every stream has been closed at the provider and nothing is held any more. A finalizer that
waits for a lock its own thread holds stops it for ever.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from collections.abc import Callable

import perfkit
from perfkit.testing import FaultServer, faults, isolated

THREADS, ROUNDS, PATIENCE = 8, 12, 20.0
DEPTH = 40  # allocations that a call may make with a lock held


class Box:
    """Garbage that only the collector finds."""

    def __init__(self, stream: perfkit.ChatStream) -> None:
        self.itself = self
        self.stream = stream


def ask(user: str) -> None:
    perfkit.chat("hi", provider="whole", user=user)


def count(user: str) -> None:
    perfkit.optimizer.track_usage("shop", "tiny", perfkit.Usage(1, 1), user=user)
    perfkit.optimizer.budgets()
    perfkit.optimizer.get_usage_report()


def look(user: str) -> None:
    perfkit.router.health()
    perfkit.tracker.get_stats("provider_latency")
    perfkit.cache.set({"of": user}, [user])
    perfkit.connections.stats()


STEPS = (look, count, ask)


def drop_one(user: str) -> None:
    stream = perfkit.stream("one two", provider="streams", user=user)
    next(stream)
    Box(stream)


def forget_before_each_allocation() -> None:
    """Let the collector find a stream at the first, second, third ... allocation of each call."""
    for depth in range(1, DEPTH + 1):
        for step in STEPS:
            gc.disable()
            drop_one(f"{step.__name__}.{depth}")
            gc.set_threshold(gc.get_count()[0] + depth, 1000, 1000)
            gc.enable()
            step(f"of {depth}")
    gc.set_threshold(700, 10, 10)


def forget(number: int, errors: list[BaseException]) -> None:
    chance = random.Random(number)
    try:
        for turn in range(ROUNDS):
            drop_one(f"{number}.{turn}")
            gc.set_threshold(chance.randrange(1, 120), 1, 1)
            for step in STEPS:
                step(f"{number}.{turn}")
    except BaseException as error:
        errors.append(error)


def collect(stop: threading.Event) -> None:
    while not stop.wait(0.01):
        gc.collect()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, (perfkit.router.health(), perfkit.connections.stats())
        time.sleep(0.02)


def idle() -> bool:
    """Return whether no attempt, slot or money is held."""
    held = [row["held"] for row in perfkit.optimizer.budgets()]
    in_use = [row["in_use"] for row in perfkit.connections.stats().values()]
    in_flight = [row["in_flight"] for row in perfkit.router.health().values()]
    return not any((*held, *in_use, *in_flight))


def forget_in_threads() -> None:
    errors: list[BaseException] = []
    stop = threading.Event()
    threads = [threading.Thread(target=forget, args=(number, errors), daemon=True) for number in range(THREADS)]
    collector = threading.Thread(target=collect, args=(stop,), daemon=True)
    for thread in (*threads, collector):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    collector.join()
    assert errors == [], errors
    gc.set_threshold(700, 10, 10)


if __name__ == "__main__":
    with FaultServer() as whole, FaultServer() as endless:
        endless.behave(faults.ok("word " * 2000, interval=0.01))
        kinds = {"kind": "openai", "api_key": "k"}
        servers = {"whole": {**kinds, "base_url": whole.base_url}, "streams": {**kinds, "base_url": endless.base_url}}
        with isolated(
            providers=servers,
            client={"default_model": "tiny"},
            connections={"maxsize": 1000},
            tokens={"prices": {"tiny": {"input": 1.0, "output": 1.0}}},
        ):
            perfkit.optimizer.set_budget(("user", "*"), 1000, "day")
            gc.freeze()  # so that whole collections are quick
            forget_before_each_allocation()
            forget_in_threads()
            gc.collect()
            until(idle)
            forgotten, asked = len(STEPS) * DEPTH + THREADS * ROUNDS, DEPTH + THREADS * ROUNDS
            endless.wait_until(lambda counters: counters["aborted_by_client"] == forgotten)
            report = perfkit.optimizer.get_usage_report()["default"]["tiny"]
            assert report["request_count"] == forgotten + asked, report
    sys.stdout.write("done\n")
