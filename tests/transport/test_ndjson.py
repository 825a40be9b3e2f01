from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.transport import ndjson
from perfkit.transport.ndjson import read_lines, read_values
from perfkit.transport.sse import EventTooLargeError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(JSON, max_size=8), st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans(), CUTS)
def test_values_do_not_depend_on_where_the_bytes_are_split(
    values: list[object], end: str, ended: bool, cuts: list[int]
) -> None:
    text = "".join(json.dumps(value, ensure_ascii=False) + end for value in values)
    data = (text if ended else text.removesuffix(end)).encode()
    assert list(read_values(pieces(data, cuts))) == values


@given(st.binary(max_size=300), CUTS)
def test_lines_of_any_bytes_are_those_between_the_line_feeds(data: bytes, cuts: list[int]) -> None:
    *lines, last = data.split(b"\n")
    assert list(read_lines(pieces(data, cuts))) == lines + [last] * bool(last)


def test_value_is_there_as_soon_as_its_line_has_ended() -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"a": 1}\n{"b"'
        raise AssertionError("read on before it gave the value")

    assert next(read_values(chunks())) == {"a": 1}


def test_value_that_is_cut_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        list(read_values([b'{"a": 1}\n{"b']))


def test_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "MAX_EVENT", 100)
    with pytest.raises(EventTooLargeError):
        list(read_lines([b"x" * 60] * 2))
