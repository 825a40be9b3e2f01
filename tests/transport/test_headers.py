from __future__ import annotations

import pytest

from perfkit.transport.headers import Headers

PAIRS = [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2")]
TEXT = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}:  {value}\t \r\n" for name, value in PAIRS) + "\r\n"


@pytest.fixture(params=["pairs", "text"])
def headers(request: pytest.FixtureRequest) -> Headers:
    return Headers(PAIRS) if request.param == "pairs" else Headers.of_text(TEXT, TEXT.lower())


def test_names_are_found_in_any_case(headers: Headers) -> None:
    assert headers.get("missing") is None
    assert headers.get("Missing", 1) == 1
    assert "content-Type" in headers
    assert "type" not in headers
    assert headers["CONTENT-type"] == "text/plain"
    assert list(headers) == ["content-type", "set-cookie"]


def test_repeated_fields_are_joined_or_listed(headers: Headers) -> None:
    assert headers.get("set-cookie") == "a=1, b=2"
    assert headers.get_all("Set-Cookie") == ("a=1", "b=2")
    assert (len(headers), headers.pairs) == (2, PAIRS)


def test_names_are_not_looked_for_in_values_nor_in_the_first_line() -> None:
    text = "HTTP/1.1 200 http:\r\nA: b: c\r\n\r\n"
    headers = Headers.of_text(text, text.lower())
    assert (headers.get("b"), headers.get("http/1.1 200 http"), headers.get("")) == (None, None, None)
    assert headers.get("a") == "b: c"
