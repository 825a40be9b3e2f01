from __future__ import annotations

import gzip
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.transport.message import USER_AGENT, body_bytes, compressed, head, lowered, masked


def test_head_is_first_line_and_fields() -> None:
    assert head("POST", "/v1/chat", {"host": "h", "x": "1"}) == b"POST /v1/chat HTTP/1.1\r\nhost: h\r\nx: 1\r\n\r\n"


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_nothing_can_add_a_line_to_the_head(method: str, target: str, name: str, value: str) -> None:
    try:
        data = head(method, "/" + target, lowered({name: value}))
    except ValueError:
        return
    assert data.count(b"\r\n") == 3
    assert data.count(b"\n") == data.count(b"\r") == 3
    assert data.split(b"\r\n")[0].count(b" ") == 2


@pytest.mark.parametrize("value", ["secret-key\n", "secret\r\nx: y", "secret-\u20ac", "secret\0"])
def test_illegal_value_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(ValueError, match="'authorization' has a line break") as caught:
        head("GET", "/", {"authorization": value})
    assert "secret" not in repr(caught.value)
    assert caught.value.__context__ is None


def test_illegal_names_are_refused() -> None:
    with pytest.raises(ValueError, match="illegal header name"):
        lowered({"a b": "c"})
    with pytest.raises(ValueError, match="illegal HTTP method"):
        head("GET /", "/", {})


def test_target_is_quoted_once() -> None:
    assert head("GET", "/a b/%20?q=é", {}).startswith(b"GET /a%20b/%20?q=%C3%A9 HTTP/1.1")


def test_latin_1_value_is_sent() -> None:
    assert b"x: \xe9\r\n" in head("GET", "/", {"x": "é"})


def test_bodies_become_bytes() -> None:
    assert body_bytes(b"a") == body_bytes("a") == body_bytes(bytearray(b"a")) == body_bytes(memoryview(b"a")) == b"a"
    assert body_bytes({"text": "é"}) == '{"text":"é"}'.encode()
    assert json.loads(body_bytes(["\ud83d"])) == ["\ud83d"]
    with pytest.raises(ValueError, match="JSON compliant"):
        body_bytes(float("nan"))
    with pytest.raises(TypeError):
        body_bytes(object())


def test_large_body_is_compressed_and_says_so() -> None:
    fields: dict[str, str] = {}
    assert gzip.decompress(compressed(b"x" * 2000, fields)) == b"x" * 2000
    assert fields == {"content-encoding": "gzip"}


def test_body_that_would_not_get_smaller_stays() -> None:
    fields: dict[str, str] = {}
    noise = random.Random(1).randbytes(2000)
    assert (compressed(b"x" * 999, fields), compressed(noise, fields), fields) == (b"x" * 999, noise, {})
    assert compressed(b"x" * 2000, {"content-encoding": "br"}) == b"x" * 2000


def test_credentials_and_cookies_are_masked() -> None:
    names = ["Authorization", "x-api-key", "api-key", "X-Goog-Api-Key", "Cookie", "set-cookie", "proxy-authorization"]
    assert set(masked(dict.fromkeys(names, "s3cret")).values()) == {"***"}
    shown = {"x-request-id": "1", "x-ratelimit-remaining-tokens": "5"}
    assert masked(shown) == shown


def test_user_agent_names_versions() -> None:
    product, interpreter = USER_AGENT.split()
    assert product.startswith("perfkit/")
    assert interpreter.startswith("Python/3.")
