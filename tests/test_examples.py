"""The examples, run as their own first lines say: under gunicorn threads, asking the real model."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest
from _parts import REPOSITORY, needs_module
from _servers import Datagrams, Server, environment, polled

from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.testing.llm import LlamaServer

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))
APPS = {"flask": "examples.flask_app:app", "django": "examples.django_app:application"}
LONGEST = 64  # lines


@dataclass(frozen=True)
class App:
    """A running example."""

    server: Server
    sent: Datagrams

    def get(self, path: str, **query: str) -> str:
        status, body = self.server.get(f"{path}?{urlencode(query)}")
        assert status == 200, body
        return body.decode()


def gunicorn(framework: str, base_url: str, statsd: str) -> Server:
    needs_module("gunicorn")
    needs_module(framework)
    env = environment(LLM_BASE_URL=base_url, STATSD=statsd, PERFKIT_METRICS__FLUSH_INTERVAL="0.2")
    return Server("gunicorn", "--bind", "fd://{fd}", "--threads", "16", APPS[framework], env=env)


@pytest.fixture(scope="module", params=APPS)
def app(request: pytest.FixtureRequest, llm: LlamaServer) -> Iterator[App]:
    """Run an example in front of the real model."""
    with Datagrams() as sent, gunicorn(request.param, llm.base_url, sent.address) as server:
        yield App(server, sent)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


def test_a_question_is_answered_once_and_then_remembered(app: App) -> None:
    first, second = (json.loads(app.get("/ask", q="What is a queue?")) for _ in range(2))
    assert first["text"].strip()
    assert first["cached"] is None
    assert second["cached"] == "exact"
    assert second["text"] == first["text"]


def test_a_stream_gives_text(app: App) -> None:
    assert app.get("/stream", q="What is a worker?").strip()


def test_statistics_tell_of_calls_cache_and_health(app: App) -> None:
    app.get("/ask", q="What is a cache?")
    stats = json.loads(app.get("/stats"))
    assert stats["calls"]["count"] >= 1
    assert stats["cache"]["misses"] >= 1
    assert stats["providers"]["main"]["status"] == "healthy"


def test_metrics_leave_as_statsd_lines(app: App) -> None:
    app.get("/ask", q="What is a metric?")
    for name in ("agent_response_time", "provider_latency", "operation_duration", "cache_miss"):
        polled(partial(app.sent.count, rf"{name}\b.*"))


@pytest.mark.parametrize("framework", APPS)
def test_what_fails_is_told_with_its_name(framework: str, fault: FaultServer) -> None:
    fault.behave(faults.unauthorized())
    with gunicorn(framework, fault.base_url, "127.0.0.1:8125") as server:
        status, body = server.get("/ask?q=anything")
    assert status == 503
    assert json.loads(body)["error"] == "AuthenticationError"


@pytest.mark.parametrize("framework", APPS)
def test_a_reader_who_leaves_ends_the_providers_stream(framework: str, fault: FaultServer) -> None:
    fault.behave(faults.ok("word " * 1000, interval=0.02))
    with gunicorn(framework, fault.base_url, "127.0.0.1:8125") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as reader:
            reader.sendall(b"GET /stream?q=long HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert reader.recv(1000)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leave at once: RST
        fault.wait_until(lambda counters: counters["aborted_by_client"] == 1, timeout=20)


def test_the_script_prints_answers_and_numbers() -> None:
    needs_module("xllamacpp")
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples/script.py")],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sources = re.findall(r"^a \w+: '.+' from (.+), \$\d", done.stdout, re.MULTILINE)
    assert sources == ["local", "local", "cache (exact)"]
    assert re.search(r"^stream: \w", done.stdout, re.MULTILINE)
    assert re.search(r"^p95 of explain: [\d.]+ ms; cache hit rate: 33 %$", done.stdout, re.MULTILINE)
    assert "'local/tiny': {'requests': 3" in done.stdout
