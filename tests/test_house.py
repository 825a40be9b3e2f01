"""The house rules, checked by the tools that own them: layers, types, style, and what the README promises of itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from _parts import REPOSITORY, needs_module

BIN = Path(sys.executable).parent
WRONG = Path("tests/typing/bad.py")


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=390, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_imports_go_down_only() -> None:
    needs_module("importlinter")
    run(str(BIN / "lint-imports"), "--no-cache")


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """Return what mypy says of everything, wrong use of the package included."""
    needs_module("mypy")
    everything = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *everything, str(WRONG)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=390, check=False)
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.timeout(400)  # nothing is cached in a fresh clone
def test_types_are_strict(complaints: list[str]) -> None:
    assert [line for line in complaints if not line.startswith(f"{WRONG}:")] == []


@pytest.mark.timeout(400)
def test_types_refuse_wrong_use(complaints: list[str]) -> None:
    expected = {n for n, line in enumerate((REPOSITORY / WRONG).read_text().splitlines(), 1) if line.endswith("# E")}
    assert {int(line.split(":")[1]) for line in complaints if ": error:" in line} == expected


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_style(command: list[str]) -> None:
    needs_module("ruff")
    run(sys.executable, "-m", "ruff", *command, ".")


def modules() -> list[Path]:
    return sorted((REPOSITORY / "perfkit").rglob("*.py"))


def test_only_the_loader_imports_by_name() -> None:
    allowed = {"_registry.py"}
    guilty = [m for m in modules() if "import_module(" in m.read_text() and m.name not in allowed]
    assert guilty == []


def test_files_stay_small() -> None:
    assert [m for m in modules() if len(m.read_text().splitlines()) > 400] == []


def test_every_dependency_says_why() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    block = project[project.index("dependencies = [") : project.index("]\n", project.index("dependencies = ["))]
    assert all("# " in line for line in block.splitlines()[1:])
    table = (REPOSITORY / "docs/packages.md").read_text()
    names = [re.split(r"[<>=\[]", d)[0] for d in tomllib.loads(project)["project"]["dependencies"]]
    card = [
        "requests",
        "urllib3",
        "cachetools",
        "statsd",
        "psutil",
        "memory-profiler",
        "pyinstrument",
        "tenacity",
        "pytest",
    ]
    assert [name for name in {*names, *card} if f"| {name} |" not in table] == []


def test_ci_runs_the_commands_of_the_readme() -> None:
    readme, ci = (REPOSITORY / "README.md").read_text(), (REPOSITORY / ".ci/run").read_text()
    command = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/python -m pytest"
    assert command in readme
    assert command in ci
