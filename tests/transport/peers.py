"""Servers and processes made of what a single test needs: scripted sockets, forked children, and waiting for others."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from _servers import polled

Script = Callable[[socket.socket], None]


def descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Peer:
    """A server on the loopback: each script serves one connection, the last one all further ones.

    Attributes:
        accepted: number of connections so far.
        errors: what scripts raised, apart from broken connections.
    """

    def __init__(self, *scripts: Script, tls: str | None = None) -> None:
        self._scripts = scripts
        self._context = None
        if tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(tls)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self.accepted = 0
        self.errors: list[Exception] = []
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a last reply may wait, and die with a RST
            self._sockets.append(sock)
            script = self._scripts[min(self.accepted, len(self._scripts) - 1)]
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(script, sock))
            self._threads.append(thread)
            thread.start()

    def _serve(self, script: Script, sock: socket.socket) -> None:
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            with sock:
                script(sock)
        except OSError:
            pass
        except Exception as error:
            self.errors.append(error)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for sock in self._sockets:
            sock.close()
        assert self.errors == []


def read_request(sock: socket.socket) -> bytes:
    """Return one request, head and body; b"" at the end of the connection."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = sock.recv(65536)
        if not piece:
            return b""
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def tunnel(sock: socket.socket) -> None:
    """Answer CONNECT and pass bytes both ways."""
    _, target, _ = read_request(sock).split(b" ", 2)
    host, _, port = target.decode().partition(":")
    with socket.create_connection((host, int(port))) as upstream, suppress(OSError):
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        pairs = {sock: upstream, upstream: sock}
        while True:
            for source in select.select(list(pairs), [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                pairs[source].sendall(data)


def reply(body: bytes = b"fine", *fields: str, status: str = "200 OK") -> bytes:
    """Return a reply with its length and `fields`."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answering(*replies: bytes) -> Script:
    """Answer each request of a connection in turn, the last reply again and again."""

    def script(sock: socket.socket) -> None:
        count = 0
        while read_request(sock):
            sock.sendall(replies[min(count, len(replies) - 1)])
            count += 1

    return script


V4, V6 = "127.0.0.1", "::1"


class Place:
    """A port of the loopback that is open, refuses, or swallows what is sent to it, for each family."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.port = 0
        self._sockets: dict[socket.AddressFamily, socket.socket] = polled(self._taken)

    def _taken(self) -> dict[socket.AddressFamily, socket.socket] | None:
        """Return a socket of each family bound to the same port; None when somebody has it in the second."""
        four, six = socket.socket(socket.AF_INET), socket.socket(socket.AF_INET6)
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        four.bind((V4, 0))
        self.port = four.getsockname()[1]
        try:
            six.bind((V6, self.port))
        except OSError as error:
            four.close()
            six.close()
            if error.errno != errno.EADDRINUSE:
                raise
            return None
        return {sock.family: self._open.enter_context(sock) for sock in (four, six)}

    def listen(self, family: socket.AddressFamily, backlog: int = 8) -> socket.socket:
        sock = self._sockets[family]
        sock.listen(backlog)
        return sock

    def swallow(self, family: socket.AddressFamily) -> None:
        """Have the kernel drop each further SYN: the queue of the listener is full and nobody accepts."""
        where = self.listen(family, 0).getsockname()
        while True:
            filler = self._open.enter_context(socket.socket(family))
            filler.settimeout(0.3)
            try:
                filler.connect(where)
            except TimeoutError:
                return

    def close(self) -> None:
        self._open.close()
