"""Peers for the transport: the fault server, one over TLS, and sockets that do what a single test needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from transport.peers import Peer, Script

from perfkit.transport import ConnectionPool, HTTPClient

if TYPE_CHECKING:
    from perfkit.testing.faults import FaultServer


@pytest.fixture
def connections() -> Iterator[ConnectionPool]:
    pool = ConnectionPool(proxy="")
    yield pool
    pool.close()


@pytest.fixture
def client(fault: FaultServer, connections: ConnectionPool) -> HTTPClient:
    return HTTPClient(fault.base_url, connections=connections, retries=0)


@pytest.fixture(scope="session")
def _tls_server() -> Iterator[FaultServer]:
    from perfkit.testing.faults import FaultServer

    with FaultServer(tls=True) as server:
        yield server


@pytest.fixture
def tls_fault(_tls_server: FaultServer) -> FaultServer:
    _tls_server.reset()
    return _tls_server


@pytest.fixture(params=["plain", "tls"])
def any_fault(request: pytest.FixtureRequest) -> FaultServer:
    """Return the fault server without and with TLS."""
    found: FaultServer = request.getfixturevalue("fault" if request.param == "plain" else "tls_fault")
    return found


@pytest.fixture
def any_connections(any_fault: FaultServer) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(proxy="", ca_file=any_fault.ca_file if any_fault.root_url.startswith("https") else None)
    yield pool
    pool.close()


@pytest.fixture
def any_client(any_fault: FaultServer, any_connections: ConnectionPool) -> HTTPClient:
    return HTTPClient(any_fault.base_url, connections=any_connections, retries=0)


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Start peers that end with the test."""
    started: list[Peer] = []

    def start(*scripts: Script, tls: str | None = None) -> Peer:
        started.append(Peer(*scripts, tls=tls))
        return started[-1]

    yield start
    for each in started:
        each.close()
