"""Private trackers that end with the test, and a UDP peer."""

from __future__ import annotations

import select
import socket
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
