"""An application that used its connections before it was forked, under the servers people run: who gets whose reply?

`wrong_of` starts a server with four workers whose parent has a warm connection to an echo server; each worker then
asks for words of its own, and counts what comes back that is not them. As a module it is the WSGI application.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["PORTION", "SERVERS", "wrong_of"]

HERE = Path(__file__).resolve().parent
PORTION = 20  # echoes for each request
WORKERS = "4"
PATIENCE = 30.0  # seconds until a server must answer
SERVERS = {
    "gunicorn --preload": ("gunicorn", "--preload", "--workers", WORKERS, "--bind", "fd://{fd}", "_prefork"),
    "uWSGI prefork": (
        *("pyuwsgi", "--master", "--processes", WORKERS, "--die-on-term", "--need-app", "--disable-logging"),
        *("--http-socket", "fd://{fd}", "--module", "_prefork"),
    ),
}


# --- the application, in its server


def _ways(url: str, ca_file: str | None) -> dict[str, Callable[[bytes], bytes]]:
    import urllib3

    from perfkit.transport import ConnectionPool, HTTPClient

    client = HTTPClient(url, retries=0, timeout=5, connections=ConnectionPool(ca_file=ca_file, proxy=""))
    context = None if ca_file is None else ssl.create_default_context(cafile=ca_file)
    rival = urllib3.PoolManager(ssl_context=context, timeout=2, retries=False)
    return {
        "perfkit": lambda word: client.post("/echo", word).body,
        "urllib3": lambda word: rival.request("POST", f"{url}/echo", body=word).data,
    }


def _wrong(echo: Callable[[bytes], bytes], name: str) -> int:
    wrong = 0
    for number in range(PORTION):
        word = f"{os.getpid()} {name} {number}".encode()
        try:
            wrong += word not in echo(word)
        except Exception:  # whatever a library raises for bytes that are somebody else's
            wrong += 1
    return wrong


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    _, way, name = environ["PATH_INFO"].split("/")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{_wrong(ways[way], name)} {os.getpid()}".encode()]


if __name__ == "_prefork":
    ways = _ways(os.environ["ECHO_URL"], os.environ.get("ECHO_CA"))
    for each in ways.values():
        each(b"the parent's")  # so that there is a connection to inherit


# --- its handle


def wrong_of(server: str, url: str, ca_file: str | None, requests: int) -> dict[str, int]:
    """Return how many of `requests` times `PORTION` echoes were wrong or failed, by client, and how many asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    command = [part.format(fd=listener.fileno()) for part in SERVERS[server]]
    command[0] = shutil.which(command[0], path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") or command[0]
    env = os.environ | {"ECHO_URL": url, "PYTHONPATH": f"{HERE.parent}:{HERE}"}
    if ca_file is not None:
        env["ECHO_CA"] = ca_file
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=env, pass_fds=[listener.fileno()], **quiet) as process:
        try:
            port = listener.getsockname()[1]
            _get(port, "perfkit/first")
            told = {way: _asked(port, way, requests) for way in ("perfkit", "urllib3")}
            wrong = {way: sum(number for number, _ in each) for way, each in told.items()}
            return {**wrong, "workers": len({worker for _, worker in told["perfkit"]})}
        finally:
            process.terminate()
            listener.close()


def _asked(port: int, way: str, requests: int) -> list[tuple[int, int]]:
    with ThreadPoolExecutor(8) as askers:
        return list(askers.map(lambda number: _get(port, f"{way}/{number}"), range(requests)))


def _get(port: int, path: str) -> tuple[int, int]:
    """Return the wrong ones, and who asked."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE) as reply:
                wrong, worker = reply.read().split()
                return int(wrong), int(worker)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
