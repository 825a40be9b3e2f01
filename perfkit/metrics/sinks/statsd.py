"""StatsD over UDP or a Unix socket, sent without ever making the caller wait.

Written here and not left to the `statsd` package because that one resolves and opens its socket in the constructor,
raises on non-ASCII names, lets a newline in a name inject metrics, has neither tags nor distributions, sends one
datagram a value and keeps the socket across fork. For the same metric the lines are the same, byte for byte. Lines are
made in `lines`, sent by `wire`; here they are gathered into datagrams, paced so that a daemon's socket buffer holds
them, and counted where they are lost.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, NamedTuple

from perfkit import _process
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import ConfigError
from perfkit.metrics.sinks.lines import FLAVORS, Dialect
from perfkit.metrics.sinks.wire import Wire
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.metrics.sinks import Kind

__all__ = ["StatsdSink"]

_BATCH = 16  # lines put into datagrams together: less than one of them holds
_WAITING = 2**20  # bytes kept while the address is not known or the daemon does not keep up
_BURST = 64.0  # datagrams sent at once: the daemon's socket buffer holds some 90 by default (Linux's rmem_default)
_PACE = 1000.0  # datagrams a second after that, some 20 000 values: what a daemon on one core reads
_PATIENCE = 1.0  # seconds close() waits for an address, and again for what is paced
_LEAST_RATE = 1e-6
_NAP = 0.02  # seconds between two bursts then


class Datagram(NamedTuple):
    """What is sent at once, and how many values would be lost with it."""

    data: bytes
    values: int


class StatsdSink:
    """Sends each value as a line, several lines a datagram; what cannot be sent is dropped and counted.

    The count of what was lost also goes to the daemon, as counter `metrics_dropped`, as soon as it can be reached.

    Args:
        address: "host:port" of the daemon, IPv6 in brackets, or "unix:///path" of its datagram socket. A host is looked
            up on a thread of its own, again every 5 minutes.
        prefix: first part of every name, may be empty.
        flavor: "statsd", which every daemon reads (timers in milliseconds, tags in the name), or "dogstatsd" (tags as
            such, distributions, seconds); further ones are registered in `perfkit.metrics.sinks.lines.FLAVORS`.
        distribution: DogStatsD's type for durations and other values: "d" (percentiles over all hosts) or "h" (made by
            the host's Agent).
        pack: several values of a series in one DogStatsD line (protocol v1.1; Agent 6.25 or 7.25 and newer).
        sample_rate: part of durations and other values that is sent, the daemon scales them up; counters are sums of
            many events already and, like gauges, always sent.
        max_datagram: bytes; None means 1432 by UDP and 8192 by Unix socket.
        clock: None means the system's.

    Attributes:
        dropped: values lost since construction, in this process.
        sent: datagrams handed to the kernel.

    Raises:
        ConfigError: an argument cannot be used.
    """

    def __init__(  # noqa: PLR0913 - the settings of one sink
        self,
        address: str = "127.0.0.1:8125",
        *,
        prefix: str = "perfkit",
        flavor: str = "statsd",
        distribution: str = "d",
        pack: bool = False,
        sample_rate: float = 1.0,
        max_datagram: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._wire = Wire(address, self._clock)
        self._dialect: Dialect = FLAVORS.get(flavor)(prefix, _checked_distribution(distribution))
        if pack and not self._dialect.packs:
            raise ConfigError(f"the {flavor} flavor cannot pack values; use flavor='dogstatsd'", key="pack")
        self._packs = pack
        self._sample_rate = _checked_rate(sample_rate)
        self._rate = f"|@{sample_rate:.9f}".rstrip("0").encode() if sample_rate < 1 else b""  # daemons read no exponent
        self._room = self._wire.size if max_datagram is None else int(finite("max_datagram", max_datagram, least=1))
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards all below and the wire, except appending to _lines
        self._lines: list[bytes] = []
        self._datagram: list[bytes] = []  # lines of the one being filled
        self._values = 0  # in it
        self._size = 0  # bytes of it, with a newline after each line
        self._full: list[Datagram] = []  # those to be sent
        self._held = 0  # bytes of them
        self._allowance = _BURST  # datagrams that may be sent now
        self._allowed_at = 0.0  # clock reading of that
        self._well = True  # whether the last one could be sent
        self._told = 0  # of those dropped
        self.dropped = 0
        self.sent = 0
        self._wire.renew()

    def emit(self, kind: Kind, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Queue one line, and send once a datagram is full."""
        rate = b""
        if self._rate and kind in ("timing", "value"):
            if random.random() >= self._sample_rate:
                return
            rate = self._rate
        lines, lock = self._lines, self._lock
        lines.append(self._dialect.line(kind, name, value, tags, rate))
        if len(lines) >= _BATCH and lock.acquire(blocking=False):  # else the next line or flush takes them along
            try:
                self._gather()
                self._ship()
            finally:
                lock.release()

    def flush(self) -> None:
        """Send what is waiting, unless the address is still being looked up: then that thread sends it."""
        with self._lock:
            self._tell()
            self._gather()
            self._complete()
            self._wire.look_up(self._lock, self._ship)
            self._ship()

    def close(self) -> None:
        """Send what is waiting and close the socket, within 2 seconds; a later `flush` opens a new one."""
        self.flush()
        self._wire.wait(_PATIENCE)
        deadline = self._clock.now() + _PATIENCE
        while self._full and self._wire.ready and self._clock.now() < deadline:
            self._clock.sleep(_NAP)
            with self._lock:
                self._ship()
        with self._lock:
            self._keep(0)
            self._wire.disconnect()

    def _tell(self) -> None:
        lost = self.dropped - self._told
        if lost and self._well and self._wire.ready:
            self._told = self.dropped
            self._lines.append(self._dialect.line("counter", "metrics_dropped", lost, {"sink": "statsd"}))

    # --- datagrams; the lock is held

    def _gather(self) -> None:
        lines = self._lines[:]
        del self._lines[: len(lines)]  # others may have appended since
        for line in lines:
            if not line:
                self.dropped += 1
            elif not self._packs or not self._packed(line):
                if self._size + len(line) > self._room:
                    self._complete()
                self._datagram.append(line)
                self._size += len(line) + 1
                self._values += 1

    def _packed(self, line: bytes) -> bool:
        """Put the value into the line before it, if that is of the same series, holds a distribution and has room."""
        if not self._datagram:
            return False
        last = self._datagram[-1]
        name, _, rest = last.partition(b":")
        values, _, ending = rest.partition(b"|")
        same_name, _, rest = line.partition(b":")
        value, _, same_ending = rest.partition(b"|")
        fits = self._size + len(value) <= self._room
        if not fits or name != same_name or ending != same_ending or ending[:1] in (b"c", b"g"):
            return False
        self._datagram[-1] = b"%s:%s:%s|%s" % (name, values, value, ending)
        self._size += 1 + len(value)
        self._values += 1
        return True

    def _complete(self) -> None:
        if self._datagram:
            self._full.append(Datagram(b"\n".join(self._datagram), self._values))
            self._held += len(self._full[-1].data)
            self._datagram, self._size, self._values = [], 0, 0

    def _keep(self, newest: int) -> None:
        """Give up all but so many bytes of what waits, the oldest first."""
        gone = 0
        while self._held > newest:
            self._held -= len(self._full[gone].data)
            self.dropped += self._full[gone].values
            gone += 1
        del self._full[:gone]

    def _ship(self) -> None:
        if self._wire.ready:
            done = 0
            try:
                for datagram in self._full[: self._allowed()]:
                    self._send(datagram)
                    self._held -= len(datagram.data)
                    done += 1
            except BlockingIOError:  # a Unix socket's queue of ten, or the kernel's buffer: later
                pass
            self._allowance -= done
            del self._full[:done]
        self._keep(_WAITING)

    def _allowed(self) -> int:
        now = self._clock.now()
        self._allowance = min(_BURST, self._allowance + (now - self._allowed_at) * _PACE)
        self._allowed_at = now
        return int(self._allowance)

    def _send(self, datagram: Datagram) -> None:
        self._well = self._wire.send(datagram.data)
        if self._well:
            self.sent += 1
        else:
            self.dropped += datagram.values

    def __repr__(self) -> str:
        return f"StatsdSink({self._wire}, {self.sent} datagrams sent, {self.dropped} values dropped)"


def _checked_distribution(letter: str) -> str:
    if letter not in ("d", "h"):
        raise ConfigError(f"distribution must be 'd' or 'h', not {letter!r}", key="distribution")
    return letter


def _checked_rate(rate: float) -> float:
    if not _LEAST_RATE <= finite("sample_rate", rate) <= 1:
        raise ConfigError(f"sample_rate must be from {_LEAST_RATE:g} to 1, not {rate!r}", key="sample_rate")
    return rate
