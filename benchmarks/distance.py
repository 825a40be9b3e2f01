"""What 40 ms of round trip cost the official SDKs on their own HTTP client and on perfkit's, and how a black hole ends.

    python benchmarks/distance.py [--quick] [--json] [--streams N]

Server and client are processes in two network namespaces; it needs root (elsewhere it says so and ends with 0). The
server answers at once, so that what is left is the network. `--quick` leaves out the black hole.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import trustme
from openai import OpenAI

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import perfkit.integrations.openai
from benchmarks import _distance, _serving
from perfkit.errors import TransportError
from perfkit.transport import ConnectionPool, HTTPClient, dial

ROUND_TRIP = 0.04  # seconds
GAP = 6.0  # seconds; longer than the SDKs' own client keeps an idle connection
USER_TIMEOUT: Any = next(value for _, name, value in dial.SOCKET_OPTIONS if name == socket.TCP_USER_TIMEOUT)  # ms
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def clients(port: int, ca_file: str) -> dict[str, OpenAI]:
    stock = httpx2.Client(verify=ssl.create_default_context(cafile=ca_file), follow_redirects=True)
    ours = perfkit.integrations.openai.http_client(connections=ConnectionPool(ca_file=ca_file, proxy=""))
    url = f"https://{_distance.SERVER}:{port}/v1"
    return {name: OpenAI(api_key="k", base_url=url, http_client=c) for name, c in (("stock", stock), ("perfkit", ours))}


def first_token(client: OpenAI) -> float:
    began = time.perf_counter()
    with client.chat.completions.create(**ASK, stream=True) as stream:
        next(iter(stream))
        seconds = time.perf_counter() - began
        for _ in stream:
            pass
    return seconds


def call(client: OpenAI) -> float:
    began = time.perf_counter()
    client.chat.completions.create(**ASK)
    return time.perf_counter() - began


def several(work: Callable[[OpenAI], float], client: OpenAI, times: int) -> float:
    return statistics.median(work(client) for _ in range(times)) * 1e3


def black_hole(port: int, ca_file: str, flag: Path) -> dict[str, float]:
    """Return the seconds after which two calls notice that the network has gone: one waits, one is being sent."""
    connections = ConnectionPool(ca_file=ca_file, proxy="")
    client = HTTPClient(f"https://{_distance.SERVER}:{port}", timeout=90, retries=0, connections=connections)
    connections.warm_up(client.base_url, 2)
    gone = list[float]()

    def noticed(body: bytes) -> float:
        try:
            client.post(_serving.CHAT, body)
        except TransportError:
            return time.perf_counter() - gone[0]
        return math.nan

    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(noticed, b"{" + _serving.HANG + b"}")
        time.sleep(0.5)  # the request has arrived, and its acknowledgement too
        flag.touch()
        gone.append(time.perf_counter())
        found = {"lost_sending_s": noticed(_serving.BODY), "lost_waiting_s": waiting.result()}
    flag.unlink()
    return found


def inside(options: argparse.Namespace) -> dict[str, Any]:
    """Measure; this runs at the client's end."""
    made = clients(options.port, options.ca_file)
    found: dict[str, Any] = {}
    for name, client in made.items():
        cold, warm = call(client) * 1e3, several(call, client, 5)
        found[name] = {
            "cold_ms": cold,
            "warm_ms": warm,
            "first_token_ms": several(first_token, client, options.streams),
        }
    time.sleep(GAP)
    for name, client in made.items():
        found[name]["after_gap_ms"] = call(client) * 1e3
    if not options.quick:
        found |= black_hole(options.port, options.ca_file, Path(options.flag))
    return found


def outside(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        return _between(options, Path(directory))


def _between(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    authority, flag = trustme.CA(), str(directory / "drop")
    ca_file, server_file = str(directory / "ca.pem"), str(directory / "server.pem")
    authority.cert_pem.write_to_path(ca_file)
    authority.issue_cert(_distance.SERVER).private_key_and_cert_chain_pem.write_to_path(server_file)
    with (
        _distance.distance(ROUND_TRIP / 2, flag) as network,
        _serving.serving(server_file, host=_distance.SERVER, prefix=network.far) as served,
    ):
        told = ["--port", served.port, "--ca-file", ca_file, "--flag", flag, "--streams", options.streams]
        more = ["--quick"] if options.quick else []
        command = [*network.inside, sys.executable, __file__, "--inside", *map(str, told), *more]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout)
        found["connections"] = served.connections()
    return dict(found)


def show(found: dict[str, Any]) -> None:
    print(f"{'ms at 40 ms round trip':24}{'cold':>8}{'warm':>8}{'first token':>13}{'after 6 s':>11}")
    for name in ("stock", "perfkit"):
        row = found[name]
        figures = row["cold_ms"], row["warm_ms"], row["first_token_ms"], row["after_gap_ms"]
        print("{:24}{:8.0f}{:8.0f}{:13.0f}{:11.0f}".format(f"openai SDK, {name}", *figures))
    if "lost_sending_s" in found:
        print(f"black hole, TCP_USER_TIMEOUT {USER_TIMEOUT / 1000:g} s: ", end="")
        print(f"noticed after {found['lost_sending_s']:.1f} s sending, {found['lost_waiting_s']:.1f} s waiting")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the black hole; about 12 seconds")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    for name in ("--port", "--ca-file", "--flag"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(inside(options)))
        return 0
    if not _distance.possible():
        print("needs root, ip and /dev/net/tun to make a network", file=sys.stderr)
        return 0
    found = outside(options)
    print(json.dumps(found)) if options.json else show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
