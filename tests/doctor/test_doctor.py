from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from perfkit import doctor
from perfkit.cli import main
from perfkit.doctor import Finding, machine
from perfkit.doctor.finding import fine, problem, warning
from perfkit.doctor.machine import Machine


def test_each_finding_says_why_and_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ini = tmp_path / "uwsgi.ini"
    ini.write_text("[uwsgi]\nmodule = app:app\n")
    assert main(["doctor", "--uwsgi", str(ini)]) == 1
    shown = capsys.readouterr().out
    assert "problem  uwsgi_threads" in shown
    assert "why uWSGI never runs" in shown
    assert "do enable-threads = true" in shown


def test_long_texts_are_wrapped_in_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "findings", lambda _: iter([warning("check", "seen", "why " * 40, "do " * 40)]))
    monkeypatch.setenv("COLUMNS", "80")
    main(["doctor"])
    assert len(capsys.readouterr().out.splitlines()) == 5
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert max(map(len, lines)) <= 80


def test_clock_is_looked_at(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor.clock, "clock", lambda: iter([fine("clock", "kept right")]))
    main(["doctor"])
    assert "kept right" in capsys.readouterr().out


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        main(["doctor", "--json", f"127.0.0.1:{server.getsockname()[1]}"])
    told = json.loads(capsys.readouterr().out)
    assert {"dns", "connect", "descriptors"} <= {finding["check"] for finding in told["findings"]}
    assert sum(told["count"].values()) == len(told["findings"])
    assert all(Finding(**finding).to_dict() == finding for finding in told["findings"])


@pytest.mark.parametrize(
    ("found", "code"),
    [([], 0), ([fine("a", "b")], 0), ([warning("a", "b", "c", "d")], 0), ([problem("a", "b", "c", "d")], 1)],
)
def test_only_a_problem_fails(
    found: list[Finding], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "findings", lambda _: iter(found))
    assert main(["doctor"]) == code
    assert f"{code} problems" in capsys.readouterr().out


def test_every_check_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[str]()

    def check(name: str, _: Machine) -> Iterator[Finding]:
        seen.append(name)
        return iter([])

    monkeypatch.setattr(machine, "CHECKS", (partial(check, "a"), partial(check, "b")))
    list(machine.examine(Machine()))
    assert seen == ["a", "b"]
