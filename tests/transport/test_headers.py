from __future__ import annotations

import pytest

from perfkit.transport import headers as headers_module
from perfkit.transport.headers import Headers, by_name, fields_of

PAIRS = [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2")]


@pytest.fixture(params=["pairs", "lines"])
def headers(request: pytest.FixtureRequest) -> Headers:
    lines = [[name, f"  {value}\t "] for name, value in PAIRS]
    return Headers(PAIRS, by_name(PAIRS)) if request.param == "pairs" else fields_of(lines)


def test_names_are_found_in_any_case(headers: Headers) -> None:
    assert (headers.get("missing"), headers.get("Missing", 1)) == (None, 1)
    assert "content-Type" in headers
    assert headers["CONTENT-type"] == "text/plain"
    assert list(headers) == ["content-type", "set-cookie"]


def test_repeated_fields_are_joined_or_listed(headers: Headers) -> None:
    assert headers.get("set-cookie") == "a=1, b=2"
    assert headers.get_all("Set-Cookie") == ("a=1", "b=2")
    assert (len(headers), headers.pairs) == (2, PAIRS)


@pytest.mark.parametrize("line", ["no-colon", " folded: x", "bad name: x", ": no name", "a\t: b", ""])
def test_lines_that_are_no_fields_are_refused(line: str) -> None:
    for _ in range(2):  # nor are they remembered
        with pytest.raises(ValueError, match=r"illegal header name|not enough values"):
            fields_of([["a", "b"], line.split(":", 1)])


def test_names_are_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers_module, "_MOST_KNOWN", 3)
    known = headers_module._Names()
    assert [known[f"X-{number}"] for number in range(5)] == [f"x-{number}" for number in range(5)]
    assert len(known) == 3
