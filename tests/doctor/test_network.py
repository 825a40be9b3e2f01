from __future__ import annotations

import socket
from typing import Any

import pytest
from transport.peers import Place
from transport.test_dial import entry, named, place

from perfkit.clock import SYSTEM_CLOCK, Clock, FakeClock
from perfkit.doctor import network
from perfkit.doctor.finding import Finding

__all__ = ["named", "place"]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATIENCE", 1.0)


def examined(port: int, clock: Clock = SYSTEM_CLOCK) -> dict[str, Finding]:
    return {finding.check: finding for finding in network.examine(f"both.test:{port}", clock)}


def test_host_that_answers_is_fine(place: Place, named: Any, clock: FakeClock) -> None:
    place.listen(socket.AF_INET6)
    place.listen(socket.AF_INET)
    named(place.port, socket.AF_INET6, socket.AF_INET)
    found = examined(place.port, clock)  # however long a busy machine takes
    assert {name: finding.level for name, finding in found.items()} == {"dns": "ok", "connect": "ok"}
    assert "IPv6: " in found["connect"].found
    assert "IPv4: " in found["connect"].found


def test_ipv6_black_hole_is_found(place: Place, named: Any) -> None:
    place.swallow(socket.AF_INET6)
    place.listen(socket.AF_INET)
    named(place.port, socket.AF_INET6, socket.AF_INET)
    finding = examined(place.port)["ipv6"]
    assert (finding.level, "nothing comes back" in finding.found) == ("warning", True)
    assert "gai.conf" in finding.do


def test_ipv4_that_fails_beside_ipv6_is_no_finding(place: Place, named: Any) -> None:
    place.listen(socket.AF_INET6)
    named(place.port, socket.AF_INET6, socket.AF_INET)
    assert examined(place.port)["connect"].level == "ok"


def test_host_that_cannot_be_reached_is_a_problem(place: Place, named: Any) -> None:
    named(place.port, socket.AF_INET6, socket.AF_INET)
    assert examined(place.port)["connect"].level == "problem"


def test_name_that_does_not_exist_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    (finding,) = network.examine("no.test", SYSTEM_CLOCK)
    assert (finding.check, finding.level) == ("dns", "problem")


def test_slow_look_up_is_warned_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    place.listen(socket.AF_INET)

    def slow(*_: Any, **__: Any) -> Any:
        clock.advance(0.25)
        return [entry(socket.AF_INET, place.port)]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    found = {finding.check: finding for finding in network.examine("slow.test", clock)}
    assert (found["dns"].level, "250 ms" in found["dns"].found) == ("warning", True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("api.openai.com", ("api.openai.com", 443)),
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:8080", ("::1", 8080)),
        ("::1", ("::1", 443)),
    ],
)
def test_port_may_be_given(host: str, expected: tuple[str, int]) -> None:
    assert network._split(host) == expected
