"""The server that benchmarks of the transport call: tiny, in a process of its own, over TLS 1.3 or without.

What it answers depends on the path alone: 2 KB of JSON in the format of a large provider with its 25 header fields, or
1000 events where the request asks for a stream. `--delay` stands for the time a model takes.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

__all__ = ["BODY", "CHAT", "EVENTS", "FIELDS", "HANG", "MESSAGES", "serving"]

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 1960}]}).encode()
FIELDS = {"content-type": "application/json", "authorization": "Bearer " + "k" * 50, "cookie": "__cf_bm=" + "c" * 120}
EVENTS = 1000
HANG = b'"hang":true'  # in a body that is answered after a minute
_MOST_KNOWN = 64  # requests
COOKIE = ("set-cookie", "__cf_bm=" + "c" * 120 + "; path=/; secure; httponly")  # to clients that have none yet
REPLY_FIELDS = [
    ("date", "Fri, 20 Nov 2026 12:00:00 GMT"),
    ("connection", "keep-alive"),
    ("access-control-expose-headers", "X-Request-ID"),
    ("openai-organization", "org-0123456789"),
    ("openai-processing-ms", "512"),
    ("openai-version", "2020-10-01"),
    ("openai-project", "proj_0123456789"),
    ("x-ratelimit-limit-requests", "10000"),
    ("x-ratelimit-limit-tokens", "2000000"),
    ("x-ratelimit-remaining-requests", "9999"),
    ("x-ratelimit-remaining-tokens", "1999000"),
    ("x-ratelimit-reset-requests", "6ms"),
    ("x-ratelimit-reset-tokens", "30ms"),
    ("x-request-id", "req_0123456789abcdef0123456789abcdef"),
    ("x-envoy-upstream-service-time", "520"),
    ("x-content-type-options", "nosniff"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
    ("cf-cache-status", "DYNAMIC"),
    COOKIE,
    ("server", "cloudflare"),
    ("cf-ray", "0123456789abcdef-FRA"),
    ("alt-svc", 'h3=":443"; ma=86400'),
    ("x-robots-tag", "none"),
]
CHUNK = {
    "id": "chatcmpl-0123456789", "object": "chat.completion.chunk", "created": 1700000000, "model": "m",
    "service_tier": "default", "system_fingerprint": "fp_0123456789", "obfuscation": "abcdefgh", "usage": None,
    "choices": [{"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None}],
}  # fmt: skip


_COOKIE_LINE = "{}: {}\r\n".format(*COOKIE).encode()


def _head(kind: str, framing: tuple[str, str]) -> bytes:
    fields = [("content-type", kind), *REPLY_FIELDS, framing]
    return ("HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n").encode()


def _whole(value: object) -> bytes:
    body = json.dumps(value).encode()
    return _head("application/json", ("content-length", str(len(body)))) + body


def _replies() -> dict[str, bytes]:
    text = "y" * 1700
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 500, "completion_tokens": 400, "total_tokens": 900}
    chat = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    said = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
    }
    ended = {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 500, "output_tokens": 400}}
    event = b"data: " + json.dumps(CHUNK).encode() + b"\n\n"
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [event] * EVENTS)
    end = b"e\r\ndata: [DONE]\n\n\r\n"
    stream = _head("text/event-stream", ("transfer-encoding", "chunked")) + pieces + end
    return {CHAT: _whole(chat), MESSAGES: _whole(said | ended), "stream": stream}


# --- its process


def serve(options: argparse.Namespace) -> None:
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(options.certificate)
    listener = socket.create_server((options.host, 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    _Loop(listener, context, options.delay).run()


class _Loop:
    """One thread for all connections: threads would wait for each other's turn and be slower than some clients."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None, delay: float) -> None:
        self._listener = listener
        self._context = context
        self._delay = delay
        self._replies = _replies()
        self._known: dict[bytes, bytes] = {}
        self._peers: dict[int, _Peer] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []  # a heap of delayed replies
        self._order = itertools.count()
        self._accepted = 0
        self._epoll = select.epoll()
        for watched in (listener, sys.stdin):
            self._epoll.register(watched, select.EPOLLIN)

    def run(self) -> None:
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for descriptor, events in self._epoll.poll(wait):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor == sys.stdin.fileno():
                    self._tell()
                else:
                    peer = self._peers[descriptor]
                    self._guarded(peer, self._flush if events & select.EPOLLOUT else self._take)
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()

    def _tell(self) -> None:
        """Each line asks for the number of connections so far; the end ends the process."""
        if not sys.stdin.readline():
            os._exit(0)
        print(self._accepted, flush=True)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        self._accepted += 1
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._peers[sock.fileno()] = _Peer(sock)
        self._epoll.register(sock, select.EPOLLIN)

    def _guarded(self, peer: _Peer, step: Callable[[_Peer], None]) -> None:
        try:
            step(peer)
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        except OSError:
            if peer.sock.fileno() >= 0:
                self._epoll.unregister(peer.sock)
                del self._peers[peer.sock.fileno()]
                peer.sock.close()

    def _take(self, peer: _Peer) -> None:
        piece = peer.sock.recv(65536)  # over TLS the handshake too
        if not piece:
            raise ConnectionError("the client has closed")
        known = None if self._delay or peer.got or peer.owed else self._known.get(piece)
        if known is not None:  # read before: what a client costs shows best where the server costs little
            peer.owed.append(known)
            self._flush(peer)
            return
        peer.got += piece
        while (size := _size(peer.got)) is not None:
            request, peer.got = peer.got[:size], peer.got[size:]
            delay = self._delay + (60.0 if HANG in request else 0.0)
            if delay:
                later: Callable[[], None] = partial(self._guarded, peer, partial(self._reply, request=request))
                heapq.heappush(self._due, (time.monotonic() + delay, next(self._order), later))
            else:
                self._reply(peer, request)

    def _reply(self, peer: _Peer, request: bytes) -> None:
        if b'"stream":true' in request or b'"stream": true' in request:
            peer.owed += [
                self._replies["stream"],
                b"0\r\n\r\n",
            ]  # the end is a packet of its own, as behind most proxies
        else:
            reply = self._replies[MESSAGES if MESSAGES.encode() in request[:40] else CHAT]
            if b"\r\ncookie: __cf" in request.lower():
                reply = reply.replace(_COOKIE_LINE, b"")
            peer.owed.append(reply)
            if HANG not in request and len(self._known) < _MOST_KNOWN:
                self._known[request] = reply
        self._flush(peer)

    def _flush(self, peer: _Peer) -> None:
        blocked = False
        while peer.owed and not blocked:
            try:
                sent = peer.sock.send(peer.owed[0])
            except (ssl.SSLWantWriteError, BlockingIOError):
                blocked = True
            else:
                peer.owed[0] = peer.owed[0][sent:]
                if not peer.owed[0]:
                    del peer.owed[0]
        if blocked != peer.blocked:
            peer.blocked = blocked
            self._epoll.modify(peer.sock, select.EPOLLOUT if blocked else select.EPOLLIN)


class _Peer:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.got = b""
        self.owed: list[bytes] = []
        self.blocked = False


def _size(got: bytes) -> int | None:
    """Return the bytes of the first request, None while it is not whole."""
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return None
    start = got.lower().find(b"content-length:", 0, end) + 15
    size = end + 4 + int(got[start : got.find(b"\r\n", start)])
    return size if len(got) >= size else None


# --- its handle


class Served:
    """The running server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def connections(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def serving(
    certificate: str | None = None, *, delay: float = 0.0, host: str = "127.0.0.1", prefix: Sequence[str] = ()
) -> Iterator[Served]:
    """Run the server; `prefix` is put before its command, to start it in a network of its own."""
    command = [*prefix, sys.executable, __file__, "--certificate", certificate or "", "--host", host]
    with subprocess.Popen(
        [*command, "--delay", str(delay)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        try:
            yield Served(process)
        finally:
            process.stdin.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", default="")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--delay", type=float, default=0.0)
    serve(parser.parse_args())
