"""Private trackers that end with the test, a UDP peer, and code run in a forked child."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Udp:
    """A daemon's socket on a loopback port."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**21)
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def datagrams(self, wait: float = 0.0) -> list[bytes]:
        """Return what has come in; on loopback it is there when the sender's call returns."""
        found: list[bytes] = []
        while select.select([self.socket], [], [], 0.0 if found else wait)[0]:
            found.append(self.socket.recv(65536))
        return found

    def lines(self, wait: float = 0.0) -> list[bytes]:
        return b"\n".join(self.datagrams(wait)).splitlines()


@pytest.fixture
def udp() -> Iterator[Udp]:
    peer = Udp()
    yield peer
    peer.socket.close()


@pytest.fixture
def make(clock: FakeClock) -> Iterator[Callable[..., PerformanceTracker]]:
    """Make trackers on the fake clock."""
    made: list[PerformanceTracker] = []

    def build(**settings: Any) -> PerformanceTracker:
        made.append(PerformanceTracker(**{"clock": clock, **settings}))
        return made[-1]

    yield build
    for tracker in made:
        tracker.close()


@pytest.fixture
def tracker(make: Callable[..., PerformanceTracker]) -> PerformanceTracker:
    return make()


@pytest.fixture
def in_child() -> Callable[[Callable[[], Any]], Any]:
    """Fork, run a function in the child and return its JSON-able result; a child that hangs fails the test."""

    def run(work: Callable[[], Any]) -> Any:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
            pid = os.fork()
        if pid == 0:
            try:
                result = work()
            except BaseException as error:
                result = f"{type(error).__name__}: {error}"
            os.write(writer, json.dumps(result).encode())
            os._exit(0)
        os.close(writer)
        hung = not select.select([reader], [], [], 20)[0]
        if hung:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reader, "rb") as pipe:
            assert not hung, "the child hangs"
            return json.loads(pipe.read())

    return run
