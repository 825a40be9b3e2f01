"""Certificates for servers on the loopback, and what the fault server does under TLS."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest

from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.testing.tls import Authority

CHAT = "/v1/chat/completions"


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


def ask(client: http.client.HTTPConnection, path: str = CHAT, **body: object) -> http.client.HTTPResponse:
    client.request("POST", path, json.dumps({"model": "m", "messages": "hi"} | body))
    return client.getresponse()


def statuses(client: http.client.HTTPConnection, *paths: str) -> list[int]:
    found = []
    for path in paths:
        reply = ask(client, path)
        reply.read()
        found.append(reply.status)
    return found


def trusting(server: FaultServer) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=server.ca_file)
    return http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)


def test_ten_requests_on_one_connection_are_one_handshake() -> None:
    with FaultServer(tls=True) as server:
        with closing(trusting(server)) as client:
            assert statuses(client, *[CHAT] * 10) == [200] * 10
        assert server.base_url == f"https://127.0.0.1:{server.port}/v1"
        seen = server.counters()
    assert (seen["connections"], seen["tls_handshakes"], seen["requests"]) == (1, 1, 10)


def test_resumed_and_failed_handshakes_are_counted_apart() -> None:
    with FaultServer(tls=True) as server:
        context = ssl.create_default_context(cafile=server.ca_file)
        session = None
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="localhost", session=session) as sock,
            ):
                sock.sendall(b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
                assert sock.recv(100)
                session = sock.session
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain, pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
        seen = server.wait_until(lambda seen: seen["tls_failed"] == 1 and seen["open_connections"] == 0)
    assert (seen["connections"], seen["tls_handshakes"], seen["tls_resumed"]) == (3, 1, 1)


@pytest.mark.parametrize(("behaviour", "how"), [(faults.reset(), "rst"), (faults.close(), "fin")])
def test_connections_end_by_force_under_tls_too(behaviour: faults.Behaviour, how: str) -> None:
    with FaultServer(tls=True) as server, closing(trusting(server)) as client:
        server.behave(behaviour)
        with pytest.raises(ConnectionResetError if how == "rst" else http.client.RemoteDisconnected):
            ask(client)
        server.wait_until(lambda seen: seen["open_connections"] == 0 and seen["cut_by_server"] == 1)


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
