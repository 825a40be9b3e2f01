from __future__ import annotations

import base64
import socket
from collections.abc import Callable

import pytest
from _forks import in_child
from transport.peers import Peer, answering, read_request, reply, tunnel

from perfkit.errors import ConfigError, NetworkError
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient
from perfkit.transport.proxies import proxy_for

TARGET = ("https", "api.test", 443)
StartPeer = Callable[..., Peer]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_no_proxy_without_one() -> None:
    assert proxy_for(TARGET, None) is None


def test_environment_names_the_proxy_and_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    found = proxy_for(TARGET, None)
    assert found is not None
    assert found.origin == ("http", "proxy.test", 3128)
    assert proxy_for(("http", "api.test", 80), None) is None
    monkeypatch.setenv("NO_PROXY", "api.test")
    assert proxy_for(TARGET, None) is None


def test_setting_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    assert proxy_for(TARGET, "") is None
    found = proxy_for(TARGET, "https://other.test")
    assert found is not None
    assert found.origin == ("https", "other.test", 443)


def test_credentials_become_a_header_and_are_not_shown() -> None:
    found = proxy_for(TARGET, "http://user:s3cret@proxy.test:3128")
    assert found is not None
    assert found.headers == {"proxy-authorization": "Basic " + base64.b64encode(b"user:s3cret").decode()}
    assert "s3cret" not in repr(found.url)
    assert "s3cret" not in repr(ConnectionPool(proxy="http://user:s3cret@proxy.test:3128").settings)


@pytest.mark.parametrize("text", ["socks5://s3cret@proxy:1080", "http://:3128", "ftp://proxy", "http://s3cret@[::1"])
def test_other_proxies_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"connections\.proxy") as caught:
        proxy_for(TARGET, text)
    assert "s3cret" not in str(caught.value)


def test_plain_request_is_forwarded_with_its_whole_url(peer: StartPeer) -> None:
    seen = list[bytes]()

    def forward(sock: socket.socket) -> None:
        while request := read_request(sock):
            seen.append(request)
            sock.sendall(reply(b"by proxy"))

    port = peer(forward).port
    pool = ConnectionPool(proxy=f"http://user:pw@127.0.0.1:{port}")
    client = HTTPClient("http://api.test/v1", connections=pool)
    assert [client.post("/x", b"{}").text for _ in range(2)] == ["by proxy"] * 2
    pool.close()
    assert seen[0].startswith(b"POST http://api.test:80/v1/x HTTP/1.1\r\nhost: api.test\r\n")
    assert b"\r\nproxy-authorization: Basic " in seen[0]


@pytest.mark.parametrize("tls", [False, True])
def test_tls_goes_through_a_tunnel_which_is_kept(peer: StartPeer, tls_fault: FaultServer, tls: bool) -> None:
    assert tls_fault._authority is not None
    proxy = peer(tunnel, tls=tls_fault._authority.server_file if tls else None)
    pool = ConnectionPool(proxy=proxy.url, ca_file=tls_fault.ca_file)
    client = HTTPClient(tls_fault.base_url, connections=pool)
    assert [client.post("/echo", {"n": n}).json() for n in range(3)] == [{"n": n} for n in range(3)]
    assert in_child(lambda: client.post("/echo", {"n": "child"}).json()) == {"n": "child"}
    assert client.post("/echo", {"n": "parent"}).json() == {"n": "parent"}
    pool.close()
    assert proxy.accepted == 2  # one of each process
    assert tls_fault.counters()["connections"] == 2


def test_refusing_proxy_is_an_error_of_a_request_not_sent(peer: StartPeer) -> None:
    proxy = peer(answering(reply(b"", status="407 Proxy Authentication Required")))
    pool = ConnectionPool(proxy=f"http://127.0.0.1:{proxy.port}")
    with pytest.raises(NetworkError, match="407") as caught:
        HTTPClient("https://api.test/v1", retries=0, connections=pool).post("/x", b"{}")
    assert caught.value.sent is False
    pool.close()
