"""Passing requests on to an upstream, and its replies back."""

from __future__ import annotations

import http.client
import http.server
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from testing.clients import CHAT, ask, connect, emptied, statuses

from perfkit.testing import faults
from perfkit.testing.faults import FaultServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def _front(_fault_server: FaultServer) -> Iterator[FaultServer]:
    with FaultServer(upstream=_fault_server.root_url) as front:
        yield front


@pytest.fixture
def front(_front: FaultServer) -> FaultServer:
    return emptied(_front)


@pytest.fixture
def server(front: FaultServer, fault: FaultServer) -> FaultServer:
    """Return the upstream, once the front has let go of it."""
    return emptied(fault)


def test_unscripted_requests_are_passed_on_whole(server: FaultServer, front: FaultServer) -> None:
    with closing(connect(front)) as client:
        client.request("POST", "/v1/echo?a=1", iter([b"bo", b"dy"]), {"X-Key": "v"}, encode_chunked=True)
        reply = client.getresponse()
        assert reply.read() == b"body"
        assert reply.headers["x-request-id"] == "req_1"
        for _ in range(3):
            ask(client, stream=True).read()
    seen = server.stats()
    assert (seen["connections"], seen["requests"]) == (1, 4)
    assert (seen["recent"][0]["query"], seen["recent"][0]["headers"]["x-key"]) == ("a=1", "v")
    assert front.counters()["completed"] == 4


def test_the_upstreams_stream_is_passed_on_as_it_comes(server: FaultServer, front: FaultServer) -> None:
    server.behave(faults.stall(faults.ok("a b"), after_events=1))
    with closing(connect(front)) as client:
        reply = ask(client, stream=True)
        server.wait_until(lambda seen: seen["held"] == 1)
        assert reply.read1().startswith(b"data: ")
        server.release()
        assert reply.read().endswith(b"data: [DONE]\n\n")


def test_behaviours_spoil_the_upstreams_reply(server: FaultServer, front: FaultServer) -> None:
    server.behave(faults.ok("from behind"))
    front.behave(faults.status(503), faults.gzip(), faults.cut(after_bytes=5, how="fin"))
    with closing(connect(front)) as client:
        assert statuses(client, CHAT) == [503]
        assert ask(client).headers["content-encoding"] == "gzip"
        client.close()
        with pytest.raises(http.client.IncompleteRead):
            ask(client).read()
    assert server.counters()["requests"] == 2


def test_leaving_early_ends_the_upstreams_request_too(server: FaultServer, front: FaultServer) -> None:
    server.behave(faults.hang())
    client = connect(front)
    client.request("GET", "/health")
    server.wait_until(lambda seen: seen["held"] == 1)
    client.close()
    server.wait_until(lambda seen: seen["aborted_by_client"] == 1 and seen["open_connections"] == 0)


def test_a_dead_upstream_is_a_bad_gateway(server: FaultServer, front: FaultServer) -> None:
    server.refuse()
    with closing(connect(front)) as client:
        assert statuses(client, CHAT) == [502]


def test_an_upstream_that_breaks_off_breaks_the_reply_off(server: FaultServer, front: FaultServer) -> None:
    server.behave(faults.reset(), faults.cut(after_bytes=5, how="fin"))
    with closing(connect(front)) as client:
        with pytest.raises(http.client.RemoteDisconnected):
            ask(client)
        with pytest.raises(http.client.IncompleteRead):
            ask(client).read()
    assert front.counters()["cut_by_server"] == 2


def test_an_upstream_may_close_idle_connections(server: FaultServer, front: FaultServer) -> None:
    server.behave(faults.ok(), faults.reset(), faults.ok())
    with closing(connect(front)) as client:
        assert statuses(client, CHAT, CHAT) == [200, 200]
    assert server.counters()["connections"] == 2


class Old(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"old style")

    def log_message(self, *_: object) -> None:
        pass


def test_an_upstream_may_end_its_replies_by_closing() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Old) as old:
        thread = threading.Thread(target=old.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with FaultServer(upstream=f"http://127.0.0.1:{old.server_port}") as front:
                for _ in range(2):
                    with closing(connect(front)) as client:
                        client.request("GET", "/")
                        assert client.getresponse().read() == b"old style"
        finally:
            old.shutdown()
            thread.join()
