from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from perfkit.doctor.server import options_of, uwsgi

GOOD = {"enable-threads": "true", "py-call-uwsgi-fork-hooks": "true"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, []),
        ({}, ["uwsgi_threads", "uwsgi_fork"]),
        (GOOD, ["uwsgi"]),
        ({"threads": "8", "lazy-apps": "1"}, ["uwsgi"]),
        ({"threads": "1", "lazy-apps": "1"}, ["uwsgi_threads"]),
        ({"enable_threads": "", "lazy_apps": ""}, ["uwsgi"]),
        ({"enable-threads": "false", "lazy-apps": "true"}, ["uwsgi_threads"]),
        ({"enable-threads": "true"}, ["uwsgi_fork"]),
    ],
)
def test_missing_options_are_named(options: dict[str, str] | None, expected: list[str]) -> None:
    assert [finding.check for finding in uwsgi(options)] == expected


def test_options_are_read_from_an_ini_file(tmp_path: Path) -> None:
    path = tmp_path / "uwsgi.ini"
    assert options_of(None) is None
    assert options_of(path) is None
    path.write_text("[uwsgi]\n; lazy-apps = true\nenable-threads = true  # yes\nmodule=app:app\n\nlazy-apps\n")
    assert options_of(path) == {"enable-threads": "true", "module": "app:app", "lazy-apps": ""}


def test_options_of_the_server_it_runs_in_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = types.SimpleNamespace(opt={"enable-threads": True, "threads": b"4", "lazy-apps": b"true"})
    monkeypatch.setitem(sys.modules, "uwsgi", running)
    assert [finding.check for finding in uwsgi(options_of(tmp_path / "none.ini"))] == ["uwsgi"]
