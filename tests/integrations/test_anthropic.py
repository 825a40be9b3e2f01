"""The real anthropic SDK over the pool: against the fault server, plain and over TLS."""

from __future__ import annotations

import io
import os
from typing import Any

import anthropic
import httpx2
import pytest
from _forks import await_child, start_child
from integrations.asking import SECRET, all_free, failure, in_threads, said, settled, totals, wrong_answers

import perfkit.integrations.anthropic
from perfkit.metrics import PerformanceTracker
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool


def sdk(server: FaultServer, http_client: httpx2.Client, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key=SECRET, base_url=server.root_url, http_client=http_client, **{"max_retries": 0, **options}
    )


@pytest.fixture
def client(any_fault: FaultServer, connections: ConnectionPool, tracker: PerformanceTracker) -> anthropic.Anthropic:
    http_client = perfkit.integrations.anthropic.http_client(connections=connections, tracker=tracker)
    return sdk(any_fault, http_client)


def ask(client: anthropic.Anthropic, text: str = "one two three") -> str:
    block = client.messages.create(max_tokens=50, **said(text)).content[0]
    assert isinstance(block, anthropic.types.TextBlock)
    return block.text


def read(client: anthropic.Anthropic, text: str = "one two three") -> str:
    with client.messages.stream(max_tokens=50, **said(text)) as stream:
        return stream.get_final_text()


def test_messages_and_streams_share_connections(
    client: anthropic.Anthropic, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    assert {ask(client) for _ in range(3)} | {read(client) for _ in range(10)} == {"echo: one two three"}
    opened = settled(any_fault)["connections"]
    assert opened <= 3  # 1, but that a busy server may owe last bytes for too long
    assert totals(connections)["reused"] == 13 - opened


def test_stream_that_is_closed_early_ends_at_the_server(
    client: anthropic.Anthropic, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    any_fault.behave(faults.stall(after_events=4))
    with client.messages.stream(max_tokens=50, **said()) as stream:
        next(stream)
    assert all_free(connections)
    assert settled(any_fault)["aborted_by_client"] == 1


@pytest.mark.parametrize(
    "mishap", [faults.rate_limited(0.01), faults.server_error(), faults.overloaded(), faults.reset()]
)
@pytest.mark.parametrize("how", [ask, read])
@pytest.mark.usefixtures("retried_soon")
def test_retries_of_the_sdk_work(client: anthropic.Anthropic, any_fault: FaultServer, mishap: Any, how: Any) -> None:
    any_fault.behave(mishap, then="ok")
    assert how(client.with_options(max_retries=1)) == "echo: one two three"
    assert any_fault.counters()["requests"] == 2


def test_files_are_uploaded_whole(client: anthropic.Anthropic, any_fault: FaultServer) -> None:
    told = {"id": "f", "type": "file", "filename": "f.txt", "mime_type": "text/plain", "size_bytes": 9}
    any_fault.behave(faults.status(200, body={**told, "created_at": "2026-01-01T00:00:00Z"}), path="*/files*")
    content = os.urandom(300_000)
    made = client.beta.files.upload(file=("f.bin", io.BytesIO(content), "application/octet-stream"))
    assert made.id == "f"
    sent = any_fault.stats()["recent"][-1]["headers"]
    assert int(sent["content-length"]) > len(content)
    assert "transfer-encoding" not in sent


TROUBLE = {
    "reset": faults.reset(),
    "close": faults.close(),
    "garbage": faults.garbage("bytes"),
    "cut": faults.cut(after_bytes=20, how="fin"),
    "truncated": faults.truncated(),
    "401": faults.unauthorized(),
    "529": faults.overloaded(),
    "hang": faults.hang(),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("how", [ask, read])
def test_exceptions_are_those_of_the_sdk_with_its_own_client(fault: FaultServer, trouble: str, how: Any) -> None:
    fault.behave(TROUBLE[trouble])
    timeout = httpx2.Timeout(20, read=0.1 if trouble == "hang" else 20)
    with perfkit.integrations.anthropic.http_client(connections=ConnectionPool(proxy="")) as pooled:
        ours = failure(lambda: how(sdk(fault, pooled, timeout=timeout)))
    with httpx2.Client() as stock:
        theirs = failure(lambda: how(sdk(fault, stock, timeout=timeout)))
    assert ours == theirs


def test_sixteen_threads_get_their_own_answers(client: anthropic.Anthropic, any_fault: FaultServer) -> None:
    assert in_threads(16, lambda number: wrong_answers(lambda text: ask(client, text), f"t{number}", 8)) == []
    assert settled(any_fault)["connections"] <= 16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_and_its_parent_get_their_own_answers(client: anthropic.Anthropic, any_fault: FaultServer) -> None:
    assert ask(client) == "echo: one two three"
    child = start_child(lambda: wrong_answers(lambda text: ask(client, text), "child"))
    assert wrong_answers(lambda text: ask(client, text), "parent") == []
    assert await_child(*child) == []
    assert any_fault.counters()["connections"] == 2


def test_durations_and_first_tokens_are_recorded(client: anthropic.Anthropic, tracker: PerformanceTracker) -> None:
    ask(client)
    read(client)
    assert tracker.get_stats("http_request_duration")["count"] == 2
    assert tracker.get_stats("first_token")["count"] == 1
