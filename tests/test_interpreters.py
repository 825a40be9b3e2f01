"""The way of a call on every supported Python that is found here."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
from _parts import REPOSITORY

from perfkit.testing.faults import FaultServer

CALLS = """
import sys, perfkit
perfkit.configure(
    providers={"local": {"kind": "openai", "base_url": sys.argv[1], "api_key": "sk-test"}},
    client={"default_model": "tiny"},
)
answers = perfkit.batch([f"question {n}" for n in range(32)], max_concurrent=8)
assert [a.text for a in answers] == [f"echo: question {n}" for n in range(32)], answers
assert "".join(perfkit.stream("again", model="tiny")) == "echo: again"
assert perfkit.tracker.get_stats("provider_latency")["count"] == 33
print("fine")
"""


def interpreter(version: str) -> str:
    found = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
    for path in map(str, filter(None, found)):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:  # pyenv's shims fail
            return path
    pytest.skip(f"Python {version} is not on this machine")


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_calls_work_on(version: str, fault: FaultServer, tmp_path: Path) -> None:
    python = interpreter(version)
    (tmp_path / "perfkit").symlink_to(REPOSITORY / "perfkit")
    for package in ("urllib3", "cachetools", "tenacity"):  # pure Python: the same files serve every version
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        (tmp_path / package).symlink_to(Path(spec.origin).parent)
    done = subprocess.run(
        [python, "-W", "error", "-c", CALLS, fault.base_url],
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "fine\n", done.stderr
