"""The server that benchmarks of the transport call: tiny, in a process of its own, over TLS 1.3 or without.

What it answers depends on the path alone: 2 KB of JSON in the format of a large provider with its 25 header fields, or
1000 events where the request asks for a stream. `--delay` stands for the time a model takes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["BODY", "CHAT", "EVENTS", "FIELDS", "HANG", "MESSAGES", "serving"]

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 1960}]}).encode()
FIELDS = {"content-type": "application/json", "authorization": "Bearer " + "k" * 50, "cookie": "__cf_bm=" + "c" * 120}
EVENTS = 1000
HANG = b'"hang":true'  # in a body that is answered after a minute
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
    answers = _Answers(context, options.delay)
    threading.Thread(target=answers.accept, args=(listener,), daemon=True).start()
    for _ in sys.stdin:  # each line asks for the number of connections so far; the end ends the process
        print(answers.connections, flush=True)
    os._exit(0)


class _Answers:
    def __init__(self, context: ssl.SSLContext | None, delay: float) -> None:
        self._context = context
        self._delay = delay
        self._replies = _replies()
        self.connections = 0

    def accept(self, listener: socket.socket) -> None:
        while True:
            peer, _ = listener.accept()
            self.connections += 1
            threading.Thread(target=self.answer, args=(peer,), daemon=True).start()

    def answer(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._context is not None:
                peer = self._context.wrap_socket(peer, server_side=True)
            self._converse(peer)
        except OSError:
            pass

    def _converse(self, peer: socket.socket) -> None:
        got = b""
        while True:
            end = got.find(b"\r\n\r\n")
            if end >= 0:
                start = got.lower().find(b"content-length:", 0, end) + 15
                size = end + 4 + int(got[start : got.find(b"\r\n", start)])
                if len(got) >= size:
                    self._reply(peer, got[:size])
                    got = got[size:]
                    continue
            piece = peer.recv(65536)
            if not piece:
                return
            got += piece

    def _reply(self, peer: socket.socket, request: bytes) -> None:
        if self._delay:
            time.sleep(self._delay)
        if HANG in request:
            time.sleep(60)
        if b'"stream":true' in request or b'"stream": true' in request:
            peer.sendall(self._replies["stream"])
            peer.sendall(b"0\r\n\r\n")  # a packet of its own, as behind most proxies
        else:
            reply = self._replies[MESSAGES if MESSAGES.encode() in request[:40] else CHAT]
            peer.sendall(reply if b"\r\ncookie: __cf" not in request.lower() else reply.replace(_COOKIE_LINE, b""))


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
