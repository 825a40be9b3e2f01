"""HTTP to providers: pooled keep-alive connections that have true deadlines, survive fork, and stream."""

from __future__ import annotations

from perfkit.transport.client import HTTPClient
from perfkit.transport.pool import ConnectionPool
from perfkit.transport.response import HTTPResponse
from perfkit.transport.sse import ServerSentEvent
from perfkit.transport.stream import HTTPStream

__all__ = ["ConnectionPool", "HTTPClient", "HTTPResponse", "HTTPStream", "ServerSentEvent"]
