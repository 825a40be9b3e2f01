from __future__ import annotations

import math
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from perfkit.clock import SYSTEM_CLOCK
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient, kernel
from perfkit.transport.limits import Limits

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        with ours, theirs:
            yield ours, theirs


def within(seconds: float, silence: float = math.inf) -> Limits:
    limits = Limits(SYSTEM_CLOCK.now)
    limits.arm(SYSTEM_CLOCK.now, SYSTEM_CLOCK.now() + seconds, silence)
    return limits


def test_warm_call_asks_the_kernel_for_nothing_but_to_send_and_receive(
    fault: FaultServer, connections: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, asked = HTTPClient(fault.base_url, connections=connections, retries=0), list[Any]()
    client.post("/echo", {})
    monkeypatch.setattr(kernel, "is_ready", lambda *_: asked.append("poll"))
    monkeypatch.setattr(kernel, "hand_over", lambda *_: asked.append("modes"))
    told = [client.post("/echo", {}).status for _ in range(3)]
    assert (told, asked) == ([200] * 3, [] if sys.platform == "linux" else asked)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere poll tells")
@pytest.mark.parametrize("what", ["bytes", "end", "reset"])
def test_at_rest_is_only_who_is_there_and_has_sent_nothing(pair: Pair, what: str) -> None:
    ours, theirs = pair
    assert kernel.at_rest(ours)
    if what == "bytes":
        theirs.send(b"unasked")
    elif what == "end":
        theirs.shutdown(socket.SHUT_WR)
    else:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
    assert kernel.is_ready(ours, 1, 10.0)
    assert not kernel.at_rest(ours)
    if what == "bytes":
        ours.recv(100)
        assert kernel.at_rest(ours)


def test_waiting_ends_with_the_deadline_or_the_longest_silence(pair: Pair) -> None:
    ours, _ = pair
    kernel.hand_over(ours)
    for seconds, silence in ((0.1, math.inf), (60.0, 0.1), (0.01, math.inf)):
        began, limits = SYSTEM_CLOCK.now(), within(seconds, silence)
        with pytest.raises(TimeoutError):
            limits.receive(ours, ours.recv, 10)
        assert SYSTEM_CLOCK.now() - began >= 0.01
        assert os.get_blocking(ours.fileno())


def test_waiting_does_not_end_before_its_time_because_the_kernel_was_told_to_wait_less(pair: Pair) -> None:
    class Unmoved(Limits):
        def bound(self, _sock: Any, most: float) -> None:
            self.wait(most)

    ours, theirs = pair
    kernel.hand_over(ours)
    kernel.wait_at_most(ours, 0.03)
    limits = Unmoved(SYSTEM_CLOCK.now)
    limits.arm(SYSTEM_CLOCK.now, SYSTEM_CLOCK.now() + 10.0, math.inf)
    answer = threading.Timer(0.1, theirs.send, (b"late",))
    answer.start()
    assert limits.receive(ours, ours.recv, 10) == b"late"
    answer.join()


def test_hundred_calls_tell_the_kernel_once_how_long_to_wait(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair
    kernel.hand_over(ours)
    told, tell = list[float](), kernel.wait_at_most

    def noted(sock: Any, seconds: float) -> None:
        told.append(seconds)
        tell(sock, seconds)

    monkeypatch.setattr(kernel, "wait_at_most", noted)
    limits = Limits(SYSTEM_CLOCK.now)
    for call in range(100):
        theirs.send(b"x")
        limits.arm(SYSTEM_CLOCK.now, SYSTEM_CLOCK.now() + 30.0 - call / 100, math.inf)
        limits.receive(ours, ours.recv, 10)
    assert len(told) == 1
    assert told[0] < 29.0


class _Foreign(socket.socket):
    """Stands for the sockets of gevent and the like, which wait in their own way."""


def test_sockets_that_are_not_the_standard_librarys_keep_their_own_timeouts() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, _Foreign(fileno=ours.dup().detach()) as foreign:
        foreign.settimeout(5.0)
        kernel.hand_over(foreign)
        assert foreign.gettimeout() == 5.0
        limits = within(0.5)
        with pytest.raises(TimeoutError):
            limits.receive(foreign, foreign.recv, 10)
        assert 0.0 < (foreign.gettimeout() or 0.0) <= 0.5
        assert not kernel.at_rest(foreign)


def test_socket_handed_back_waits_without_end(pair: Pair) -> None:
    ours, theirs = pair
    kernel.hand_over(ours)
    kernel.wait_at_most(ours, 0.001)
    ours.settimeout(None)
    kernel.hand_back(ours)
    answer = threading.Timer(0.1, theirs.send, (b"late",))
    answer.start()
    assert ours.recv(10) == b"late"
    answer.join()
