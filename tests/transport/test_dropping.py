"""Calls that another thread gives up, as a hedge that has lost: nothing more of them reaches a server."""

from __future__ import annotations

import threading

import pytest
from _servers import polled

from perfkit.errors import NetworkError
from perfkit.resilience.cancel import Scope
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool, HTTPClient
from perfkit.transport.hosts import HostPool

CHAT = "/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "a"}]}


def asks(server: FaultServer) -> int:
    paths: dict[str, int] = server.counters()["paths"]
    return paths.get(f"/v1{CHAT}", 0)


def test_dropped_call_on_a_used_connection_is_not_sent_again(
    any_client: HTTPClient, any_fault: FaultServer, any_connections: ConnectionPool
) -> None:
    any_client.post("/echo", {})
    any_fault.behave(faults.hang())
    scope, raised = Scope(), list[BaseException]()

    def work() -> None:
        try:
            with scope:
                any_client.post(CHAT, ASK, timeout=5)
        except NetworkError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    polled(lambda: asks(any_fault) == 1)
    scope.cancel()
    thread.join(5)
    (stats,) = any_connections.stats().values()
    assert (len(raised), asks(any_fault), any_fault.counters()["connections"]) == (1, 1, 1)
    assert (stats["in_use"], stats["idle"]) == (0, 0)


@pytest.mark.parametrize("retries", [0, 2])
def test_call_dropped_before_it_is_sent_is_not_sent(
    any_fault: FaultServer, any_connections: ConnectionPool, retries: int
) -> None:
    client, scope = HTTPClient(any_fault.base_url, connections=any_connections, retries=retries), Scope()
    scope.cancel()
    with pytest.raises(NetworkError), scope:
        client.post(CHAT, ASK)
    assert asks(any_fault) == 0


def test_call_dropped_while_it_connects_is_not_sent_and_its_connection_not_kept(
    any_client: HTTPClient,
    any_fault: FaultServer,
    any_connections: ConnectionPool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scope, connect = Scope(), HostPool.open

    def open_and_drop(self: HostPool, *arguments: object) -> None:
        connect(self, *arguments)  # type: ignore[arg-type]
        monkeypatch.undo()
        scope.cancel()

    monkeypatch.setattr(HostPool, "open", open_and_drop)
    with pytest.raises(NetworkError), scope:
        any_client.post(CHAT, ASK)
    (stats,) = any_connections.stats().values()
    assert (asks(any_fault), stats["in_use"], stats["idle"]) == (0, 0, 0)
    assert any_client.post(CHAT, ASK).status == 200
