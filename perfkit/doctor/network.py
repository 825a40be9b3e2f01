"""How names and addresses of providers behave from here: how long a look-up takes, and whether IPv6 is a black hole."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from perfkit.doctor.finding import Finding, fine, problem, warning
from perfkit.transport.dial import ATTEMPT_DELAY, dial
from perfkit.transport.lookup import addresses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perfkit.clock import Clock

__all__ = ["PATIENCE", "examine"]

PATIENCE = 2.0  # seconds for a look-up, and for each connection
_SLOW_LOOK_UP = 0.1  # seconds
_FAMILIES = {socket.AF_INET6: "IPv6", socket.AF_INET: "IPv4"}


def examine(host: str, clock: Clock) -> Iterator[Finding]:
    """Yield what is found about `host` ("name" or "name:port"); it is connected to, and nothing is sent."""
    name, port = _split(host)
    began = clock.now()
    try:
        found = addresses(name, port, PATIENCE)
    except OSError as error:
        yield problem(
            "dns",
            f"{name}: {error}",
            "no call to it can succeed",
            "check the name, /etc/resolv.conf and whether DNS (UDP and TCP port 53) may leave this machine",
        )
        return
    yield _look_up(name, clock.now() - began)
    numbers: dict[int, str] = {}
    for family, *_, target in found:
        numbers.setdefault(family, target[0])
    yield from _reachability(name, {family: _reached(number, port, clock) for family, number in numbers.items()})


def _split(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return (name.strip("[]"), int(port)) if name and port.isdigit() and not name.endswith(":") else (host, 443)


def _look_up(name: str, seconds: float) -> Finding:
    if seconds < _SLOW_LOOK_UP:
        return fine("dns", f"{name} looked up in {seconds * 1e3:.0f} ms")
    return warning(
        "dns",
        f"looking up {name} took {seconds * 1e3:.0f} ms",
        "each new connection waits for it",
        "run a caching resolver here (systemd-resolved, dnsmasq, NodeLocal DNSCache); raise connections.keep_alive",
    )


def _reached(number: str, port: int, clock: Clock) -> float | str:
    """Return the round trip in seconds, or what went wrong."""
    try:
        sock, seconds = dial((number, port), PATIENCE, clock.now)
    except TimeoutError:
        return "nothing comes back"
    except OSError as error:
        return str(error)
    sock.close()
    return seconds


def _reachability(name: str, results: dict[int, float | str]) -> Iterator[Finding]:
    shown = ", ".join(
        f"{_FAMILIES.get(socket.AddressFamily(family), family)}: "
        + (result if isinstance(result, str) else f"{result * 1e3:.1f} ms")
        for family, result in results.items()
    )
    six, four = results.get(socket.AF_INET6), results.get(socket.AF_INET)
    if all(isinstance(result, str) for result in results.values()):
        yield problem("connect", f"{name}: {shown}", "no call to it can succeed", "check firewall, proxy and routes")
    elif isinstance(six, str) and isinstance(four, float):
        yield warning(
            "ipv6",
            f"{name}: {shown}",
            f"it has IPv6 addresses that cannot be reached: most clients wait their whole connect timeout for them, "
            f"perfkit {ATTEMPT_DELAY:g} s, with each new connection",
            "mend the IPv6 route, or prefer IPv4: 'precedence ::ffff:0:0/96 100' in /etc/gai.conf",
        )
    else:
        yield fine("connect", f"{name}: {shown}")
