from __future__ import annotations

import pytest

from perfkit.transport.headers import Headers, by_name
from perfkit.transport.response import HTTPResponse

PAIRS = [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2")]


def headers() -> Headers:
    return Headers(PAIRS, by_name(PAIRS))


def test_repr_shows_no_secret() -> None:
    shown = repr(HTTPResponse(200, headers(), b"abc"))
    assert "a=1" not in shown
    assert "text/plain" in shown
    assert "3 bytes" in shown


def test_body_is_bytes_text_or_json() -> None:
    response = HTTPResponse(200, headers(), '{"a":"é"}'.encode())
    assert (response.body[:1], response.text, response.json()) == (b"{", '{"a":"é"}', {"a": "é"})
    with pytest.raises(ValueError, match="Expecting"):
        HTTPResponse(200, headers(), b"<html>").json()
