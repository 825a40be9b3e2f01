"""True deadlines: each wait on a socket is given what is left of the call, so that dripping bytes win nothing.

The timeouts of the socket module, and of every client built on it, start anew with each byte received; a reply that
drips takes for ever. Here the reader under a reply sets the socket's timeout before every receive.
"""

from __future__ import annotations

import io
import math
import select
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from perfkit._process.forks import undivided
from perfkit.clock import SYSTEM_CLOCK
from perfkit.transport import kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer, TypeVar

    T = TypeVar("T")

__all__ = ["BoundedReader", "Limits"]

BUFFER = 16 * 1024  # bytes; a TLS record
_real = SYSTEM_CLOCK.now  # the kernel's time, whatever clock the deadline is of
_LONGEST = 86_400.0  # seconds of one wait; sockets refuse 25 days
_EXACTLY = 0.03  # seconds at the end of a wait that are not left to the kernel's ticks
_EARLY = 0.9  # of a wait: the kernel need not be told anew when the next is a little shorter
_SLACK = 0.001  # seconds a timeout may differ from what was asked for; setting it is a system call


class Limits:
    """What the call that now has a connection may spend on it; belongs to that one call's thread.

    Attributes:
        deadline: clock time the whole call ends, None when the socket's own timeout rules (a urllib3 handle).
        silence: most seconds of one wait for bytes.
        heard: whether a byte of the reply has come.
        patience: seconds the kernel has been told to wait for bytes; nan where it does not wait.
        tickets: whether the next bytes may be session tickets of TLS, for which OpenSSL locks.
    """

    __slots__ = ("deadline", "heard", "now", "patience", "silence", "tickets")

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.deadline: float | None = None
        self.silence = 0.0
        self.heard = False
        self.patience = math.nan
        self.tickets = False

    def arm(self, now: Callable[[], float], deadline: float, silence: float) -> None:
        """Begin a call, whose clock may be another than the pool's."""
        self.now, self.deadline, self.silence, self.heard = now, deadline, silence, False

    def wait(self, most: float) -> float:
        """Return how many seconds the next wait may take: `most`, or what is left when that is less.

        Raises:
            TimeoutError: nothing is left.
        """
        left = min(most, _LONGEST) if self.deadline is None else min(self.deadline - self.now(), most, _LONGEST)
        if left <= 0.0:
            raise TimeoutError("no time is left")
        return left

    def bound(self, sock: Any, most: float) -> None:
        """Let the next wait on `sock` end after `most` seconds, or with the call; sooner where the kernel waits.

        Raises:
            TimeoutError: nothing is left.
        """
        wait, set_to = self.wait(most), sock.gettimeout()
        if set_to == 0.0:
            self.patience = (wait - _EXACTLY) * _EARLY
            kernel.wait_at_most(sock, self.patience)
        elif set_to is None or not -_SLACK < wait - set_to < _SLACK:
            sock.settimeout(wait)

    def receive(self, sock: Any, take: Callable[[Any], T], room: Any) -> T:
        """Return `take(room)`, a receive of `sock`, once something is there or the peer has ended.

        Raises:
            TimeoutError: the deadline, or the longest silence, has passed.
        """
        end = _real() + self.silence
        while True:
            wait = self.wait(end - _real()) - _EXACTLY
            if not wait * 0.5 <= self.patience <= wait:
                self.bound(sock, end - _real())
            if self.tickets and sock.gettimeout() != 0.0:
                return self.receive_gated(sock, take, room)
            if self.tickets or self.patience < _EXACTLY:
                return self._receive_exactly(sock, take, room, end)
            try:
                return take(room)
            except kernel.NOT_YET:  # its wait is over; or TLS: what came was a ticket, or half a record
                continue

    def receive_gated(self, sock: Any, take: Callable[[Any], T], room: Any) -> T:
        """Return `take(room)` within the timeout that `sock` has, no fork dividing what OpenSSL does of it.

        Raises:
            TimeoutError: it has passed.
        """
        taken = kernel.in_steps(sock, lambda: take(room))
        self.tickets = False
        return taken

    def _receive_exactly(self, sock: Any, take: Callable[[Any], T], room: Any, end: float) -> T:
        with kernel.not_blocking(sock):
            while True:
                with suppress(*kernel.NOT_YET), undivided():
                    taken = take(room)
                    self.tickets = False
                    return taken
                kernel.is_ready(sock, select.POLLIN, self.wait(end - _real()))


class BoundedReader(io.RawIOBase):
    """The socket as a raw file for `io.BufferedReader`, within the connection's limits.

    Args:
        sock: connected socket.
        limits: the connection's.
        ahead: what has been received already.
        hold: keep the socket open until this is closed, even if its connection closes before (http.client closes
            the connection of a reply that ends with it as soon as the head is read).

    Attributes:
        at_end: whether the peer has ended.
    """

    def __init__(self, sock: Any, limits: Limits, ahead: bytes = b"", *, hold: bool = False) -> None:
        self._sock = sock
        self._ahead = ahead
        self._limits = limits
        self._hold = sock.makefile("rb", 0) if hold else None
        self._ended = False
        self.at_end = False

    def makefile(self, _mode: str = "rb") -> io.BufferedReader:
        """Return the buffered file of one reply: what http.client asks of a socket."""
        return io.BufferedReader(self, BUFFER)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Buffer) -> int | None:
        """Receive what has arrived, waiting for at least one byte; 0 is the end, None after `end()`.

        Raises:
            TimeoutError: the deadline, or the longest silence, has passed.
        """
        if self._ended:
            return None
        if self._ahead:
            return self._take_ahead(memoryview(buffer))
        limits, sock = self._limits, self._sock
        count: int
        if limits.deadline is not None:
            count = limits.receive(sock, sock.recv_into, buffer)
        else:
            count = limits.receive_gated(sock, sock.recv_into, buffer) if limits.tickets else sock.recv_into(buffer)
        limits.heard |= count > 0
        self.at_end = not count
        return count

    def _take_ahead(self, buffer: memoryview) -> int:
        piece, self._ahead = self._ahead[: len(buffer)], self._ahead[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def end(self) -> None:
        """Receive nothing more, so that looking into the buffer above cannot block."""
        self._ended = True

    def close(self) -> None:
        """Let go of the socket."""
        if self._hold is not None:
            self._hold.close()
        super().close()
