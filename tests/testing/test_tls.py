"""Certificates for servers on the loopback, and what the fault server does under TLS."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from testing.clients import CHAT, ask, emptied, statuses

from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.testing.tls import Authority


def test_nothing_is_made_before_it_is_used() -> None:
    authority = Authority()
    assert authority._directory is None
    authority.close()


def test_only_the_owner_gets_at_the_key() -> None:
    with Authority() as authority:
        assert Path(authority.server_file).parent.stat().st_mode & 0o077 == 0


def test_the_files_are_a_pair_the_ssl_module_takes() -> None:
    with Authority() as authority:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(authority.server_file)
        assert ssl.create_default_context(cafile=authority.ca_file).cert_store_stats()["x509_ca"] == 1


def test_closing_removes_the_files_and_a_later_use_makes_new_ones() -> None:
    authority = Authority()
    first = Path(authority.ca_file)
    told = first.read_text()
    authority.close()
    assert not first.parent.exists()
    assert Path(authority.ca_file).read_text() != told
    authority.close()


# --- servers ---


@pytest.fixture(scope="module")
def running() -> Iterator[FaultServer]:
    with FaultServer(tls=True) as server:
        yield server


@pytest.fixture
def secured(running: FaultServer) -> FaultServer:
    return emptied(running)


def trusting(server: FaultServer) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=server.ca_file)
    return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)


def test_ten_requests_on_one_connection_are_one_handshake(secured: FaultServer) -> None:
    with closing(trusting(secured)) as client:
        assert statuses(client, *[CHAT] * 10) == [200] * 10
    assert secured.base_url == f"https://127.0.0.1:{secured.port}/v1"
    seen = secured.counters()
    assert (seen["connections"], seen["tls_handshakes"], seen["requests"]) == (1, 1, 10)


def test_resumed_and_failed_handshakes_are_counted_apart(secured: FaultServer) -> None:
    context = ssl.create_default_context(cafile=secured.ca_file)
    session = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", secured.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as sock,
        ):
            sock.sendall(b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
            assert sock.recv(100)
            session = sock.session
    with socket.create_connection(("127.0.0.1", secured.port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
    seen = secured.wait_until(lambda seen: seen["tls_failed"] == 1 and seen["open_connections"] == 0)
    assert (seen["connections"], seen["tls_handshakes"], seen["tls_resumed"]) == (3, 1, 1)


@pytest.mark.parametrize(("behaviour", "how"), [(faults.reset(), "rst"), (faults.close(), "fin")])
def test_connections_end_by_force_under_tls_too(secured: FaultServer, behaviour: faults.Behaviour, how: str) -> None:
    secured.behave(behaviour)
    with closing(trusting(secured)) as client:
        with pytest.raises(ConnectionResetError if how == "rst" else http.client.RemoteDisconnected):
            ask(client)
        secured.wait_until(lambda seen: seen["open_connections"] == 0 and seen["cut_by_server"] == 1)


def test_servers_can_share_an_authority() -> None:
    with Authority() as authority, FaultServer(tls=authority) as one, FaultServer(tls=authority) as other:
        assert one.ca_file == other.ca_file == authority.ca_file
        for server in (one, other):
            with closing(trusting(server)) as client:
                assert statuses(client, CHAT) == [200]
        one.stop()
        assert Path(authority.ca_file).exists()


def test_stopping_removes_the_certificates() -> None:
    with FaultServer(tls=True) as server:
        path = Path(server.ca_file)
        assert path.exists()
    assert not path.parent.exists()


def test_a_plain_server_has_no_certificate() -> None:
    with pytest.raises(RuntimeError, match="tls=True"):
        _ = FaultServer().ca_file
