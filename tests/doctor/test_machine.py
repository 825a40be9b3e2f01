from __future__ import annotations

from pathlib import Path

import pytest

from perfkit.doctor import machine
from perfkit.doctor.finding import Finding
from perfkit.doctor.machine import Machine

IDLE, CONTROL = "proc/sys/net/ipv4/tcp_slow_start_after_idle", "proc/sys/net/ipv4/tcp_congestion_control"
SOURCE = "sys/devices/system/clocksource/clocksource0/current_clocksource"


def of(root: Path, files: dict[str, str]) -> Machine:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root, {}, 100_000)


def levels(found: list[Finding]) -> list[str]:
    for finding in found:
        assert bool(finding.why) == bool(finding.do) == (finding.level != "ok")
    return [finding.level for finding in found]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({IDLE: "0\n"}, ["ok"]),
        ({IDLE: "1\n"}, ["warning"]),
        ({IDLE: "1\n", CONTROL: "cubic\n"}, ["warning"]),
        ({IDLE: "1\n", CONTROL: "bbr\n"}, ["ok"]),  # does not begin anew after a pause
    ],
)
def test_slow_start_after_a_pause_is_warned_of(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    assert levels(list(machine.slow_start(of(tmp_path, files)))) == expected


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_variables_that_change_trust_are_named(tmp_path: Path, name: str) -> None:
    of(tmp_path, {"etc/ca.pem": "x"})
    assert levels(list(machine.certificates(Machine(tmp_path, {})))) == ["ok"]
    (missing,) = machine.certificates(Machine(tmp_path, {name: "/no/such.pem"}))
    assert missing.level == "problem"
    (there,) = machine.certificates(Machine(tmp_path, {name: "/etc/ca.pem"}))
    assert there.level == ("ok" if name.startswith("SSL") else "warning")
    assert name in there.found


@pytest.mark.parametrize(("most", "expected"), [(256, "warning"), (1024, "warning"), (65536, "ok"), (-1, "ok")])
def test_few_descriptors_are_warned_of(most: int, expected: str) -> None:
    assert levels(list(machine.descriptors(Machine(descriptors=most)))) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, []),
        ("# nothing\n", ["problem"]),
        ("nameserver 10.0.0.1\n", ["ok"]),
        ("nameserver 10.0.0.1\noptions ndots:5\n", ["ok"]),  # without search domains it costs nothing
        ("nameserver 10.0.0.1\nsearch a.svc svc.cluster\noptions ndots:5 timeout:1\n", ["warning"]),
        ("; x\nnameserver 10.0.0.1\nsearch lan\n", ["ok"]),
    ],
)
def test_resolver_that_asks_too_often_is_warned_of(tmp_path: Path, text: str | None, expected: list[str]) -> None:
    files = {} if text is None else {"etc/resolv.conf": text}
    assert levels(list(machine.resolver(of(tmp_path, files)))) == expected


@pytest.mark.parametrize(("source", "expected"), [("tsc\n", "ok"), ("hpet\n", "warning"), ("acpi_pm\n", "warning")])
def test_slow_clock_source_is_warned_of(
    tmp_path: Path, source: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_SLOW_CLOCK", 1.0)
    assert levels(list(machine.clock_source(of(tmp_path, {SOURCE: source})))) == [expected]
    monkeypatch.setattr(machine, "_SLOW_CLOCK", 0.0)
    assert levels(list(machine.clock_source(of(tmp_path, {SOURCE: "tsc"})))) == ["warning"]


def test_this_machine_can_be_examined() -> None:
    assert {finding.check for finding in machine.examine(Machine())} >= {"certificates", "descriptors", "clock_source"}


def test_all_that_is_wrong_with_a_machine_is_found_at_once(tmp_path: Path) -> None:
    wrong = of(tmp_path, {IDLE: "1\n", "etc/resolv.conf": "# nothing\n", SOURCE: "hpet\n"})
    found = {finding.check for finding in machine.examine(wrong) if finding.level != "ok"}
    assert found >= {"slow_start", "resolver", "clock_source"}
