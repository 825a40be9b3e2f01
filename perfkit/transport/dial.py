"""Dialling: the addresses of a name race, as RFC 8305 (Happy Eyeballs) has it.

Where one family of addresses is a black hole, every common sync client waits for its whole connect timeout, with each
new connection. Here the next address is begun a quarter of a second after the one before it, or at once when that one
has failed, and the first to answer is taken. No thread is needed for it: the sockets do not block.
"""

from __future__ import annotations

import errno
import math
import os
import selectors
import socket
from collections import deque
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.transport.lookup import addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["SOCKET_OPTIONS", "Dialled", "dial"]

ATTEMPT_DELAY = 0.25  # seconds, RFC 8305 section 5
_SHORTEST = 0.001  # seconds; 0 would mean not to wait at all


def _socket_options() -> list[tuple[int, int, int | bytes]]:
    """Return what makes a dead peer noticed after 30 s: unacknowledged data, and probes from 15 s of silence on."""
    options: list[tuple[int, int, int | bytes]] = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    tcp = {"TCP_KEEPIDLE": 15, "TCP_KEEPALIVE": 15, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 5, "TCP_USER_TIMEOUT": 30_000}
    return options + [
        (socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in tcp.items() if hasattr(socket, name)
    ]


SOCKET_OPTIONS = _socket_options()


class Dialled(NamedTuple):
    """A connected socket.

    Attributes:
        sock: its timeout is what was left of the time.
        round_trip: seconds from the first packet to the answer.
    """

    sock: socket.socket
    round_trip: float


def dial(address: tuple[str, int], seconds: float | None, now: Callable[[], float]) -> Dialled:
    """Connect to the address of a name that answers first.

    Args:
        address: host and port.
        seconds: for the name and all its addresses together, None for no end.
        now: the clock.

    Raises:
        TimeoutError: none answered in time.
        OSError: the name is unknown, or all its addresses refuse; the error is that of the last.
    """
    host, port = address
    end = math.inf if seconds is None else now() + seconds
    race = _Race(_alternating(addresses(host.strip("[]"), port, seconds)), end, now)
    try:
        won = race.run(host)
    finally:
        race.close()
    won.sock.settimeout(None if seconds is None else max(_SHORTEST, end - now()))
    return won


def _alternating(found: list[Any]) -> Iterable[Any]:
    """Return addresses with their families taking turns, the system's favourite first (RFC 8305 section 4)."""
    favourites = [entry for entry in found if entry[0] == found[0][0]]
    others = [entry for entry in found if entry[0] != found[0][0]]
    return [entry for entry in chain(*zip_longest(favourites, others)) if entry is not None]


class _Race:
    """The attempts of one dialling; `close` ends those that have not won."""

    def __init__(self, found: Iterable[Any], end: float, now: Callable[[], float]) -> None:
        self._waiting = deque(found)
        self._end = end
        self._now = now
        self._running: dict[socket.socket, float] = {}  # to the time it began
        self._selector = selectors.DefaultSelector()
        self._failed: OSError | None = None

    def run(self, host: str) -> Dialled:
        while self._waiting or self._running:
            if self._waiting:
                self._begin(*self._waiting.popleft())
            if self._running and (won := self._first()) is not None:
                return won
        raise OSError(f"{host} has no address") if self._failed is None else self._failed

    def _begin(self, family: int, kind: int, protocol: int, _: str, target: Any) -> None:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a family this machine does not have
            self._failed = error
            return
        self._running[sock] = self._now()
        try:
            for option in SOCKET_OPTIONS:
                sock.setsockopt(*option)
            sock.setblocking(False)
            status = sock.connect_ex(target)
        except OSError as error:
            self._fail(sock, error)
            return
        self._selector.register(sock, selectors.EVENT_WRITE)
        if status not in (0, errno.EINPROGRESS):
            self._fail(sock, OSError(status, os.strerror(status)))

    def _first(self) -> Dialled | None:
        """Wait for one to answer; None when it is the next one's turn.

        Raises:
            TimeoutError: no time is left.
        """
        left = self._end - self._now()
        wait = min(left, ATTEMPT_DELAY) if self._waiting else left
        ready = self._selector.select(None if wait == math.inf else max(0.0, wait))
        if not ready and wait == left:
            raise TimeoutError("no address answered")
        for key, _ in ready:
            sock: socket.socket = key.fileobj  # type: ignore[assignment]  # what was registered
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status == 0:
                self._selector.unregister(sock)
                return Dialled(sock, self._now() - self._running.pop(sock))
            self._fail(sock, OSError(status, os.strerror(status)))
        return None

    def _fail(self, sock: socket.socket, error: OSError) -> None:
        self._failed = error
        del self._running[sock]
        if sock in self._selector.get_map():
            self._selector.unregister(sock)
        sock.close()

    def close(self) -> None:
        self._selector.close()
        for sock in self._running:
            sock.close()
