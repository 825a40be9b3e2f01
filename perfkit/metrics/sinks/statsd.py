"""Plain StatsD over UDP: the dialect every daemon reads, sent without ever making the caller wait.

Written here and not left to the `statsd` package because that one resolves and opens its socket in the constructor,
raises on non-ASCII names, lets a newline in a name inject metrics, sends one datagram a value and keeps the socket
across fork. For the same metric the lines are the same, byte for byte. Timers travel in milliseconds, as the protocol
says; other distributions, for which plain StatsD has no type (`|h` is counted as a counter by the original daemon),
travel as timers of their own unit, as hashicorp/go-metrics does. Tags become part of the name, sorted.
"""

from __future__ import annotations

import math
import re
import socket
import threading
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.metrics.sinks import Kind

__all__ = ["StatsdSink"]

_DATAGRAM = 1432  # bytes that pass any Ethernet path in one piece (daemon's documentation, "Multi-Metric Packets")
_NAME = 512  # bytes of a name, so that every line fits
_BATCH = 16  # lines put into datagrams together: less than one of them holds
_HEADS = 8192  # names remembered
_WAITING = 64  # datagrams kept while the host's address is not known
_FRESH = 300.0  # seconds an address is believed
_RETRY = 10.0  # seconds between look-ups that fail
_PATIENCE = 1.0  # seconds close() waits for an address
_WHOLE = 2.0**53  # below it floats without a fraction are written as integers
_TYPES = {"timing": b"ms", "value": b"ms", "counter": b"c", "gauge": b"g"}

_clean_name = re.compile(r"[^A-Za-z0-9_.-]").sub
_clean_part = re.compile(r"[^A-Za-z0-9_-]").sub  # a dot would begin a new level of the hierarchy


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host", "host:port" or "[::1]:port"; the port defaults to 8125.

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]/]+))(?::(\d{1,5}))?", address)
    port = int(match[3] or 8125) if match is not None else 0
    if match is None or not 0 < port < 2**16:
        raise ConfigError(f"metrics.statsd must be host:port, not {address!r}", key="metrics.statsd")
    return match[1] or match[2], port


class StatsdSink:
    """Sends each value as a line, several lines a datagram; what cannot be sent is dropped and counted.

    Args:
        address: "host:port" of the daemon; IPv6 in brackets. Looked up on a thread of its own, again every 5 minutes.
        prefix: first part of every name, may be empty.
        clock: None means the system's.

    Attributes:
        dropped: lines lost since construction, in this process.
        sent: datagrams handed to the kernel.
    """

    def __init__(self, address: str = "127.0.0.1:8125", *, prefix: str = "perfkit", clock: Clock | None = None) -> None:
        self._host, self._port = split_address(address)
        self._prefix = _clean_name("_", prefix.rstrip(".")) + "." if prefix else ""
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._heads: dict[Any, bytes] = {}
        self._socket: socket.socket | None = None
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards all below, except appending to _lines
        self._lines: list[bytes] = []
        self._datagram: list[bytes] = []  # lines of the one being filled
        self._size = 0  # bytes of it, with a newline after each line
        self._full: list[list[bytes]] = []  # lines of those to be sent
        self._address: Any = None
        self._family = socket.AF_UNSPEC
        self._look_up_at = 0.0  # clock reading
        self._resolver: threading.Thread | None = None
        self.dropped = 0
        self.sent = 0
        self._disconnect()

    def emit(self, kind: Kind, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Queue one line, and send once a datagram is full."""
        lines, lock = self._lines, self._lock
        lines.append(self._line(kind, name, value, tags))
        if len(lines) >= _BATCH and lock.acquire(blocking=False):  # else the next line or flush takes them along
            try:
                self._pack()
                self._ship()
            finally:
                lock.release()

    def flush(self) -> None:
        """Send what is waiting, unless the address is still being looked up: then that thread sends it."""
        with self._lock:
            self._pack()
            self._complete()
            self._look_up()
            self._ship()

    def close(self) -> None:
        """Send what is waiting and close the socket, within a second; a later `flush` opens a new one."""
        self.flush()
        resolver = self._resolver
        if resolver is not None:
            resolver.join(_PATIENCE)
        with self._lock:
            self._keep(0)
            self._disconnect()

    # --- lines

    def _line(self, kind: Kind, name: str, value: float, tags: Mapping[str, str]) -> bytes:
        """Return the line of a value, nothing when the daemon would not take it."""
        head = self._heads.get((name, *tags.items())) or self._head(name, tags)
        if kind == "timing":
            value *= 1000
            return b"%s:%.6f|ms" % (head, value) if 0 <= value < math.inf else b""
        if not math.isfinite(value) or (value < 0 and kind == "value"):
            return b""
        text = b"%d" % value if value == int(value) and abs(value) < _WHOLE else repr(value).encode()
        if kind == "gauge" and value < 0:  # a sign means "change by" to the daemon: set to zero first
            return b"%s:0|g\n%s:%s|g" % (head, head, text)
        return b"%s:%s|%s" % (head, text, _TYPES[kind])

    def _head(self, name: str, tags: Mapping[str, str]) -> bytes:
        parts = [_clean_part("_", part) or "_" for pair in sorted(tags.items()) for part in pair]
        head = ".".join([self._prefix + (_clean_name("_", name) or "_"), *parts])[:_NAME].encode()
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        self._heads[name, *tags.items()] = head
        return head

    # --- datagrams; the lock is held

    def _pack(self) -> None:
        lines = self._lines[:]
        del self._lines[: len(lines)]  # others may have appended since
        for line in lines:
            if not line:
                self.dropped += 1
                continue
            if self._size + len(line) > _DATAGRAM:
                self._complete()
            self._datagram.append(line)
            self._size += len(line) + 1

    def _complete(self) -> None:
        if self._datagram:
            self._full.append(self._datagram)
            self._datagram, self._size = [], 0

    def _keep(self, newest: int) -> None:
        excess = len(self._full) - newest
        if excess > 0:
            self.dropped += sum(map(len, self._full[:excess]))
            del self._full[:excess]

    def _ship(self) -> None:
        if self._address is None:
            self._keep(_WAITING)
            return
        for lines in self._full:
            self._send(lines)
        self._full.clear()

    def _send(self, lines: list[bytes]) -> None:
        try:
            if self._socket is None:
                self._socket = socket.socket(self._family, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(b"\n".join(lines), self._address)
            self.sent += 1
        except OSError:  # a full send buffer, no route, no more file descriptors: metrics are not worth waiting for
            self.dropped += len(lines)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- address; the lock is held, except in the thread

    def _look_up(self) -> None:
        if self._resolver is not None or self._clock.now() < self._look_up_at:
            return
        numeric = self._addresses(socket.AI_NUMERICHOST)
        if numeric:
            self._found(numeric)
            return
        self._resolver = threading.Thread(target=self._resolve, name="perfkit-statsd-resolver", daemon=True)
        try:
            self._resolver.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            self._resolver = None

    def _resolve(self) -> None:
        found = self._addresses()
        with self._lock:
            self._resolver = None
            self._found(found)
            self._ship()

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
            self._disconnect()
            self._family = family

    def __repr__(self) -> str:
        return f"StatsdSink({self._host}:{self._port}, {self.sent} datagrams sent, {self.dropped} lines dropped)"
