"""The smallest prefork server: two children of a plain fork; with BARE set, of one behind Python's back, as C forks.

Run it: python forking.py <descriptor of the listening socket>
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from servers import locks
from servers.app import application


class Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
        """Say nothing."""


class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def bare_fork() -> int:
    """Fork as uWSGI does: none of Python's at-fork hooks run."""
    locks.hold()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5.0)  # who waits for the interpreter must not have asked for it: in the child nobody takes it
    time.sleep(0.01)
    pid: int = ctypes.PyDLL(None).fork()
    sys.setswitchinterval(interval)
    if pid:
        locks.release()
    return pid


def serve(descriptor: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = Threaded(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=descriptor)
    server.server_name, server.server_port = "127.0.0.1", 0
    server.setup_environ()
    server.set_app(application)
    server.serve_forever()


def main() -> None:
    fork = bare_fork if "BARE" in os.environ else os.fork
    children: list[int] = []

    def end(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    for _ in range(2):
        pid = fork()
        if pid == 0:
            serve(int(sys.argv[1]))
        children.append(pid)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
