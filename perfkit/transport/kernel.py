"""Sockets on which the kernel waits, so that one step of a call is one system call.

A socket with a timeout of Python's own asks the kernel twice for each step: whether it can be done, then to do it; and
each time the thread lets go of the interpreter and queues up for it again, which is most of what a call costs where
many threads make them. Here the descriptor blocks, and the kernel is told for how long (SO_RCVTIMEO). To Python it is a
socket that does not block, so that it raises `NOT_YET` when that time is over. The kernel counts in ticks of some
milliseconds: whoever needs to be exact ends the last of them with `not_blocking`.
"""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import struct
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from perfkit._process.forks import undivided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

__all__ = [
    "NOT_YET",
    "at_rest",
    "hand_back",
    "hand_over",
    "in_steps",
    "is_ready",
    "not_blocking",
    "only_tickets",
    "wait_at_most",
    "was_unread",
]

NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_STANDARD = ("socket", "ssl", "perfkit.transport.tls")  # modules; the sockets of others may wait in ways of their own
_TICK = 0.001  # seconds, the shortest wait; the kernel rounds up
_ESTABLISHED = 1  # linux/tcp_states.h
_ACKNOWLEDGED = slice(120, 128)  # of linux/tcp.h's tcp_info: bytes the peer has acknowledged
_SO_MEMINFO = 55  # asm-generic/socket.h: the first number is that of bytes received and not yet read


def hand_over(sock: Any) -> None:
    """Let the kernel do the waiting on `sock`, if it is the standard library's; sending hardly waits."""
    if type(sock).__module__ in _STANDARD:
        sock.settimeout(0.0)
        os.set_blocking(sock.fileno(), True)
        _set(sock, socket.SO_SNDTIMEO, _TICK)


def hand_back(sock: Any) -> None:
    """Undo it for one who waits without end."""
    _set(sock, socket.SO_SNDTIMEO, 0.0)
    _set(sock, socket.SO_RCVTIMEO, 0.0)


def wait_at_most(sock: Any, seconds: float) -> None:
    """Let a receive wait for so long."""
    _set(sock, socket.SO_RCVTIMEO, max(seconds, _TICK))


def _set(sock: Any, option: int, seconds: float) -> None:
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(seconds), int(seconds % 1.0 * 1e6)))


@contextmanager
def not_blocking(sock: Any) -> Iterator[None]:
    """Let nothing on `sock` wait within the block."""
    os.set_blocking(sock.fileno(), False)
    try:
        yield
    finally:
        os.set_blocking(sock.fileno(), True)


def is_ready(sock: Any, events: int, seconds: float) -> int:
    """Return which of `events` (select.POLLIN, POLLOUT, ends and errors) have come within so many seconds."""
    watch = select.poll()
    watch.register(sock, events)
    found = watch.poll(None if seconds == math.inf else seconds * 1000.0)
    return found[0][1] if found else 0


def in_steps(sock: ssl.SSLSocket, step: Callable[[], T]) -> T:
    """Return `step()`, tried as often as bytes come within the timeout of `sock`; no try waits, and none is divided.

    Raises:
        TimeoutError: the time is over.
    """
    timeout = sock.gettimeout()
    end = math.inf if timeout is None else time.monotonic() + timeout
    sock.settimeout(0.0)
    try:
        while True:
            try:
                with undivided():
                    return step()
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            if not is_ready(sock, events, max(0.0, end - time.monotonic())):
                raise TimeoutError(f"nothing came within {timeout} s")
    finally:
        sock.settimeout(timeout)


def at_rest(sock: Any) -> bytes:
    """Return how much the peer has acknowledged, if it is there and has sent nothing; b"" may also mean: not known.

    Unlike poll, this does not let go of the interpreter.
    """
    if sys.platform != "linux":
        return b""
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)
        unread: int = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO)
    except (OSError, AttributeError):  # TLS inside TLS is no socket
        return b""
    return info[_ACKNOWLEDGED] if info[0] == _ESTABLISHED and unread == 0 else b""


def was_unread(sock: Any, before: bytes, seconds: float | None) -> bool:
    """Return whether the peer, which has ended without a word, did so without having read what was sent to it.

    Who had closed before it came has acknowledged nothing since `at_rest` returned `before`, and answers it with a
    reset; so does who closes with bytes unread. Who has read it, and then gives up or dies, just ends.

    Args:
        sock: the connection.
        before: what `at_rest` returned.
        seconds: how long the reset may be under way; None if one would not be for what was sent.
    """
    try:
        if before and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)[_ACKNOWLEDGED] == before:
            return True
        return seconds is not None and is_ready(sock, 0, seconds) != 0
    except (OSError, ValueError, AttributeError):  # closed meanwhile
        return False


def only_tickets(sock: ssl.SSLSocket) -> bool:
    """Take in what came while idle: TLS 1.3 sends session tickets after the handshake, which are no reason to close."""
    with not_blocking(sock), undivided():
        try:
            sock.recv(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
    return False  # the end of the connection, or bytes nobody asked for
