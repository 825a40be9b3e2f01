from __future__ import annotations

import itertools
import socket
import ssl
import threading
from pathlib import Path

import pytest

from perfkit.errors import ConfigError, NetworkError
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient, tls


def test_trust_is_loaded_once_for_all_pools_clients_and_connections(
    tls_fault: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = itertools.count()
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **options: make(**options) if next(loads) >= 0 else None)
    ca_file = tmp_path / "ca.pem"  # a name not seen before
    ca_file.write_bytes(Path(tls_fault.ca_file).read_bytes())
    together = threading.Barrier(8)

    def work() -> None:
        together.wait(10)
        connections = ConnectionPool(proxy="", ca_file=str(ca_file))
        client = HTTPClient(tls_fault.base_url, connections=connections)
        for _ in range(3):
            client.post("/echo", {}, {"connection": "close"})
            connections.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert tls_fault.counters()["tls_handshakes"] + tls_fault.counters()["tls_resumed"] >= 24
    assert next(loads) == 1


def test_context_checks_names_and_certificates() -> None:
    made = tls.context()
    assert made is tls.context()
    assert made.check_hostname
    assert made.verify_mode is ssl.CERT_REQUIRED


def test_unknown_authority_is_refused_with_advice_and_not_retried(tls_fault: FaultServer) -> None:
    connections = ConnectionPool(proxy="")
    with pytest.raises(NetworkError, match=r"not trusted.*connections\.ca_file") as caught:
        HTTPClient(tls_fault.base_url, retries=3, connections=connections).post("/echo", {})
    assert (caught.value.sent, caught.value.attempt) == (False, 1)
    assert tls_fault.counters()["requests"] == 0
    connections.close()


def test_wrong_name_is_refused(tls_fault: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", tls_fault.port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address])
    connections = ConnectionPool(proxy="", ca_file=tls_fault.ca_file)
    with pytest.raises(NetworkError, match=r"not trusted.*other\.test"):
        HTTPClient("https://other.test/v1", retries=0, connections=connections).post("/echo", {})
    connections.close()


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_bad_ca_file_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"connections\.ca_file: cannot load certificates from .*ca\.pem"):
        tls.context(str(path))
