"""The fault server's process: `python -m perfkit.testing._fault_server`; `faults.FaultServer` starts and steers it.

One event loop owns everything, so nothing needs a lock. Tests talk to it through a second, plain port, one JSON line
each way, so that asking never shows up among the connections that are counted. What it counts is what it saw itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from collections import deque
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from perfkit.testing._behaviours import Behaviour
from perfkit.testing._fault_connection import Connection, Counts
from perfkit.testing._upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Server", "main"]

LOOPBACK = "127.0.0.1"
LINE = 2**26  # bytes of the longest control line: scripts may hold whole bodies


class Script:
    """Behaviours for the requests to come, in order."""

    def __init__(self, behaviours: list[Behaviour], then: str) -> None:
        self._waiting = deque(behaviours)
        self._repeats = then == "repeat"

    def next(self) -> Behaviour | None:
        """Return the next behaviour, None for the usual reply."""
        if self._repeats and len(self._waiting) == 1:
            return self._waiting[0]
        return self._waiting.popleft() if self._waiting else None


class Server:
    """The counted side: listens, accepts, and carries out what the control side says.

    Args:
        options: port, latency, connect_latency (seconds), upstream (address or None), certificate (PEM file or None).
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.latency: float = options.latency
        self.connect_latency: float = options.connect_latency
        self.tls = _tls(options.certificate)
        self.upstream = Upstream(options.upstream) if options.upstream else None
        self.counts = Counts()
        self.open: set[Connection] = set()
        self.in_flight = 0
        self.held = 0
        self._scripts: dict[str | None, Script] = {}
        self._accepted = 0
        self._loop = asyncio.get_running_loop()
        self.gate = self._loop.create_future()
        self._reserved = _bound(options.port)  # never listens: keeps the port while nobody does
        self.port: int = self._reserved.getsockname()[1]
        self._listening: socket.socket | None = None
        self.accept()

    # --- connections ---

    def _on_connect(self) -> None:
        assert self._listening is not None
        try:
            sock, _ = self._listening.accept()
        except BlockingIOError:
            return
        self._accepted += 1
        connection = Connection(self, self._accepted)
        self.open.add(connection)
        self.counts.connections += 1
        self.counts.peak_connections = max(self.counts.peak_connections, len(self.open))
        connection.open(sock)

    def next_behaviour(self, path: str) -> Behaviour | None:
        """Return what is scripted for a request to `path`, for its path first; None for nothing."""
        found = (script for glob, script in self._scripts.items() if glob is not None and fnmatchcase(path, glob))
        script = next(found, self._scripts.get(None))
        return None if script is None else script.next()

    # --- control ---

    def behave(self, script: list[dict[str, Any]], path: str | None, then: str) -> None:
        """Set the script for `path`, or the general one."""
        self._scripts.pop(path, None)
        if script:
            self._scripts[path] = Script([Behaviour.from_dict(step) for step in script], then)

    def reset(self) -> None:
        """Forget scripts and counts, drop what is held, and listen."""
        self._scripts.clear()
        self.release(drop=True)
        self.counts = Counts(peak_connections=len(self.open))
        self.accept()

    def release(self, *, drop: bool) -> int:
        """End every hold; return how many there were."""
        gate, self.gate = self.gate, self._loop.create_future()
        gate.set_result(not drop)
        return self.held

    def accept(self) -> None:
        """Listen, if not done already."""
        if self._listening is None:
            self._listening = _bound(self.port)
            self._listening.listen(1024)
            self._loop.add_reader(self._listening, self._on_connect)

    def refuse(self) -> None:
        """Stop listening; the port stays ours."""
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def disconnect(self, how: str) -> int:
        """End every open connection; return how many there were."""
        connections = list(self.open)
        for connection in connections:
            connection.end(how)
        return len(connections)

    def counters(self) -> dict[str, Any]:
        """Return all numbers."""
        gauges = {"open_connections": len(self.open), "in_flight": self.in_flight, "held": self.held}
        counted = {entry.name: getattr(self.counts, entry.name) for entry in fields(Counts)}
        del counted["recent"]
        return counted | gauges

    def stats(self) -> dict[str, Any]:
        """Return all numbers and the recent requests."""
        return self.counters() | {"recent": list(self.counts.recent)}


def _bound(port: int) -> socket.socket:
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only where the protocol is named
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    sock.bind((LOOPBACK, port))
    return sock


def _tls(certificate: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


class Control:
    """The control side: one JSON object a line, {"op": name, arguments...}, answered by {"value": ...}."""

    def __init__(self, server: Server) -> None:
        self._ops: dict[str, Callable[..., Any]] = {
            op.__name__: op
            for op in (
                server.behave,
                server.reset,
                server.release,
                server.accept,
                server.refuse,
                server.disconnect,
                server.counters,
                server.stats,
            )
        }

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one control connection."""
        try:
            while line := await reader.readline():
                order = json.loads(line)
                value = self._ops[order.pop("op")](**order)
                writer.write(json.dumps({"value": value}).encode() + b"\n")
        finally:
            writer.close()


def _die_with(parent: int) -> None:
    """End this process soon after `parent` does.

    A look now and then, because a forked child of the parent would keep a pipe open, and PR_SET_PDEATHSIG already goes
    off when the one thread ends that started us.
    """
    if os.getppid() != parent:
        os._exit(0)
    asyncio.get_running_loop().call_later(0.5, _die_with, parent)


async def _run(options: argparse.Namespace) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    server = Server(options)
    control = await asyncio.start_server(Control(server).talk, LOOPBACK, 0, limit=LINE)
    if options.parent:
        _die_with(options.parent)
    sys.stdout.write(json.dumps({"port": server.port, "control": control.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await control.serve_forever()


def main() -> None:
    """Serve until killed, or until the parent dies."""
    parser = argparse.ArgumentParser(prog="python -m perfkit.testing._fault_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port to listen on, 0 for any")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every reply")
    parser.add_argument("--connect-latency", type=float, default=0.0, help="seconds before a new connection is served")
    parser.add_argument("--upstream", help="http://host:port that unscripted requests are passed on to")
    parser.add_argument("--certificate", help="PEM file with key and certificates: speak TLS")
    parser.add_argument("--parent", type=int, help="process id to die with")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
