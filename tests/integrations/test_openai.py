"""The real openai SDK over the pool: against the fault server, plain and over TLS, and a real llama.cpp server."""

from __future__ import annotations

import gc
import io
import logging
import os
import socket
import threading
from typing import Any

import httpx2
import openai
import pytest
from _forks import await_child, start_child
from integrations.asking import SECRET, all_free, failure, in_threads, said, settled, totals, wrong_answers
from transport.peers import answering, reply

import perfkit.integrations.openai
from perfkit.clock import FakeClock
from perfkit.metrics import PerformanceTracker
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.testing.llm import LlamaServer
from perfkit.testing.tls import Authority
from perfkit.transport import ConnectionPool


def sdk(server: FaultServer | LlamaServer, http_client: httpx2.Client | None = None, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        api_key=SECRET, base_url=server.base_url, http_client=http_client, **{"max_retries": 0, **options}
    )


@pytest.fixture
def client(any_fault: FaultServer, connections: ConnectionPool, tracker: PerformanceTracker) -> openai.OpenAI:
    http_client = perfkit.integrations.openai.http_client(connections=connections, tracker=tracker)
    return sdk(any_fault, http_client)


def ask(client: openai.OpenAI, text: str = "one two three") -> str:
    return client.chat.completions.create(**said(text)).choices[0].message.content or ""


def read(client: openai.OpenAI, text: str = "one two three") -> str:
    events = client.chat.completions.create(**said(text), stream=True)
    return "".join(event.choices[0].delta.content or "" for event in events if event.choices)


def test_chat_is_answered_over_one_pooled_connection(
    client: openai.OpenAI, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    assert [ask(client) for _ in range(5)] == ["echo: one two three"] * 5
    assert any_fault.counters()["connections"] == 1
    assert totals(connections)["reused"] == 4


def test_fifty_streams_share_connections_where_the_sdk_alone_takes_fifty(
    client: openai.OpenAI, any_fault: FaultServer
) -> None:
    assert {read(client) for _ in range(50)} == {"echo: one two three"}
    assert settled(any_fault)["connections"] <= 5  # 1, but that a busy server may owe last bytes for too long
    any_fault.reset()
    with httpx2.Client(verify=perfkit_context(any_fault)) as stock:
        assert {read(sdk(any_fault, stock)) for _ in range(50)} == {"echo: one two three"}
    assert settled(any_fault)["connections"] == 50


def perfkit_context(server: FaultServer) -> Any:
    import ssl

    return ssl.create_default_context(cafile=server.ca_file) if server.root_url.startswith("https") else True


def test_stream_that_is_closed_early_ends_at_the_server(
    client: openai.OpenAI, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    any_fault.behave(faults.stall(after_events=3))
    stream = client.chat.completions.create(**said(), stream=True)
    next(stream)
    stream.close()
    assert all_free(connections)
    assert settled(any_fault)["aborted_by_client"] == 1


def test_stream_left_before_its_end_mark_is_not_drained(client: openai.OpenAI, any_fault: FaultServer) -> None:
    with client.chat.completions.create(**said(), stream=True) as stream:
        next(stream)
    ask(client)
    assert any_fault.counters()["connections"] == 2


def test_forgotten_stream_gives_its_slot_back(
    client: openai.OpenAI, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    connections.configure(maxsize=1, timeout=0.2)
    any_fault.behave(faults.stall(after_events=3), then="ok")
    stream = client.chat.completions.create(**said(), stream=True)
    next(stream)
    del stream
    gc.collect()  # the SDK's stream and its generator hold each other
    assert settled(any_fault)["aborted_by_client"] == 1
    assert ask(client) == "echo: one two three"


@pytest.mark.parametrize(
    "mishap", [faults.rate_limited(0.01), faults.server_error(), faults.overloaded(), faults.reset(), faults.close()]
)
@pytest.mark.parametrize("how", [ask, read])
@pytest.mark.usefixtures("retried_soon")
def test_retries_of_the_sdk_work(client: openai.OpenAI, any_fault: FaultServer, mishap: Any, how: Any) -> None:
    any_fault.behave(mishap, then="ok")
    assert how(client.with_options(max_retries=1)) == "echo: one two three"
    assert any_fault.counters()["requests"] == 2


def test_error_nobody_reads_does_not_cost_the_connection(client: openai.OpenAI, any_fault: FaultServer) -> None:
    any_fault.behave(faults.rate_limited(0.01), then="ok")
    assert read(client.with_options(max_retries=1)) == "echo: one two three"
    assert any_fault.counters()["connections"] == 1


@pytest.mark.usefixtures("retried_soon")
def test_refused_connections_are_retried_by_the_sdk(
    client: openai.OpenAI, any_fault: FaultServer, tracker: PerformanceTracker
) -> None:
    any_fault.refuse()
    with pytest.raises(openai.APIConnectionError) as caught:
        ask(client.with_options(max_retries=1))
    any_fault.accept()
    assert isinstance(caught.value.__cause__, httpx2.ConnectError)
    assert (
        tracker.get_stats("http_request_duration", tags={"status": "error", "host": any_host(any_fault)})["count"] == 2
    )
    assert ask(client) == "echo: one two three"


def any_host(server: FaultServer) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_connection_that_died_idle_costs_no_retry(client: openai.OpenAI, any_fault: FaultServer, how: Any) -> None:
    ask(client)
    assert any_fault.disconnect(how=how) == 1
    assert ask(client) == "echo: one two three"
    assert any_fault.counters()["requests"] == 2


def test_connection_is_kept_for_minutes(fault: FaultServer) -> None:
    clock = FakeClock()
    connections = ConnectionPool(proxy="", clock=clock)
    client = sdk(fault, perfkit.integrations.openai.http_client(connections=connections))
    for _ in range(3):
        ask(client)
        clock.advance(250)  # the SDK's own client forgets after 5 seconds
    assert fault.counters()["connections"] == 1
    connections.close()


def test_first_call_after_warming_up_finds_a_connection(
    client: openai.OpenAI, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    assert connections.warm_up(any_fault.base_url, 2) == 2
    assert ask(client) == "echo: one two three"
    assert any_fault.counters()["connections"] == 2


TROUBLE = {
    "reset": faults.reset(),
    "close": faults.close(),
    "garbage": faults.garbage("bytes"),
    "json": faults.garbage("json"),
    "cut": faults.cut(after_bytes=20, how="fin"),
    "truncated": faults.truncated(),
    "quota": faults.quota_exhausted(),
    "401": faults.unauthorized(),
    "404": faults.model_not_found(),
    "hang": faults.hang(),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("how", [ask, read])
def test_exceptions_are_those_of_the_sdk_with_its_own_client(
    client: openai.OpenAI, any_fault: FaultServer, trouble: str, how: Any
) -> None:
    any_fault.behave(TROUBLE[trouble])
    timeout = httpx2.Timeout(20, read=0.1 if trouble == "hang" else 20)
    ours = failure(lambda: how(client.with_options(timeout=timeout)))
    with httpx2.Client(verify=perfkit_context(any_fault)) as stock:
        theirs = failure(lambda: how(sdk(any_fault, stock, timeout=timeout)))
    assert ours == theirs


def test_timeout_of_the_sdk_is_seen_by_the_server(
    client: openai.OpenAI, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    any_fault.behave(faults.hang())
    with pytest.raises(openai.APITimeoutError) as caught:
        ask(client.with_options(timeout=httpx2.Timeout(20, read=0.2)))
    assert isinstance(caught.value.__cause__, httpx2.ReadTimeout)
    assert settled(any_fault)["aborted_by_client"] == 1
    assert all_free(connections)


def test_timeouts_of_the_sdk_come_before_those_of_the_pool(
    client: openai.OpenAI, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    connections.configure(read_timeout=0.05)
    any_fault.behave(faults.ok("patience", delay=0.12, interval=0.08))
    assert ask(client.with_options(timeout=20)) == "patience"
    assert read(client.with_options(timeout=20)) == "patience"


def test_full_pool_is_a_timeout_of_the_sdk(
    client: openai.OpenAI, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    connections.configure(maxsize=1)
    any_fault.behave(faults.stall(after_events=1))
    with client.chat.completions.create(**said(), stream=True):
        with pytest.raises(openai.APITimeoutError) as caught:
            ask(client.with_options(timeout=httpx2.Timeout(20, pool=0.05)))
        assert isinstance(caught.value.__cause__, httpx2.PoolTimeout)


def test_slow_connect_is_a_timeout_of_the_sdk() -> None:
    with Authority() as authority, FaultServer(tls=authority, connect_latency=30) as server:
        connections = ConnectionPool(proxy="", ca_file=authority.ca_file)
        client = sdk(server, perfkit.integrations.openai.http_client(connections=connections))
        with pytest.raises(openai.APITimeoutError) as caught:
            ask(client.with_options(timeout=httpx2.Timeout(20, connect=0.1)))
        assert isinstance(caught.value.__cause__, httpx2.ConnectTimeout)
        connections.close()


@pytest.mark.parametrize("part", ["head", "body"])
def test_deadline_ends_what_no_timeout_of_the_sdk_would(
    any_fault: FaultServer, connections: ConnectionPool, part: Any
) -> None:
    any_fault.behave(faults.drip(faults.ok("word " * 500), interval=0.02, part=part))
    client = sdk(any_fault, perfkit.integrations.openai.http_client(connections=connections, deadline=1.0), timeout=10)
    with pytest.raises(openai.APITimeoutError):
        ask(client)
    assert settled(any_fault)["aborted_by_client"] == 1
    with pytest.raises((openai.APITimeoutError, httpx2.ReadTimeout)):
        read(client)
    assert settled(any_fault)["aborted_by_client"] == 2


def test_compressed_answer_that_is_cut_short_is_an_error(client: openai.OpenAI, any_fault: FaultServer) -> None:
    any_fault.behave(faults.gzip(), faults.gzip(broken=True))
    assert ask(client) == "echo: one two three"
    with pytest.raises(openai.APIConnectionError) as caught:
        ask(client)
    assert isinstance(caught.value.__cause__, httpx2.DecodingError)


def test_embeddings_and_uploads_arrive_whole(client: openai.OpenAI, any_fault: FaultServer) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
    any_fault.behave(faults.status(200, body={"object": "list", "model": "e", "data": data}), path="*/embeddings")
    made = client.embeddings.create(model="e", input="text", encoding_format="float")
    assert made.data[0].embedding == [0.5, 0.25]
    content = os.urandom(300_000).hex().encode()
    sent = client.post(
        "/echo",
        cast_to=httpx2.Response,
        files=[("file", ("f.bin", content, "application/octet-stream"))],
        options={"headers": {"Content-Type": "multipart/form-data"}},
    )
    assert content in sent.content
    assert "transfer-encoding" not in any_fault.stats()["recent"][-1]["headers"]


def test_refusal_of_an_upload_that_is_not_read_is_retried_by_the_sdk(peer: Any) -> None:
    """It leaves the connection open, on which nothing could follow."""
    done, made = threading.Event(), b'{"id": "f", "object": "file"}'

    def refusing(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(reply(b"{}", "Retry-After-Ms: 1", status="429 Too Many Requests"))
        done.wait(20)

    server = peer(refusing, answering(reply(made, "Content-Type: application/json")))
    connections = ConnectionPool(proxy="")
    http_client = perfkit.integrations.openai.http_client(connections=connections)
    client = openai.OpenAI(api_key=SECRET, base_url=server.url, http_client=http_client, max_retries=1, timeout=10)
    upload = ("f.bin", io.BytesIO(bytes(8_000_000)))
    assert client.files.create(file=upload, purpose="batch").id == "f"
    assert server.accepted == 2
    done.set()
    connections.close()


def test_sixteen_threads_get_their_own_answers(client: openai.OpenAI, any_fault: FaultServer) -> None:
    wrong = in_threads(16, lambda number: wrong_answers(lambda text: ask(client, text), f"t{number}", 8))
    wrong += in_threads(16, lambda number: wrong_answers(lambda text: read(client, text), f"s{number}", 3))
    assert wrong == []
    counters = settled(any_fault)
    assert counters["requests"] == 16 * 11
    assert counters["connections"] <= 16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_children_and_their_parent_get_their_own_answers(client: openai.OpenAI, any_fault: FaultServer) -> None:
    assert read(client) == "echo: one two three"
    children = [
        start_child(lambda n=n: wrong_answers(lambda text: ask(client, text), f"child {n}"))  # type: ignore[misc]
        for n in range(3)
    ]
    assert wrong_answers(lambda text: ask(client, text), "parent") == []
    assert [await_child(*child) for child in children] == [[]] * 3
    assert any_fault.counters()["connections"] == 4


def test_durations_and_first_tokens_are_recorded(
    client: openai.OpenAI, any_fault: FaultServer, tracker: PerformanceTracker
) -> None:
    ask(client)
    read(client)
    any_fault.behave(faults.server_error())
    failure(lambda: ask(client))
    host = any_host(any_fault)
    counts = {
        status: tracker.get_stats("http_request_duration", tags={"host": host, "status": status}).get("count")
        for status in ("2xx", "5xx", "error")
    }
    assert counts == {"2xx": 2, "5xx": 1, "error": None}
    assert tracker.get_stats("first_token", tags={"host": host})["count"] == 1


def test_first_token_is_not_the_first_event(any_fault: FaultServer, connections: ConnectionPool) -> None:
    tracker = PerformanceTracker()
    client = sdk(any_fault, perfkit.integrations.openai.http_client(connections=connections, tracker=tracker))
    any_fault.behave(faults.stall(after_events=1))  # the role, no text
    with client.chat.completions.create(**said(), stream=True) as stream:
        assert next(stream).choices[0].delta.role == "assistant"
    assert tracker.get_stats("first_token") == {}


def test_keys_are_neither_logged_nor_shown(
    client: openai.OpenAI, any_fault: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ask(client)
    any_fault.behave(faults.close())
    with pytest.raises(openai.APIConnectionError) as caught:
        ask(client)
    assert caplog.records
    shown = [repr(client._client), repr(vars(client._client)["_transport"]), str(caught.value.__cause__)]
    assert SECRET not in "".join([caplog.text, *shown])


def test_real_server_answers_and_streams(llm: LlamaServer) -> None:
    connections = ConnectionPool(proxy="")
    client = sdk(llm, perfkit.integrations.openai.http_client(connections=connections))
    wanted = {**said("Hello"), "temperature": 0, "max_tokens": 8}
    answers = {client.chat.completions.create(**wanted).choices[0].message.content for _ in range(3)}
    assert totals(connections)["created"] == 1
    for _ in range(3):  # after each of these llama.cpp closes the connection itself
        events = client.chat.completions.create(**wanted, stream=True)
        answers.add("".join(event.choices[0].delta.content or "" for event in events if event.choices))
    assert len(answers) == 1
    assert all_free(connections)
    connections.close()


def test_closing_the_sdk_leaves_the_shared_connections(client: openai.OpenAI, any_fault: FaultServer) -> None:
    ask(client)
    http_client = perfkit.integrations.openai.http_client(connections=client._client._transport._wire.connections)  # type: ignore[attr-defined]
    client.close()
    assert ask(sdk(any_fault, http_client)) == "echo: one two three"
    assert any_fault.counters()["connections"] == 1
