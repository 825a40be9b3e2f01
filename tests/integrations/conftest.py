"""The fault server without and with TLS, and for each test a pool and a tracker of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from transport.conftest import _tls_server, any_fault, peer, tls_fault

from perfkit.metrics import PerformanceTracker
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool

__all__ = ["_tls_server", "any_fault", "peer", "tls_fault"]


@pytest.fixture
def connections(any_fault: FaultServer) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(proxy="", ca_file=any_fault.ca_file if any_fault.root_url.startswith("https") else None)
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def _patient(patient: None) -> None:
    """Let all tests here wait."""


@pytest.fixture
def retried_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDKs wait 10 ms instead of half a second before they try again."""
    for sdk in ("anthropic", "openai"):
        monkeypatch.setattr(f"{sdk}._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker()
