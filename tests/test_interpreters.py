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


IMMORTAL = """
import gc, sys, weakref
from perfkit.memory import GCOptimizer

class Node:
    pass

def immortal(one):
    return sys.getrefcount(one) == 0xFFFFFFFF

data = {"plain": ["a string of the application", 10**30, (1.5, b"bytes")], "node": Node()}
watched, file = Node(), open("told", "w")
reference = weakref.ref(watched)
file.write("at exit")
node = Node()
gc.collect()  # from now on the collector does not know the tuples of code's constants
GCOptimizer(immortal=False).optimize_for_workload("fork_server")
assert not immortal(node)
gc.unfreeze()
GCOptimizer().optimize_for_workload("fork_server")
kept = [data, *data["plain"], *data["plain"][2], data["node"], Node, immortal, immortal.__code__]
kept += GCOptimizer.optimize_for_workload.__code__.co_consts
assert all(map(immortal, kept)), kept
assert not immortal(watched) and not immortal(file)
del watched
assert reference() is None
gc.unfreeze()
gc.collect()
assert not immortal(Node())
data["plain"].clear()
print("fine")
"""


def interpreter(version: str) -> str:
    found = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
    for path in map(str, filter(None, found)):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:  # pyenv's shims fail
            return path
    pytest.skip(f"Python {version} is not on this machine")


def run(version: str, code: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    python = interpreter(version)
    (directory / "perfkit").symlink_to(REPOSITORY / "perfkit")
    for package in ("urllib3", "cachetools", "tenacity"):  # pure Python: the same files serve every version
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        (directory / package).symlink_to(Path(spec.origin).parent)
    return subprocess.run(
        [python, "-W", "error", "-c", code, *arguments],
        env={"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_calls_work_on(version: str, fault: FaultServer, tmp_path: Path) -> None:
    done = run(version, CALLS, tmp_path, fault.base_url)
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_what_lives_becomes_immortal_unless_somebody_waits_for_its_end_on(version: str, tmp_path: Path) -> None:
    done = run(version, IMMORTAL, tmp_path)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    assert "Error" not in done.stderr, done.stderr  # a warning of the file that nobody closed is right
    assert (tmp_path / "told").read_text() == "at exit"
