"""A requests session over the pool: what its users see is requests', what the server sees is one connection."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from _forks import await_child, start_child
from integrations.asking import SECRET, all_free, in_threads, said, settled, totals
from transport.peers import answering, reply

import perfkit.integrations.requests
from perfkit.metrics import PerformanceTracker
from perfkit.testing import faults
from perfkit.testing.faults import FaultServer
from perfkit.transport import ConnectionPool

CHAT = "/chat/completions"


@pytest.fixture
def session(
    connections: ConnectionPool, tracker: PerformanceTracker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[requests.Session]:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    with perfkit.integrations.requests.session(connections=connections, tracker=tracker) as made:
        yield made


def wrong_echoes(session: requests.Session, url: str, who: str, calls: int = 15) -> list[Any]:
    sent: list[Any] = [{"who": who, "number": number} for number in range(calls)]
    got = [session.post(f"{url}/echo", json=each, timeout=20).json() for each in sent]
    return [pair for pair in zip(sent, got, strict=True) if pair[0] != pair[1]]


def test_get_and_post_share_one_connection(
    session: requests.Session, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    models = session.get(f"{any_fault.base_url}/models")
    models.raise_for_status()
    assert models.json()["object"] == "list"
    assert (models.reason, models.url, models.headers["content-type"]) == (
        "OK",
        f"{any_fault.base_url}/models",
        "application/json",
    )
    assert session.post(f"{any_fault.base_url}/echo", json={"a": 1}).json() == {"a": 1}
    assert any_fault.counters()["connections"] == 1
    assert totals(connections)["reused"] == 1


BODIES = {"text": "grüße", "bytes": b"\0\xff" * 200_000, "pieces": [b"one ", b"two"], "none": None}


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_arrive_as_requests_sends_them(session: requests.Session, any_fault: FaultServer, kind: str) -> None:
    body: Any = BODIES[kind]
    answer = session.post(f"{any_fault.base_url}/echo", data=iter(body) if kind == "pieces" else body)
    raw = b"".join(body) if kind == "pieces" else body
    assert answer.content == (raw.encode() if isinstance(raw, str) else raw or b"")
    assert any_fault.stats()["recent"][-1]["headers"]["content-length"] == str(len(answer.content))


def test_files_are_uploaded_whole(session: requests.Session, any_fault: FaultServer, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(os.urandom(100_000).hex().encode())
    with path.open("rb") as file:
        answer = session.post(f"{any_fault.base_url}/echo", files={"file": file})
    assert path.read_bytes() in answer.content
    with path.open("rb") as file:
        assert session.post(f"{any_fault.base_url}/echo", data=file).content == path.read_bytes()


def test_stream_is_read_as_it_arrives_and_then_kept(session: requests.Session, any_fault: FaultServer) -> None:
    any_fault.behave(faults.stall(faults.ok("one two"), after_events=3))
    with session.post(
        f"{any_fault.base_url}{CHAT}", json={**said(), "stream": True}, stream=True, timeout=20
    ) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        assert first.startswith(b"data: ")
        any_fault.release()
        rest = list(lines)
    assert rest[-2] == b"data: [DONE]"
    any_fault.reset()
    for _ in range(5):
        with session.post(f"{any_fault.base_url}{CHAT}", json={**said(), "stream": True}, stream=True) as answer:
            for line in answer.iter_lines():
                if line == b"data: [DONE]":
                    break
    assert settled(any_fault)["connections"] == 0  # since the counters were reset: still the first one


def test_leaving_a_stream_early_ends_it_at_the_server(
    session: requests.Session, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    any_fault.behave(faults.stall(after_events=3))
    with session.post(f"{any_fault.base_url}{CHAT}", json={**said(), "stream": True}, stream=True) as answer:
        next(answer.iter_lines())
    assert all_free(connections)
    assert settled(any_fault)["aborted_by_client"] == 1


def test_forgotten_response_gives_its_slot_back(
    session: requests.Session, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    any_fault.behave(faults.stall(after_events=3))
    answer = session.post(f"{any_fault.base_url}{CHAT}", json={**said(), "stream": True}, stream=True)
    assert answer.ok
    del answer
    assert all_free(connections)
    assert settled(any_fault)["aborted_by_client"] == 1


def test_pieces_have_the_size_asked_for(session: requests.Session, any_fault: FaultServer) -> None:
    answer = session.post(f"{any_fault.base_url}/echo", data=b"x" * 1000, stream=True)
    assert [len(piece) for piece in answer.iter_content(300)] == [300, 300, 300, 100]
    answer = session.post(f"{any_fault.base_url}/echo", data=b"x" * 1000, stream=True)
    assert answer.raw.read() == b"x" * 1000
    assert answer.raw.read() == b""


def test_timeouts_are_those_of_requests(
    session: requests.Session, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    any_fault.behave(faults.hang())
    for timeout in (1.0, (5, 0.1), urllib3.Timeout(connect=5, read=0.1), urllib3.Timeout(total=1.0)):
        with pytest.raises(requests.ReadTimeout):
            session.get(f"{any_fault.base_url}/models", timeout=timeout)  # type: ignore[arg-type]
    assert settled(any_fault)["aborted_by_client"] == 4
    connections.configure(read_timeout=0.1)
    with pytest.raises(requests.ReadTimeout):  # without any, the pool's
        session.get(f"{any_fault.base_url}/models")
    any_fault.behave(faults.ok(delay=0.2))
    assert session.post(f"{any_fault.base_url}{CHAT}", json=said(), timeout=20).ok


def test_full_pool_is_a_timeout_of_requests(
    session: requests.Session, any_fault: FaultServer, connections: ConnectionPool
) -> None:
    connections.configure(maxsize=1, timeout=0.05)
    any_fault.behave(faults.stall(after_events=1))
    answer = session.post(f"{any_fault.base_url}{CHAT}", json={**said(), "stream": True}, stream=True)
    with answer, pytest.raises(requests.ConnectTimeout):
        session.get(f"{any_fault.base_url}/models")


def test_deadline_ends_a_body_that_drips(any_fault: FaultServer, connections: ConnectionPool) -> None:
    any_fault.behave(faults.drip(faults.ok("word " * 500), interval=0.02, part="body"))
    session = perfkit.integrations.requests.session(connections=connections, deadline=1.0)
    with session, pytest.raises(requests.ConnectionError) as caught:
        session.post(f"{any_fault.base_url}{CHAT}", json=said(), timeout=10)
    assert isinstance(caught.value, requests.Timeout)
    assert settled(any_fault)["aborted_by_client"] == 1


@pytest.mark.parametrize(
    ("mishap", "kind"),
    [
        (faults.reset(), requests.ConnectionError),
        (faults.close(), requests.ConnectionError),
        (faults.garbage("bytes"), requests.ConnectionError),
        (faults.truncated(), requests.exceptions.ChunkedEncodingError),
        (faults.gzip(broken=True), requests.exceptions.ContentDecodingError),
    ],
)
def test_exceptions_are_those_of_requests(
    session: requests.Session, any_fault: FaultServer, mishap: Any, kind: type[Exception]
) -> None:
    any_fault.behave(mishap)
    with pytest.raises(kind):
        session.post(f"{any_fault.base_url}{CHAT}", json=said())


def test_what_cannot_be_asked_is_refused_as_requests_does(session: requests.Session, any_fault: FaultServer) -> None:
    any_fault.refuse()
    with pytest.raises(requests.ConnectionError):
        session.get(f"{any_fault.base_url}/models")
    any_fault.accept()
    with pytest.raises(requests.exceptions.InvalidHeader):
        session.get(f"{any_fault.base_url}/models", headers={"x": "a\nb"})
    with pytest.raises(requests.exceptions.InvalidURL):
        session.get("http://127.0.0.1:99999999/")
    with pytest.raises(requests.exceptions.InvalidSchema):
        session.get("ftp://127.0.0.1/")
    assert any_fault.counters()["requests"] == 0


def test_compressed_answers_are_decoded(session: requests.Session, any_fault: FaultServer) -> None:
    any_fault.behave(faults.gzip())
    answer = session.post(f"{any_fault.base_url}{CHAT}", json=said())
    assert answer.json()["choices"][0]["message"]["content"] == "echo: one two three"


def test_redirects_and_cookies_work(connections: ConnectionPool, peer: Any) -> None:
    there = peer(
        answering(
            reply(b"", "Location: /end", "Set-Cookie: a=1", "Set-Cookie: b=2", status="302 Found"), reply(b"here")
        )
    )
    with perfkit.integrations.requests.session(connections=ConnectionPool(proxy="")) as session:
        answer = session.get(f"http://127.0.0.1:{there.port}/start")
        assert (answer.text, [each.status_code for each in answer.history]) == ("here", [302])
        assert session.cookies.get_dict() == {"a": "1", "b": "2"}


def test_certificates_are_checked_as_the_session_asks(tls_fault: FaultServer) -> None:
    shared = ConnectionPool(proxy="")  # knows nothing of the server's authority
    url = f"{tls_fault.base_url}/models"
    with perfkit.integrations.requests.session(connections=shared) as session:
        with pytest.raises(requests.exceptions.SSLError):
            session.get(url)
        for _ in range(2):
            assert session.get(url, verify=tls_fault.ca_file).ok
        assert tls_fault.counters()["tls_handshakes"] == 1
        assert session.get(url, verify=False).ok
        with pytest.raises(OSError, match="invalid path"):
            session.get(url, verify="/nowhere.pem")
        with pytest.raises(requests.exceptions.SSLError):  # nothing of it stays
            session.get(url)
    shared.close()


def test_certificates_do_not_matter_without_tls(
    session: requests.Session, fault: FaultServer, connections: ConnectionPool
) -> None:
    assert session.get(f"{fault.base_url}/models", verify="/nowhere.pem", cert="/nowhere.pem").ok
    assert f"127.0.0.1:{fault.port}" in connections.stats()


def test_proxies_are_those_of_the_session(fault: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{fault.base_url}/models"
    dead = "http://127.0.0.1:9"
    monkeypatch.setenv("HTTP_PROXY", dead)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with perfkit.integrations.requests.session(connections=ConnectionPool()) as session:
        with pytest.raises(requests.ConnectionError):
            session.get(url)
        session.trust_env = False
        assert session.get(url).ok
        proxied = {"http": f"http://127.0.0.1:{fault.port}"}
        assert session.get("http://elsewhere.invalid/v1/models", proxies=proxied).ok
    assert fault.stats()["recent"][-1]["headers"]["host"] == "elsewhere.invalid"
    session = perfkit.integrations.requests.session(connections=ConnectionPool())
    with session, pytest.raises(requests.exceptions.InvalidProxyURL):
        session.get(url, proxies={"http": "socks5://127.0.0.1:1"})


def test_sixteen_threads_get_their_own_answers(session: requests.Session, any_fault: FaultServer) -> None:
    assert in_threads(16, lambda number: wrong_echoes(session, any_fault.base_url, f"t{number}", 10)) == []
    assert any_fault.counters()["connections"] <= 16


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_children_and_their_parent_get_their_own_answers(
    session: requests.Session, any_fault: FaultServer
) -> None:
    assert wrong_echoes(session, any_fault.base_url, "before", 1) == []
    children = [
        start_child(lambda n=n: wrong_echoes(session, any_fault.base_url, f"child {n}"))  # type: ignore[misc]
        for n in range(3)
    ]
    assert wrong_echoes(session, any_fault.base_url, "parent") == []
    assert [await_child(*child) for child in children] == [[]] * 3
    assert any_fault.counters()["connections"] == 4


def test_durations_are_recorded(session: requests.Session, any_fault: FaultServer, tracker: PerformanceTracker) -> None:
    session.get(f"{any_fault.base_url}/models")
    session.post(f"{any_fault.base_url}{CHAT}", json={**said(), "stream": True})
    any_fault.behave(faults.truncated())
    with pytest.raises(requests.RequestException):
        session.post(f"{any_fault.base_url}{CHAT}", json=said())
    counts = {s: tracker.get_stats("http_request_duration", tags={"status": s})["count"] for s in ("2xx", "error")}
    assert counts == {"2xx": 2, "error": 1}
    assert tracker.get_stats("first_token")["count"] == 1


def test_keys_are_neither_logged_nor_shown(
    session: requests.Session, any_fault: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    any_fault.behave(faults.close())
    with pytest.raises(requests.ConnectionError) as caught:
        session.get(f"{any_fault.base_url}/models?key={SECRET}", headers={"Authorization": f"Bearer {SECRET}"})
    assert SECRET not in caplog.text + str(caught.value) + repr(session.adapters)
