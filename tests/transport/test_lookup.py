from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from _servers import polled

from perfkit.errors import DeadlineExceeded
from perfkit.transport import ConnectionPool, HTTPClient
from perfkit.transport.lookup import addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_address_is_found(host: str) -> None:
    assert addresses(host, 80, 10.0)[0][4][1] == 80


def test_numeric_address_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", None)
    assert addresses("127.0.0.1", 80, 1.0)


def test_unknown_name_is_an_error_of_the_caller() -> None:
    with pytest.raises(socket.gaierror):
        addresses("no-such-host.invalid", 80, 20.0)


def test_resolver_that_hangs_ends_at_the_deadline(connections: ConnectionPool, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        answered.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(DeadlineExceeded, match="while connecting") as caught:
        HTTPClient("http://slow.test", retries=0, connections=connections).get("/", timeout=0.2)
    assert caught.value.sent is False
    answered.set()
    polled(lambda: "perfkit-lookup" not in [thread.name for thread in threading.enumerate()])
