"""Where vectors come from."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from perfkit.caching.semantic.embedders import (
    EndpointEmbedder,
    HashedNgrams,
    SentenceTransformerEmbedder,
    make_embedder,
)
from perfkit.caching.semantic.index import unit
from perfkit.errors import ConfigError, ProviderError, ResponseFormatError, TransportError, UnknownNameError


def cosine(a: str, b: str) -> float:
    one, two = (unit(vector) for vector in HashedNgrams()([a, b]))
    return float(one @ two)


def test_hashed_runs_of_letters_know_a_typo_from_another_question() -> None:
    asked = "How do I reset the password of my account?"
    assert cosine(asked, asked.lower() + " ") == pytest.approx(1)
    assert cosine(asked, "How do I reset the pasword of my account?") > 0.8
    assert cosine(asked, "What is the capital of France?") < 0.3
    assert cosine("a", "a") == pytest.approx(1)


def test_hashes_are_the_same_in_every_process() -> None:
    assert HashedNgrams(8)(["stable"])[0].tolist() == [0.0, 0.0, 2.0, 1.0, 0.0, 1.0, 3.0, 2.0]


class _Embeddings(BaseHTTPRequestHandler):
    status = 200
    body: Any = None
    seen: list[tuple[str, str | None, Any]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.path, self.headers["authorization"], asked))
        rows = [{"index": n, "embedding": [float(len(text)), 1.0]} for n, text in enumerate(asked["input"])]
        data = json.dumps(self.body if self.body is not None else {"data": rows[::-1]}).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[_Embeddings]]]:
    class Handler(_Embeddings):
        seen: list[tuple[str, str | None, Any]] = []

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}/v1", Handler
    made.shutdown()
    thread.join()
    made.server_close()


def test_an_endpoint_returns_a_vector_for_each_text_in_their_order(server: tuple[str, type[_Embeddings]]) -> None:
    url, handler = server
    embed = make_embedder("endpoint", {"base_url": url, "model": "small", "api_key": "sk-hidden"})
    assert embed(["a", "four"]) == [[1.0, 1.0], [4.0, 1.0]]
    assert handler.seen == [("/v1/embeddings", "Bearer sk-hidden", {"model": "small", "input": ["a", "four"]})]
    assert "sk-hidden" not in repr(embed)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, {}, ProviderError),
        (200, {"data": []}, ResponseFormatError),
        (200, {"rows": 1}, ResponseFormatError),
        (200, [1], ResponseFormatError),
    ],
)
def test_what_is_no_embedding_is_an_error(
    server: tuple[str, type[_Embeddings]], status: int, body: Any, error: type[Exception]
) -> None:
    url, handler = server
    handler.status, handler.body = status, body
    with pytest.raises(error):
        EndpointEmbedder(url, "small")(["a"])


def test_an_endpoint_that_is_not_there_is_an_error() -> None:
    with pytest.raises(TransportError):
        EndpointEmbedder("http://127.0.0.1:9/v1", "small", timeout=1)(["a"])


def test_a_model_without_its_library_is_refused_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install sentence-transformers"):
        SentenceTransformerEmbedder("any")


def test_embedders_are_known_by_name() -> None:
    assert isinstance(make_embedder("hashed", {"dimensions": 64}), HashedNgrams)
    with pytest.raises(UnknownNameError, match="hashed"):
        make_embedder("hashd", {})
    with pytest.raises(ConfigError, match="embedder_options"):
        make_embedder("hashed", {"size": 3})
