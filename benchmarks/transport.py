"""What a call costs on a warm connection: http.client, a bare urllib3 pool handle, and perfkit, side by side.

All run in this process, in turns, against a tiny server in a process of its own, so that a busy machine slows all of
them alike; read the ratios. A call is POST 2 KB of JSON, answered by 2 KB and the 25 fields of a large provider.

    python benchmarks/transport.py [--quick] [--json] [--tls] [--calls N] [--rounds N]
"""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import json
import platform
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import urllib3

from perfkit.testing.tls import Authority
from perfkit.transport import ConnectionPool, HTTPClient

Maker = tuple[Callable[[], None], Callable[[], None]]  # make one call; close
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 1960}]}).encode()
FIELDS = {"content-type": "application/json", "authorization": "Bearer " + "k" * 50}
REPLY_FIELDS = [
    ("date", "Fri, 20 Nov 2026 12:00:00 GMT"),
    ("content-type", "application/json"),
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
    ("set-cookie", "__cf_bm=" + "c" * 120 + "; path=/; secure; httponly"),
    ("server", "cloudflare"),
    ("cf-ray", "0123456789abcdef-FRA"),
    ("alt-svc", 'h3=":443"; ma=86400'),
    ("x-robots-tag", "none"),
]


def _reply() -> bytes:
    body = json.dumps({"id": "1", "choices": [{"message": {"role": "assistant", "content": "y" * 1950}}]}).encode()
    fields = [*REPLY_FIELDS, ("content-length", str(len(body)))]
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# --- the server's process


def serve(certificate: str | None) -> None:
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), __import__("os")._exit(0)), daemon=True).start()
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=answer, args=(peer, context), daemon=True).start()


def answer(peer: socket.socket, context: ssl.SSLContext | None) -> None:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        peer = context.wrap_socket(peer, server_side=True)
    reply, got = _reply(), b""
    while True:
        end = got.find(b"\r\n\r\n")
        if end >= 0:
            start = got.lower().find(b"content-length:") + 15
            length = int(got[start : got.find(b"\r\n", start)])
            if len(got) >= end + 4 + length:
                peer.sendall(reply)
                got = got[end + 4 + length :]
                continue
        piece = peer.recv(65536)
        if not piece:
            return
        got += piece


@contextmanager
def server(certificate: str | None) -> Iterator[int]:
    command = [sys.executable, __file__, "--serve", certificate or ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


# --- the clients: each a function that makes one call


def with_http_client(port: int, context: ssl.SSLContext | None) -> Maker:
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)

    def call() -> None:
        connection.request("POST", "/v1/chat/completions", BODY, FIELDS)
        connection.getresponse().read()

    return call, connection.close


def with_urllib3(port: int, context: ssl.SSLContext | None) -> Maker:
    if context is None:
        pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=1, block=True)
    else:
        pool = urllib3.HTTPSConnectionPool("127.0.0.1", port, maxsize=1, block=True, ssl_context=context)

    def call() -> None:
        pool.urlopen("POST", "/v1/chat/completions", BODY, FIELDS).data  # noqa: B018 - reading is the point

    return call, pool.close


def with_perfkit(port: int, ca_file: str | None) -> Maker:
    connections = ConnectionPool(ca_file=ca_file)
    scheme = "http" if ca_file is None else "https"
    client = HTTPClient(f"{scheme}://127.0.0.1:{port}/v1", retries=0, headers=FIELDS, connections=connections)

    def call() -> None:
        client.post("/chat/completions", BODY).body  # noqa: B018 - as above

    return call, connections.close


def measure(port: int, ca_file: str | None, calls: int, rounds: int) -> dict[str, dict[str, float]]:
    context = None if ca_file is None else ssl.create_default_context(cafile=ca_file)
    made = {
        "http.client": with_http_client(port, context),
        "urllib3 pool": with_urllib3(port, context),
        "perfkit": with_perfkit(port, ca_file),
    }
    cpu: dict[str, list[float]] = {name: [] for name in made}
    wall: dict[str, list[float]] = {name: [] for name in made}
    for call, _ in made.values():
        for _ in range(20):
            call()
    for _ in range(rounds):
        for name, (call, _) in made.items():
            used = time.process_time()
            for _ in range(calls):
                began = time.perf_counter()
                call()
                wall[name].append(time.perf_counter() - began)
            cpu[name].append((time.process_time() - used) / calls)
    for _, close in made.values():
        close()
    reference = cpu["http.client"]
    return {
        name: {
            "cpu_us": statistics.median(cpu[name]) * 1e6,
            "cpu_ratio": statistics.median(a / b for a, b in zip(cpu[name], reference, strict=True)),
            "p50_us": statistics.median(wall[name]) * 1e6,
        }
        for name in made
    }


def run(*, tls: bool, calls: int, rounds: int) -> dict[str, dict[str, float]]:
    with Authority() as authority:
        certificate, ca_file = (authority.server_file, authority.ca_file) if tls else (None, None)
        with server(certificate) as port:
            return measure(port, ca_file, calls, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 10 seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--tls", action="store_true", help="over TLS only; without it over both")
    parser.add_argument("--calls", type=int, default=500, help="a round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve or None)
        return 0
    calls, rounds = (200, 7) if options.quick else (options.calls, options.rounds)
    kinds = {"tls": True} if options.tls else {"plain": False, "tls": True}
    result = {kind: run(tls=tls, calls=calls, rounds=rounds) for kind, tls in kinds.items()}
    if options.json:
        print(
            json.dumps(
                {
                    "python": platform.python_version(),
                    "urllib3": importlib.metadata.version("urllib3"),
                    "results": result,
                }
            )
        )
        return 0
    for kind, rows in result.items():
        print(f"{kind:8}{'CPU us/call':>14}{'x http.client':>15}{'p50 us':>10}")
        for name, row in rows.items():
            print(f"  {name:14}{row['cpu_us']:8.1f}{row['cpu_ratio']:15.2f}{row['p50_us']:10.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
