"""What an exception from outside leaves behind, wherever in taking, using and giving back a connection it comes."""

from __future__ import annotations

import gc
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from _servers import polled
from transport.interruption import Interruption
from transport.peers import descriptors

import perfkit.transport
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient, client, connection, exchange, hosts, slots, stream
from perfkit.transport.hosts import HostPool

POOL = [module.__file__ for module in (slots, hosts)]
CALL = [module.__file__ for module in (slots, hosts, exchange, connection, stream, client)]
SIZE = 2


def take_and_give(_: HTTPClient, pool: HostPool) -> None:
    pool.give(pool.take(1.0))


def take_and_open(_: HTTPClient, pool: HostPool) -> None:
    taken = pool.take(1.0)
    try:
        if taken.sock is None:
            pool.open(taken)
    finally:
        pool.give(taken)


def take_and_drop(_: HTTPClient, pool: HostPool) -> None:
    pool.give(pool.take(1.0), keep=False)


def call(client: HTTPClient, _: HostPool) -> None:
    client.post("/echo", {"a": 1})


def read_a_stream(client: HTTPClient, _: HostPool) -> None:
    with client.stream("/chat/completions", {"model": "m", "messages": [], "stream": True}) as stream:
        for event in stream.events():
            if event.data == "[DONE]":
                break


def leave_a_stream(client: HTTPClient, _: HostPool) -> None:
    with client.stream("/chat/completions", {"model": "m", "messages": [], "stream": True}) as stream:
        next(stream.events())


def use_a_handle(client: HTTPClient, pool: HostPool) -> None:
    pool.request("GET", "/health", retries=False)


@pytest.fixture
def pair(fault: FaultServer) -> Iterator[tuple[HTTPClient, HostPool]]:
    connections = ConnectionPool(proxy="", maxsize=SIZE)
    made = HTTPClient(fault.base_url, connections=connections, retries=0, timeout=10)
    made.post("/echo", {})
    (pool,) = connections._hosts.values()
    yield made, pool
    connections.close()


def at_rest(pool: HostPool, _step: int) -> bool:
    """Tell whether no slot is used or waited for, after an interruption at a step, which a failure names."""
    in_use, _, waiting = pool.pool.counts()
    return not pool.pool._lock.locked() and (in_use, waiting) == (0, 0)


WAYS: list[tuple[Callable[[HTTPClient, HostPool], None], list[str | None]]] = [
    (take_and_give, POOL),
    (take_and_open, POOL),
    (take_and_drop, POOL),
    (use_a_handle, POOL),
    (call, CALL),
    (read_a_stream, CALL),
    (leave_a_stream, CALL),
]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # between being made and being known to anybody
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # where a finalizer is interrupted
@pytest.mark.parametrize(("way", "files"), WAYS, ids=[way.__name__ for way, _ in WAYS])
def test_exception_at_any_place_loses_no_slot_and_no_descriptor(
    pair: tuple[HTTPClient, HostPool], way: Callable[..., None], files: list[Any]
) -> None:
    client, pool = pair
    before = descriptors()
    for step in itertools.count():
        interruption = Interruption(step, *files)
        interruption.during(lambda: way(client, pool))
        perfkit._process.deferred.run()
        polled(partial(at_rest, pool, step))  # the background thread may be the one that gives back
        assert pool.pool.counts()[1] <= SIZE, step
        if not interruption.came:
            break
    assert step > 10
    gc.collect()
    assert descriptors() <= before + SIZE
    taken = [pool.take(0.0) for _ in range(SIZE)]  # none too many, none too few
    assert (pool.pool.counts()[0], len(set(map(id, taken)))) == (SIZE, SIZE)
    for each in taken:
        pool.give(each)


@pytest.mark.parametrize("part", ["head", "body"])
def test_signal_handler_that_raises_ends_a_wait_for_bytes(
    any_client: HTTPClient, any_fault: FaultServer, any_connections: ConnectionPool, part: str
) -> None:
    """Ctrl-C, or the alarm of a server that ends requests that take too long."""

    class Alarm(BaseException): ...

    def ring(*_: object) -> None:
        raise Alarm

    def alarm(thread: int) -> None:
        any_fault.wait_until(lambda counters: counters["held"] == 1)
        signal.pthread_kill(thread, signal.SIGALRM)

    any_fault.behave(faults.stall(after_bytes=0 if part == "head" else 400))
    before = signal.signal(signal.SIGALRM, ring)
    watch = threading.Thread(target=alarm, args=(threading.get_ident(),))
    watch.start()
    try:
        with pytest.raises(Alarm):
            any_client.post("/chat/completions", {"model": "m", "messages": []}, timeout=20)
        watch.join()
    finally:
        signal.signal(signal.SIGALRM, before)
    (stats,) = any_connections.stats().values()
    assert (stats["in_use"], stats["idle"]) == (0, 0)
    any_fault.wait_until(lambda counters: counters["aborted_by_client"] == 1)
