"""The transport under httpx2 and httpx, without an SDK above it."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from _parts import needs_module
from _servers import polled
from integrations.asking import all_free, settled
from transport.peers import answering, reply

from perfkit.errors import ConfigError
from perfkit.integrations._httpx import make_client
from perfkit.integrations._wire import Wire
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool


@pytest.fixture(params=["httpx2", "httpx"])
def module(request: pytest.FixtureRequest) -> Any:
    needs_module(request.param)
    return importlib.import_module(request.param)


@pytest.fixture
def client(module: Any, connections: ConnectionPool) -> Iterator[Any]:
    with make_client(module, Wire(connections=connections), {}) as made:
        yield made


def test_exceptions_are_those_of_the_module(client: Any, module: Any, any_fault: FaultServer) -> None:
    url = f"{any_fault.base_url}/models"
    for mishap, kind in (
        (faults.close(), module.RemoteProtocolError),
        (faults.garbage("bytes"), module.RemoteProtocolError),
        (faults.truncated(), module.RemoteProtocolError),
        (faults.gzip(broken=True), module.DecodingError),
        (faults.hang(), module.ReadTimeout),
    ):
        any_fault.behave(mishap)
        with pytest.raises(kind) as caught:
            client.get(url, timeout=module.Timeout(20, read=0.2 if kind is module.ReadTimeout else 20))
        assert caught.value.request.url == url
    any_fault.refuse()
    with pytest.raises(module.ConnectError):
        client.get(url)
    any_fault.accept()
    with pytest.raises(module.LocalProtocolError):
        client.get(url, headers={"x": "a\nb"})
    with pytest.raises(module.UnsupportedProtocol):
        client.get("ftp://127.0.0.1/")


def test_response_has_all_that_came(module: Any, peer: Any) -> None:
    there = peer(answering(reply(b"body", "Set-Cookie: a=1", "Set-Cookie: b=2", status="418 I'm a teapot")))
    with make_client(module, Wire(connections=ConnectionPool(proxy="")), {}) as client:
        response = client.get(f"http://127.0.0.1:{there.port}/")
    assert (response.status_code, response.reason_phrase, response.content) == (418, "I'm a teapot", b"body")
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert dict(response.cookies) == {"a": "1", "b": "2"}


def test_redirects_are_followed(module: Any, peer: Any) -> None:
    there = peer(answering(reply(b"", "Location: /end", status="307 Temporary Redirect"), reply(b"here")))
    pool = ConnectionPool(proxy="")
    with make_client(module, Wire(connections=pool), {}) as client:
        assert client.post(f"http://127.0.0.1:{there.port}/start", content=b"ab").text == "here"
    pool.close()


def test_body_in_pieces_is_sent_whole(client: Any, any_fault: FaultServer) -> None:
    answer = client.post(
        f"{any_fault.base_url}/echo", content=iter([b"one ", b"two"]), headers={"content-type": "text/plain"}
    )
    assert answer.content == b"one two"
    headers = any_fault.stats()["recent"][-1]["headers"]
    assert headers["content-length"] == "7"
    assert headers["content-type"] == "text/plain"
    assert "transfer-encoding" not in headers


def test_stream_left_in_the_middle_ends_at_the_server(client: Any, any_fault: FaultServer) -> None:
    any_fault.behave(faults.stall(after_bytes=10))
    with client.stream("GET", f"{any_fault.base_url}/models") as response:
        assert len(next(response.iter_raw())) == 10
    assert settled(any_fault)["aborted_by_client"] == 1


def test_forgotten_response_gives_its_slot_back_soon(
    client: Any, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    any_fault.behave(faults.stall(after_bytes=10))
    response = client.send(client.build_request("GET", f"{any_fault.base_url}/models"), stream=True)
    assert not all_free(connections)
    del response
    gc.collect()  # a response of httpx holds itself; one of httpx2 is gone before
    polled(lambda: all_free(connections))
    assert settled(any_fault)["aborted_by_client"] == 1


def test_url_it_cannot_ask_and_name_it_would_not_use_are_refused(
    client: Any, module: Any, any_fault: FaultServer
) -> None:
    with pytest.raises(module.UnsupportedProtocol, match=r"unsupported protocol 'ftp://'"):
        client.get("ftp://host.test/")
    with pytest.raises(module.UnsupportedProtocol, match="missing"):
        client.get("/path")
    with pytest.raises(ConfigError, match="sni_hostname"):
        client.get(any_fault.base_url, extensions={"sni_hostname": "other.test"})
    assert any_fault.counters()["requests"] == 0


@pytest.mark.parametrize("option", ["verify", "proxy", "limits", "http2", "transport", "mounts"])
def test_options_the_pool_would_not_see_are_refused(module: Any, option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        make_client(module, Wire(), {option: None})


def test_other_options_are_those_of_the_module(module: Any) -> None:
    assert make_client(module, Wire(), {"timeout": 3}).timeout == module.Timeout(3)
    assert make_client(module, Wire(), {}).timeout == module.Timeout(5)  # by which SDKs know that they may set theirs
