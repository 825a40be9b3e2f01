from __future__ import annotations

import gzip
import json
import logging
from typing import Any

import pytest
from transport.peers import Peer, read_request, reply

from perfkit.clock import FakeClock
from perfkit.errors import ConfigError, NetworkError
from perfkit.metrics import PerformanceTracker
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient
from perfkit.transport.encoding import ACCEPT

CHAT = "/chat/completions"


def last(fault: FaultServer) -> dict[str, Any]:
    found: dict[str, Any] = fault.stats()["recent"][-1]
    return found


@pytest.mark.parametrize("base", ["/v1", "/v1/"])
@pytest.mark.parametrize("path", ["/echo", "echo", "/echo?a=b c"])
def test_path_is_put_behind_the_base_url(fault: FaultServer, connections: ConnectionPool, base: str, path: str) -> None:
    HTTPClient(fault.root_url + base, connections=connections).post(path, {})
    assert last(fault)["path"] == "/v1/echo"


def test_headers_of_the_call_win_over_those_of_the_client(fault: FaultServer, connections: ConnectionPool) -> None:
    client = HTTPClient(fault.base_url, headers={"X-A": "1", "X-B": "1", "User-Agent": "mine"}, connections=connections)
    client.post("/echo", b"{}", {"x-b": "2", "Content-Type": "text/plain"})
    assert last(fault)["headers"] == {
        "host": f"127.0.0.1:{fault.port}", "user-agent": "mine", "accept-encoding": ACCEPT, "x-a": "1",
        "x-b": "2", "content-type": "text/plain", "content-length": "2",
    }  # fmt: skip


def test_bodies_are_json_unless_said_otherwise(client: HTTPClient, fault: FaultServer) -> None:
    for body in ({"a": 1}, b'{"a":1}', '{"a":1}'):
        assert client.post("/echo", body).json() == {"a": 1}
        assert last(fault)["headers"]["content-type"] == "application/json"


def test_requests_are_compressed_on_demand(fault: FaultServer, connections: ConnectionPool, peer: Any) -> None:
    seen = list[bytes]()

    def script(sock: Any) -> None:
        while request := read_request(sock):
            seen.append(request)
            sock.sendall(reply())

    server: Peer = peer(script)
    client = HTTPClient(server.url, compress_requests=True, connections=connections)
    client.post("/", {"text": "word " * 1000})
    client.post("/", {"text": "short"})
    large, small = (request.partition(b"\r\n\r\n") for request in seen)
    assert b"content-encoding: gzip" in large[0]
    assert json.loads(gzip.decompress(large[2])) == {"text": "word " * 1000}
    assert b"content-encoding" not in small[0]


def test_duration_is_recorded_by_host_and_status_class(fault: FaultServer, connections: ConnectionPool) -> None:
    tracker = PerformanceTracker()
    client = HTTPClient(fault.base_url, retries=0, connections=connections, tracker=tracker)
    client.post("/echo", {})
    client.get("/nowhere")
    with client.stream(CHAT, {"model": "m", "stream": True, "messages": []}) as stream:
        stream.read()
    fault.behave(faults.close())
    with pytest.raises(NetworkError):
        client.get("/models")

    def count(status: str) -> int:
        tags = {"host": f"127.0.0.1:{fault.port}", "status": status}
        return int(tracker.get_stats("http_request_duration", tags=tags).get("count", 0))

    assert {status: count(status) for status in ("2xx", "4xx", "error")} == {"2xx": 2, "4xx": 1, "error": 1}


def test_call_that_is_tried_again_counts_once(fault: FaultServer, connections: ConnectionPool) -> None:
    tracker = PerformanceTracker()
    client = HTTPClient(fault.base_url, connections=connections, tracker=tracker, clock=FakeClock())
    fault.behave(faults.close())
    with pytest.raises(NetworkError) as caught:
        client.get("/models")
    assert (caught.value.attempt, fault.counters()["requests"]) == (4, 4)
    fault.behave(faults.close(), faults.ok())
    client.get("/models")
    counts = dict.fromkeys(("error", "2xx"), 0)
    for status in counts:
        counts[status] = int(tracker.get_stats("http_request_duration", tags={"status": status})["count"])
    assert counts == {"error": 1, "2xx": 1}


def test_http_debug_logs_requests_and_replies_without_secrets(
    fault: FaultServer, connections: ConnectionPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("perfkit.transport")
    monkeypatch.setattr(log, "level", log.level)
    monkeypatch.setenv("HTTP_DEBUG", "1")
    client = HTTPClient(fault.base_url, headers={"Authorization": "Bearer s3cret"}, connections=connections)
    fault.behave(faults.ok(headers={"set-cookie": "s3cret"}))
    client.post(f"{CHAT}?key=s3cret", {"model": "m", "messages": []}, {"x-api-key": "s3cret"})
    log.setLevel(logging.NOTSET)
    assert [record.name for record in caplog.records] == ["perfkit.transport"] * 2
    assert "POST 127.0.0.1" in caplog.text
    assert "'authorization': '***'" in caplog.text
    assert "HTTPResponse(200" in caplog.text
    assert "s3cret" not in caplog.text


def test_nothing_is_logged_otherwise(client: HTTPClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "perfkit"):
        client.post("/echo", {}, {"x-api-key": "s3cret"})
    assert "s3cret" not in caplog.text
    assert "POST" not in caplog.text


def test_errors_hold_no_secret(fault: FaultServer, connections: ConnectionPool) -> None:
    import traceback

    secret = "s3" + "cret"  # the traceback shows source lines
    client = HTTPClient(fault.base_url, retries=0, headers={"authorization": secret}, connections=connections)
    fault.behave(faults.close())
    with pytest.raises(NetworkError) as caught:
        client.get(f"/models?key={secret}")
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_wrong_arguments_are_refused_before_anything_is_sent(fault: FaultServer, connections: ConnectionPool) -> None:
    client = HTTPClient(fault.base_url, connections=connections)
    with pytest.raises(ConfigError):
        HTTPClient("api.openai.com/v1")
    with pytest.raises(ValueError, match="timeout"):
        HTTPClient(fault.base_url, timeout=0)
    with pytest.raises(ValueError, match="timeout"):
        client.get("/models", timeout=-1)
    with pytest.raises(TypeError):
        client.post("/echo", object())
    with pytest.raises(ValueError, match="line break"):
        client.post("/echo", {}, {"x": "a\nb"})
    with pytest.raises(ValueError, match="header name"):
        client.post("/echo", {}, {"x y": "a"})
    assert fault.counters()["requests"] == 0
    assert all(each["in_use"] == 0 for each in connections.stats().values())


def test_shared_pool_is_the_default(fault: FaultServer) -> None:
    import perfkit

    assert HTTPClient(fault.base_url).post("/echo", {"a": 1}).json() == {"a": 1}
    assert perfkit.connections.stats()[f"127.0.0.1:{fault.port}"]["created"] == 1


def test_repr_names_the_address(client: HTTPClient, fault: FaultServer) -> None:
    assert repr(client) == f"HTTPClient({fault.base_url}, timeout=30, retries=0)"
