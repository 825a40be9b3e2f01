"""`manage.py perfkit ...` through Django's own dispatch, in this process."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _shop  # noqa: F401 - sets Django up
import pytest
from django.core.management import CommandError, call_command, execute_from_command_line
from django.core.management.base import BaseCommand
from django.test import override_settings

import perfkit
from perfkit._registry import load
from perfkit._version import __version__
from perfkit.cli import COMMANDS
from perfkit.testing import FaultServer

Run = Callable[..., int | str | None]


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what --settings and --pythonpath do to it."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "unset")
    monkeypatch.setattr(sys, "path", [*sys.path])


def manage(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "perfkit", *arguments])
    return ended.value.code


def call(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        call_command("perfkit", *arguments)
    return ended.value.code


@pytest.mark.parametrize("run", [manage, call])
@pytest.mark.parametrize(
    ("arguments", "code", "found"),
    [
        (["config", "show"], 0, lambda said: {"setting": "cache.ttl", "value": 77.0, "source": "argument"} in said),
        (["report"], 0, lambda said: said["metrics"]["asked"]["sum"] == 3),
        (["bench", "--requests", "2", "--warm-up", "0"], 0, lambda said: said["rows"][0]["provider"] == "fake"),
        (["doctor", "--providers"], 1, lambda said: "enable-threads" in str(said) and "fake" in str(said)),
        (["prices", "mine"], 0, lambda said: said["prices"][0]["output"] == 2),
    ],
)
def test_commands_answer_with_the_settings_of_the_project(
    run: Run,
    arguments: list[str],
    code: int,
    found: Callable[[Any], bool],
    fault: FaultServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables = {
        "providers": {"fake": {"kind": "openai", "base_url": fault.base_url, "api_key": "k"}},
        "client": {"default_model": "mine"},
        "cache": {"ttl": 77},
        "metrics": {"store": "shared"},
        "tokens": {"prices": {"mine": {"input": 1, "output": 2}}},
    }
    Path("uwsgi.ini").write_text("[uwsgi]\n")
    with override_settings(PERFKIT=tables):
        perfkit.tracker.increment("asked", 3)
        perfkit.tracker.flush()
        assert run(*arguments, "--json") == code
    said = json.loads(capsys.readouterr().out)
    assert found(said), said
    assert (fault.stats()["requests"] > 0) == (arguments[0] in ("bench", "doctor"))


@pytest.mark.parametrize("run", [manage, call])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--settings=shop.settings", "--pythonpath=shop", "config", "show", "--json"],
        ["config", "show", "--settings=shop.settings", "--json", "--pythonpath=shop"],
        ["config", "--json", "--settings", "shop.settings", "show", "--pythonpath", "shop"],
        ["config", "show", "--json", "-v", "2", "--traceback", "--no-color", "--skip-checks", "--force-color"],
    ],
)
def test_options_of_every_command_are_taken_wherever_they_stand(
    run: Run, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with override_settings(PERFKIT={"cache": {"ttl": 77}}):
        assert run(*arguments) == 0
    assert '"value": 77' in capsys.readouterr().out
    if run is manage and "--traceback" not in arguments:
        assert (os.environ["DJANGO_SETTINGS_MODULE"], "shop" in sys.path) == ("shop.settings", True)


def test_options_of_every_command_hide_none_of_perfkits(capsys: pytest.CaptureFixture[str]) -> None:
    taken = set(BaseCommand().create_parser("manage.py", "perfkit", add_help=False)._option_string_actions)
    assert "--settings" in taken
    for module, _ in COMMANDS.values():
        load(f"{module}:add_arguments")(parser := argparse.ArgumentParser())
        assert taken.isdisjoint(parser._option_string_actions), module
    for asked in ("--version", "--ver"):  # which is short for no other of perfkit's
        assert manage(asked) == 0
        assert capsys.readouterr().out == f"perfkit {__version__}\n"
    assert manage("bench", "--help") == 0
    assert "--concurrency" in capsys.readouterr().out


def test_wrong_options_end_as_django_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert manage("config", "show", "--verbosity", "loud") == 2
    assert manage("config", "show", "--colour") == 2
    with pytest.raises(CommandError, match="verbosity"):
        call_command("perfkit", "config", "show", "--verbosity", "loud")
