"""The types users see, judged by mypy from outside the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from _parts import REPOSITORY, needs_module

HERE = Path(__file__).parent


def mypy(file: Path) -> set[int]:
    """Return the numbers of the lines mypy complains of."""
    needs_module("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=REPOSITORY)
    found = (line.split(":") for line in done.stdout.splitlines() if ": error:" in line)
    return {int(line) for path, line, *_ in found if path.endswith(file.name)}


def test_a_typed_application_is_accepted() -> None:
    assert mypy(HERE / "good.py") == set()


def test_wrong_use_is_refused() -> None:
    file = HERE / "bad.py"
    expected = {n for n, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("# E")}
    assert mypy(file) == expected
