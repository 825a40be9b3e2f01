from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from transport.peers import V4, V6, Place, descriptors

from perfkit.transport import dial as dialling
from perfkit.transport.dial import dial

NUMBERS = {socket.AF_INET: V4, socket.AF_INET6: V6}
LONG = 60.0  # seconds; longer than a test may take


@pytest.fixture
def place() -> Iterator[Place]:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    made = Place()
    yield made
    made.close()


def entry(family: socket.AddressFamily, port: int) -> Any:
    return family, socket.SOCK_STREAM, 6, "", (V6, port, 0, 0) if family == socket.AF_INET6 else (V4, port)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the name "both.test" the addresses of these families at a port."""

    def name(port: int, *families: socket.AddressFamily) -> None:
        def found(host: str, *_: Any, **__: Any) -> list[Any]:
            return [entry(family, port) for family in families if host in ("both.test", NUMBERS[family])]

        monkeypatch.setattr(socket, "getaddrinfo", found)

    return name


def still() -> float:
    """Be a clock that stands still."""
    return 0.0


@pytest.mark.parametrize(("dead", "alive"), [(socket.AF_INET6, socket.AF_INET), (socket.AF_INET, socket.AF_INET6)])
def test_family_that_swallows_packets_costs_a_quarter_of_a_second(
    place: Place, named: Any, dead: socket.AddressFamily, alive: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float | None]()

    class Watching(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return super().select(timeout)

    place.swallow(dead)
    place.listen(alive)
    named(place.port, dead, alive)
    monkeypatch.setattr(selectors, "DefaultSelector", Watching)
    sock, round_trip = dial(("both.test", place.port), LONG, still)
    with sock:
        assert sock.family == alive
    assert waits == [dialling.ATTEMPT_DELAY, LONG]  # the first attempt was given no more, and the second won
    assert round_trip == 0.0


def test_refused_address_gives_way_at_once(place: Place, named: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY", LONG)
    place.listen(socket.AF_INET)
    named(place.port, socket.AF_INET6, socket.AF_INET)
    with dial(("both.test", place.port), LONG, still).sock as sock:
        assert sock.family == socket.AF_INET


def test_first_address_still_may_win_after_the_second_has_begun(
    place: Place, named: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY", 0.0)  # both run at the same time
    place.listen(socket.AF_INET6)
    place.swallow(socket.AF_INET)
    named(place.port, socket.AF_INET6, socket.AF_INET)
    with dial(("both.test", place.port), LONG, still).sock as sock:
        assert sock.family == socket.AF_INET6


def test_black_holes_alone_end_at_the_time_and_leave_no_descriptor(place: Place, named: Any) -> None:
    place.swallow(socket.AF_INET6)
    before = descriptors()
    named(place.port, socket.AF_INET6)
    with pytest.raises(TimeoutError):
        dial(("both.test", place.port), 0.2, still)
    assert descriptors() == before


def test_error_of_the_last_address_is_told_and_no_descriptor_is_left(place: Place, named: Any) -> None:
    named(place.port, socket.AF_INET6, socket.AF_INET)
    before = descriptors()
    with pytest.raises(ConnectionRefusedError) as failed:
        dial(("both.test", place.port), LONG, still)
    assert failed.value.errno == errno.ECONNREFUSED
    assert descriptors() == before


def test_name_without_an_address_is_an_error(named: Any) -> None:
    named(1)
    with pytest.raises(OSError, match=r"both\.test has no address"):
        dial(("both.test", 1), None, still)


def test_family_the_machine_does_not_have_is_passed_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.listen(socket.AF_INET)
    strange = 44, socket.SOCK_STREAM, 6, "", ("nowhere", 1)  # AF_X25 or the like
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [strange, entry(socket.AF_INET, place.port)])
    dial(("both.test", place.port), LONG, still).sock.close()


def test_families_take_turns() -> None:
    found = [(6, "a"), (6, "b"), (6, "c"), (4, "d"), (4, "e")]
    assert [letter for _, letter in dialling._alternating(found)] == ["a", "d", "b", "e", "c"]
    assert list(dialling._alternating([])) == []


def test_time_that_was_left_is_the_timeout_of_the_socket(place: Place, named: Any) -> None:
    place.listen(socket.AF_INET)
    named(place.port, socket.AF_INET)
    with dial(("both.test", place.port), 5.0, still).sock as sock:
        assert sock.gettimeout() == 5.0
    with dial(("both.test", place.port), None, still).sock as sock:
        assert sock.gettimeout() is None


def test_sockets_notice_dead_peers(place: Place, named: Any) -> None:
    place.listen(socket.AF_INET)
    named(place.port, socket.AF_INET)
    with dial(("both.test", place.port), LONG, still).sock as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
