"""What in this machine's settings slows calls down: the kernel, limits, certificates, the resolver, the clock.

Each check reads files or the environment and changes nothing. `Machine` is where they look, so that tests can show them
another one. Figures in the advice were measured at 40 ms round trip.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING

from perfkit.doctor.finding import Finding, fine, problem, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["CHECKS", "Machine", "examine"]

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_FEW_DESCRIPTORS = 4096
_MANY_NDOTS = 3  # dots; api.openai.com has two
_SLOW_CLOCK = 1e-6  # seconds a reading takes; 0.05 us is usual
_READINGS = 1000


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the checks look.

    Attributes:
        root: what is "/" to them.
        environ: environment variables.
        descriptors: most open files this process may have; None to ask the kernel.
    """

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: environ)
    descriptors: int | None = None

    def text(self, path: str) -> str | None:
        """Return what a file holds, None when it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None


def slow_start(machine: Machine) -> Iterator[Finding]:
    """Say whether the kernel forgets how fast a path is."""
    setting = machine.text("/proc/sys/net/ipv4/tcp_slow_start_after_idle")
    if setting is None:
        return
    control = machine.text("/proc/sys/net/ipv4/tcp_congestion_control") or "unknown"
    if setting == "0" or control.startswith("bbr"):
        yield fine("slow_start", f"tcp_slow_start_after_idle={setting}, congestion control {control}")
        return
    yield warning(
        "slow_start",
        f"net.ipv4.tcp_slow_start_after_idle={setting}",
        "after a short pause a kept connection sends like a new one: a prompt of 128 KB takes 166 ms instead of 46",
        "sysctl -w net.ipv4.tcp_slow_start_after_idle=0, and the same line in /etc/sysctl.d/ to keep it",
    )


def certificates(machine: Machine) -> Iterator[Finding]:
    """Say which variables change what certificates are trusted."""
    named = {name: value for name in _BUNDLES if (value := machine.environ.get(name))}
    if not named:
        yield fine("certificates", "no variable overrides the trust store")
    for name, value in named.items():
        if not (machine.root / value.lstrip("/")).exists():
            yield problem(
                "certificates",
                f"{name}={value}, which does not exist",
                "clients that obey it fail with each https call",
                f"unset {name}, or point it to a file that is there",
            )
        elif name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            yield warning(
                "certificates",
                f"{name}={value}",
                "it overrides session.verify of requests without a word, and perfkit does not read it",
                f"unset {name}; give perfkit a private CA as connections.ca_file",
            )
        else:
            yield fine("certificates", f"{name}={value} replaces the trust store of OpenSSL, for perfkit too")


def descriptors(machine: Machine) -> Iterator[Finding]:
    """Say whether there are enough file descriptors for connections."""
    most = machine.descriptors
    if most is None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY or most >= _FEW_DESCRIPTORS:
        yield fine("descriptors", "no limit of open files" if most < 0 else f"{most} open files a process")
        return
    yield warning(
        "descriptors",
        f"only {most} open files a process",
        "each connection, in and out, is one: under load accept() and connect() fail with EMFILE",
        "ulimit -n 65536 before the server starts; LimitNOFILE=65536 in its systemd unit",
    )


def resolver(machine: Machine) -> Iterator[Finding]:
    """Say what the resolver's settings cost with each new connection."""
    text = machine.text("/etc/resolv.conf")
    if text is None:
        return
    lines = [line.split() for line in text.splitlines() if line.strip() and line.lstrip()[0] not in "#;"]
    if not any(words[0] == "nameserver" for words in lines):
        yield problem(
            "resolver",
            "/etc/resolv.conf names no server",
            "no name can be looked up unless a server runs on this machine",
            "add a line: nameserver ADDRESS",
        )
        return
    options = dict(word.partition(":")[::2] for words in lines if words[0] == "options" for word in words[1:])
    searched = sum(len(words) - 1 for words in lines if words[0] in ("search", "domain"))
    dots = options.get("ndots", "1")
    if searched and dots.isdigit() and int(dots) >= _MANY_NDOTS:
        yield warning(
            "resolver",
            f"ndots:{dots} with {searched} search domains, as Kubernetes sets it",
            f"api.openai.com is asked for in all {searched} domains first, with each new connection",
            "dnsConfig: options: [{name: ndots, value: '1'}] in the pod; fewer new connections: connections.keep_alive",
        )
    else:
        yield fine("resolver", f"{sum(words[0] == 'nameserver' for words in lines)} servers, ndots:{dots}")


def clock_source(machine: Machine) -> Iterator[Finding]:
    """Say whether reading the time is slow; a call does it a dozen times."""
    began = time.perf_counter()
    for _ in range(_READINGS):
        time.monotonic()
    seconds = (time.perf_counter() - began) / _READINGS
    source = machine.text("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown"
    if seconds < _SLOW_CLOCK and source not in ("hpet", "acpi_pm"):
        yield fine("clock_source", f"{source}, {seconds * 1e6:.2f} us a reading")
        return
    yield warning(
        "clock_source",
        f"clock source {source}, {seconds * 1e6:.2f} us a reading",
        "each reading is a system call: timers, deadlines and logs all pay for it",
        "boot with clocksource=tsc, or choose an instance type whose hypervisor offers tsc or kvm-clock",
    )


CHECKS: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
    slow_start, certificates, descriptors, resolver, clock_source,
)  # fmt: skip


def examine(machine: Machine) -> Iterator[Finding]:
    """Yield what every check finds."""
    for check in CHECKS:
        yield from check(machine)
