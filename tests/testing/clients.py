"""How the tests of the fault server ask it: by the plain client of the standard library, one connection each."""

from __future__ import annotations

import http.client
import json

from perfkit.testing.faults import FaultServer

CHAT = "/v1/chat/completions"


def connect(server: FaultServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)


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


def emptied(server: FaultServer) -> FaultServer:
    """Return a server as if it had just been started: behaving well, its counters at zero, nobody connected."""
    server.disconnect()
    server.wait_until(lambda seen: seen["open_connections"] == 0)
    server.reset()
    return server
