"""The way of a datagram: where the daemon is, by UDP or a Unix socket, and a send that never waits.

A host's address is looked up on a thread of its own, and again every 5 minutes, since daemons move; a numeric one needs
no thread. The socket is never connected: a daemon that is away, stopped or started again is then no error of ours.
"""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING, Any

from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.clock import Clock

__all__ = ["Wire", "split_address"]

_FRESH = 300.0  # seconds an address is believed
_RETRY = 10.0  # seconds between look-ups that fail
_UDP = 1432  # bytes that pass any Ethernet path in one piece (StatsD's documentation, "Multi-Metric Packets")
_UNIX = 8192  # bytes that the Datadog Agent takes at once by default (`dogstatsd_buffer_size`)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host", "host:port" or "[::1]:port"; the port defaults to 8125.

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]/]+))(?::(\d{1,5}))?", address)
    port = int(match[3] or 8125) if match is not None else 0
    if match is None or not 0 < port < 2**16:
        raise ConfigError(f"metrics.statsd must be host:port or unix:///path, not {address!r}", key="metrics.statsd")
    return match[1] or match[2], port


class Wire:
    """One daemon's address and the socket to it; its owner holds a lock, except while a look-up runs in its thread.

    Args:
        address: "host:port", "udp://host:port" or "unix:///path".
        clock: tells how old the address is.

    Attributes:
        size: bytes that a datagram should have at most.
    """

    def __init__(self, address: str, clock: Clock) -> None:
        self._clock = clock
        self._path = address.removeprefix("unix://") if address.startswith("unix:///") else ""
        self._host, self._port = ("", 0) if self._path else split_address(address.removeprefix("udp://"))
        self.size = _UNIX if self._path else _UDP
        self._socket: socket.socket | None = None
        self.renew()

    def renew(self) -> None:
        """Start anew in a forked child; the parent's socket is let go of."""
        self._address: Any = self._path or None
        self._family = socket.AF_UNIX if self._path else socket.AF_UNSPEC
        self._look_up_at = 0.0  # clock reading
        self._resolver: threading.Thread | None = None
        self.disconnect()

    @property
    def ready(self) -> bool:
        """Whether the address is known."""
        return self._address is not None

    def send(self, datagram: bytes) -> bool:
        """Hand a datagram to the kernel.

        Returns:
            False when it is lost: no such socket, no route, no more file descriptors.

        Raises:
            BlockingIOError: there is no room for it now.
        """
        try:
            if self._socket is None:
                self._socket = socket.socket(self._family, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(datagram, self._address)
        except BlockingIOError:
            raise
        except OSError:
            return False
        return True

    def disconnect(self) -> None:
        """Close the socket; the next datagram opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def look_up(self, lock: threading.Lock, arrived: Callable[[], None]) -> None:
        """See that the address is fresh; where that takes time, `arrived` is called under `lock` once it is known."""
        if self._path or self._resolver is not None or self._clock.now() < self._look_up_at:
            return
        numeric = self._addresses(socket.AI_NUMERICHOST)
        if numeric:
            self._found(numeric)
            return
        work = (lock, arrived)
        self._resolver = threading.Thread(target=self._resolve, args=work, name="perfkit-statsd-resolver", daemon=True)
        try:
            self._resolver.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            self._resolver = None

    def wait(self, seconds: float) -> None:
        """Give a look-up that is running some time to end; the lock must not be held."""
        resolver = self._resolver
        if resolver is not None:
            resolver.join(seconds)

    def _resolve(self, lock: threading.Lock, arrived: Callable[[], None]) -> None:
        found = self._addresses()
        with lock:
            self._resolver = None
            self._found(found)
            arrived()

    def _addresses(self, flags: int = 0) -> list[Any]:
        try:
            return socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM, flags=flags)
        except (OSError, UnicodeError):
            return []

    def _found(self, addresses: list[Any]) -> None:
        """Use an IPv4 address if there is one, since "localhost" may name ::1 first and daemons listen on 127.0.0.1."""
        self._look_up_at = self._clock.now() + (_FRESH if addresses else _RETRY)
        if not addresses:
            return  # an old address is better than none
        family, _, _, _, self._address = min(addresses, key=lambda found: found[0] != socket.AF_INET)
        if family != self._family:
            self.disconnect()
            self._family = family

    def __repr__(self) -> str:
        return self._path or f"{self._host}:{self._port}"
