"""A WSGI application under gunicorn, and clients that ask it: as often a second as told, or as fast as they can."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CLIENTS", "Served", "evenly", "memory", "serving"]

HERE = Path(__file__).resolve().parent
CLIENTS = 8  # and threads of a worker
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Served:
    """One running gunicorn."""

    port: int
    master: int

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        return [int(pid) for pid in Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()]

    def cpu(self) -> float:
        """Return the processor seconds the workers have used."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.workers()]
        return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS

    def get(self, path: str, patience: float = 30) -> Any:
        """Return the JSON at a path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def ask(self, path: str, arrivals: Iterator[float]) -> list[float]:
        """Ask once per arrival, whether the one before is answered or not; return seconds from arrival to answer."""
        todo: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        seconds: list[float] = []

        def work() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            while (arrival := todo.get()) is not None:
                connection.request("GET", path)
                connection.getresponse().read()
                seconds.append(time.perf_counter() - arrival)
            connection.close()

        threads = [threading.Thread(target=work) for _ in range(2 * CLIENTS)]
        for thread in threads:
            thread.start()
        for arrival in arrivals:
            todo.put(arrival)
        for _ in threads:
            todo.put(None)
        for thread in threads:
            thread.join()
        return seconds

    def ask_each(self, path: str, number: int) -> None:
        """Ask every worker so often, one request at a time; what is at `path` tells the worker's `pid`."""
        with contextlib.ExitStack() as stack:
            connections: dict[int, http.client.HTTPConnection] = {}
            while len(connections) < len(self.workers()):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                stack.callback(connection.close)
                connection.request("GET", path)
                connections.setdefault(json.loads(connection.getresponse().read())["pid"], connection)
            for connection in connections.values():
                for _ in range(number):
                    connection.request("GET", path)
                    connection.getresponse().read()

    def saturate(self, path: str, duration: float) -> tuple[float, float]:
        """Return the requests a second that clients get answered, and the processor seconds each takes.

        They are twice as many as threads, so that no thread waits for the next request.
        """
        cpu, began, done = self.cpu(), time.perf_counter(), [0] * (2 * CLIENTS)
        end = began + duration

        def work(index: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            while time.perf_counter() < end:
                connection.request("GET", path)
                connection.getresponse().read()
                done[index] += 1
            connection.close()

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(done))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - began), (self.cpu() - cpu) / sum(done)


def evenly(duration: float, rate: float) -> Iterator[float]:
    """Yield moments of arrival, when they have come."""
    began = time.perf_counter() + 0.05
    for number in range(int(duration * rate)):
        arrival = began + number / rate
        time.sleep(max(0.0, arrival - time.perf_counter()))
        yield arrival


def memory(pid: int) -> dict[str, int]:
    """Return what the kernel tells of a process's memory, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kb) * 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


@contextlib.contextmanager
def serving(application: str, env: Mapping[str, str], *options: str, ready: str = "/report") -> Iterator[Served]:
    """Run an application of this directory until it answers at `ready`, and end it afterwards."""
    listener = socket.create_server(("127.0.0.1", 0))
    os.set_inheritable(listener.fileno(), True)
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--log-level", "warning",
               "--threads", str(CLIENTS), "--keep-alive", "60", *options, application]  # fmt: skip
    with subprocess.Popen(
        command, env=os.environ | env | {"PYTHONPATH": path}, pass_fds=[listener.fileno()], cwd=HERE
    ) as process:
        try:
            served = Served(listener.getsockname()[1], process.pid)
            served.get(ready, patience=120)
            yield served
        finally:
            process.terminate()
            process.wait(20)
            listener.close()
