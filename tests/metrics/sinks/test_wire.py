from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from _servers import polled

from perfkit.errors import ConfigError
from perfkit.metrics.sinks.statsd import StatsdSink
from perfkit.metrics.sinks.wire import Wire, split_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from perfkit.clock import FakeClock


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("localhost", "localhost", 8125),
        ("statsd.example:9125", "statsd.example", 9125),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("[::1]:8126", "::1", 8126),
        ("[fe80::1%eth0]", "fe80::1%eth0", 8125),
    ],
)
def test_addresses(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)


class Resolver:
    """Stands in for the network's name service: answers when told, with what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.may_answer = threading.Event()
        self.answer: list[tuple[int, int]] = []  # family and port on loopback
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, **options: Any) -> list[Any]:
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        self.calls += 1
        self.may_answer.wait(10)
        if not self.answer:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        hosts: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
        return [(family, socket.SOCK_DGRAM, 17, "", (hosts[family], port)) for family, port in self.answer]

    def finish(self, sink: StatsdSink) -> None:
        """Let the look-up that is running end."""
        running = sink._wire._resolver
        self.may_answer.set()
        if running is not None:
            running.join(10)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver(monkeypatch)
    yield made
    made.may_answer.set()


def test_a_slow_name_service_delays_lines_but_nobody(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    resolver.answer = [(socket.AF_INET, udp.port)]
    sink = StatsdSink("statsd.example", clock=clock)
    sink.flush()
    for n in range(100):
        sink.emit("counter", f"x{n}", 1, {})
        sink.flush()
    assert polled(lambda: resolver.calls) == 1
    assert udp.lines() == []
    resolver.finish(sink)
    assert len(udp.lines()) == 64  # each flush ended a datagram: a burst of 64 goes out, the rest is paced
    sink.close()
    assert len(udp.lines()) == 36
    assert sink.dropped == 0
    sink.close()


def test_without_an_address_memory_stays_bounded_and_losses_are_counted(resolver: Resolver, clock: FakeClock) -> None:
    resolver.may_answer.set()
    sink = StatsdSink("nowhere.invalid", clock=clock)
    for n in range(20_000):
        sink.emit("counter", f"some_rather_long_name_{n}", 1, {})
    assert sum(len(datagram.data) for datagram in sink._full) + sink._size <= 2**20 + 1432
    sink.close()
    assert sink.dropped == 20_000
    assert sink._full == []


def test_a_failed_look_up_is_tried_again_after_a_while(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    sink = StatsdSink("statsd.example", clock=clock)
    sink.flush()
    resolver.finish(sink)
    sink.emit("counter", "x", 1, {})
    sink.flush()
    assert resolver.calls == 1
    resolver.answer = [(socket.AF_INET, udp.port)]
    clock.advance(10)
    sink.flush()
    resolver.finish(sink)
    assert udp.lines() == [b"perfkit.x:1|c"]
    sink.close()


def test_the_address_is_looked_up_again_every_five_minutes(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    resolver.may_answer.set()
    resolver.answer = [(socket.AF_INET, 1)]
    sink = StatsdSink("statsd.example", clock=clock)
    sink.flush()
    resolver.finish(sink)
    clock.advance(299)
    sink.flush()
    assert resolver.calls == 1
    resolver.answer = [(socket.AF_INET, udp.port)]
    clock.advance(1)
    sink.flush()
    resolver.finish(sink)
    assert resolver.calls == 2
    sink.emit("counter", "x", 1, {})
    sink.flush()
    assert udp.lines() == [b"perfkit.x:1|c"]
    resolver.answer = []  # the name service fails: the old address stays in use
    clock.advance(300)
    sink.flush()
    resolver.finish(sink)
    sink.emit("counter", "y", 1, {})
    sink.flush()
    assert udp.lines() == [b"perfkit.y:1|c"]
    sink.close()


def test_ipv4_is_preferred_as_daemons_do(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    resolver.answer = [(socket.AF_INET6, udp.port), (socket.AF_INET, udp.port)]
    sink = StatsdSink("localhost", clock=clock)
    sink.emit("counter", "x", 1, {})
    sink.flush()
    resolver.finish(sink)
    assert udp.lines() == [b"perfkit.x:1|c"]
    sink.close()


def test_a_daemon_may_move_from_ipv6_to_ipv4(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    resolver.answer = [(socket.AF_INET6, 1)]
    sink = StatsdSink("statsd.example", clock=clock)
    sink.emit("counter", "lost", 1, {})
    sink.flush()
    resolver.finish(sink)
    resolver.answer = [(socket.AF_INET, udp.port)]
    clock.advance(300)
    sink.flush()
    resolver.finish(sink)
    sink.emit("counter", "x", 1, {})
    sink.close()
    assert udp.lines() == [b"perfkit.x:1|c"]


def test_ipv6_works(clock: FakeClock) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        try:
            peer.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback on this machine")
        sink = StatsdSink(f"[::1]:{peer.getsockname()[1]}", clock=clock)
        sink.emit("counter", "x", 1, {})
        sink.close()
        peer.settimeout(5)
        assert peer.recv(1500) == b"perfkit.x:1|c"


def test_closing_waits_for_a_look_up_that_is_about_to_end(
    udp: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real name service; the hosts file answers."""
    monkeypatch.setattr("perfkit.metrics.sinks.statsd._PATIENCE", 10.0)
    sink = StatsdSink(f"localhost:{udp.port}", clock=clock)
    sink.emit("counter", "x", 1, {})
    sink.close()
    assert udp.lines(wait=5) == [b"perfkit.x:1|c"]
    assert sink._wire._socket is None


def test_a_closed_sink_can_be_used_again(sink: StatsdSink, udp: Any) -> None:
    for _ in range(3):
        sink.emit("counter", "x", 1, {})
        sink.close()
    assert udp.lines() == [b"perfkit.x:1|c"] * 3


@pytest.mark.parametrize("address", ["", "a b", "host:0", "host:99999", "http://host", "unix://relative", "a:b:c"])
def test_addresses_that_cannot_be_used_are_refused(address: str, clock: FakeClock) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.statsd"):
        Wire(address, clock)


def test_a_url_of_udp_is_an_address_too(udp: Any, clock: FakeClock) -> None:
    sink = StatsdSink(f"udp://{udp.address}", clock=clock)
    sink.emit("counter", "x", 1, {})
    sink.close()
    assert udp.lines() == [b"perfkit.x:1|c"]


# --- Unix sockets


class UnixDaemon:
    """A datagram socket in the file system, read only when asked to."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def datagrams(self) -> list[bytes]:
        found = []
        try:
            while True:
                found.append(self.socket.recv(65536))
        except BlockingIOError:
            return found


def test_a_unix_socket_gets_datagrams_of_up_to_8192_bytes(tmp_path: Path, clock: FakeClock) -> None:
    daemon = UnixDaemon(tmp_path / "s")
    sink = StatsdSink(f"unix://{tmp_path / 's'}", clock=clock)
    for n in range(1000):
        sink.emit("counter", f"some_name_{n}", 1, {})
    sink.flush()
    datagrams = daemon.datagrams()
    assert len(b"\n".join(datagrams).splitlines()) == 1000
    assert all(8192 - 30 < len(datagram) <= 8192 for datagram in datagrams[:-1])
    sink.close()
    daemon.socket.close()


def test_a_stopped_unix_daemon_delays_nobody_and_gets_what_fits_when_it_goes_on(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A blocking socket would hang the emitter at the eleventh datagram (net.unix.max_dgram_qlen)."""
    daemon = UnixDaemon(tmp_path / "s")
    sink = StatsdSink(f"unix://{tmp_path / 's'}", clock=clock)
    for n in range(50):
        sink.emit("counter", f"x{n}", 1, {})
        sink.flush()
    assert sink.sent < 50
    assert sink.dropped == 0
    lines = []
    while more := daemon.datagrams():
        lines += more
        clock.advance(1)
        sink.flush()
    assert lines == [b"perfkit.x%d:1|c" % n for n in range(50)]
    sink.close()
    daemon.socket.close()


def test_what_a_stopped_daemon_does_not_take_is_bounded_and_counted(tmp_path: Path, clock: FakeClock) -> None:
    daemon = UnixDaemon(tmp_path / "s")
    sink = StatsdSink(f"unix://{tmp_path / 's'}", clock=clock)
    for n in range(90_000):
        sink.emit("counter", f"some_longer_name_{n}", 1, {})
    assert sum(len(datagram.data) for datagram in sink._full) <= 2**20
    waiting = sum(datagram.values for datagram in sink._full) + sink._values
    received = sum(len(data.splitlines()) for data in daemon.datagrams())
    assert received + waiting + sink.dropped == 90_000
    assert sink.dropped > 20_000
    sink.close()
    daemon.socket.close()


def test_losses_are_not_told_to_a_daemon_that_is_away(tmp_path: Path, clock: FakeClock) -> None:
    """Each flush would lose one line more."""
    sink = StatsdSink(f"unix://{tmp_path / 's'}", clock=clock)
    sink.emit("counter", "lost", 1, {})
    for _ in range(10):
        sink.flush()
    assert sink.dropped == 1
    sink.close()


def test_an_absent_and_a_restarted_unix_daemon_are_no_trouble(tmp_path: Path, clock: FakeClock) -> None:
    sink = StatsdSink(f"unix://{tmp_path / 's'}", clock=clock)
    sink.emit("counter", "lost", 1, {})
    sink.flush()
    assert (sink.sent, sink.dropped) == (0, 1)
    for name in ("first", "second"):
        daemon = UnixDaemon(tmp_path / "s")
        sink.emit("counter", name, 1, {})
        sink.flush()
        assert b"perfkit.%s:1|c" % name.encode() in b"\n".join(daemon.datagrams()).splitlines()
        daemon.socket.close()
        (tmp_path / "s").unlink()
    sink.close()
