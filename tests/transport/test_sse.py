from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.transport import sse
from perfkit.transport.sse import EventTooLargeError, ServerSentEvent, read_events


def read(*chunks: bytes) -> list[ServerSentEvent]:
    return list(read_events(chunks))


def reference(text: str) -> list[ServerSentEvent]:
    """Return the events of a whole stream by the letter of the standard, with no thought of speed or pieces."""
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))[:-1]
    events, block, last_id = list[ServerSentEvent](), list[tuple[str, str]](), ""
    for line in lines:
        name, _, value = line.partition(":")
        if line:
            block.append((name, value.removeprefix(" ")))
            continue
        data = [value for name, value in block if name == "data"]
        ids = [value for name, value in block if name == "id" and "\0" not in value]
        kinds = [value for name, value in block if name == "event"]
        retries = [int(value) for name, value in block if name == "retry" and re.fullmatch("[0-9]+", value)]
        last_id = ids[-1] if ids else last_id
        if data:
            kind, retry = kinds[-1] if kinds else "", retries[-1] if retries else None
            events.append(ServerSentEvent(kind or "message", "\n".join(data), last_id, retry))
        block = []
    return events


NAMES = st.sampled_from(["data", "data", "event", "id", "retry", "", "unknown", "dat", " data"])
VALUES = st.one_of(st.text(alphabet='ab: \0é€😀[]{}"', max_size=12), st.sampled_from(["12", "[DONE]", " x", "²"]))
LINES = st.one_of(st.just(""), st.builds("{}{}{}".format, NAMES, st.sampled_from([":", ": ", ""]), VALUES))
STREAMS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r", "\r\n"])).map("".join), max_size=25).map("".join)


@given(st.sampled_from(["", "\ufeff"]), STREAMS, st.lists(st.integers(0, 400), max_size=12))
def test_events_do_not_depend_on_where_the_bytes_are_split(mark: str, text: str, cuts: list[int]) -> None:
    data = (mark + text).encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in pairwise(edges)]
    assert read(*chunks) == reference(mark + text)


@given(STREAMS)
def test_events_do_not_depend_on_bytes_coming_one_by_one(text: str) -> None:
    data = text.encode()
    assert read(*(data[i : i + 1] for i in range(len(data)))) == reference(text)


def test_data_lines_are_joined_and_fields_belong_to_their_event() -> None:
    assert read(b"event: delta\ndata: a\ndata:b\nid: 7\nretry: 250\n\ndata: c\n\n") == [
        ServerSentEvent("delta", "a\nb", "7", 250),
        ServerSentEvent("message", "c", "7", None),
    ]


def test_event_is_there_as_soon_as_its_blank_line_is() -> None:
    def chunks() -> list[bytes]:
        raise AssertionError("asked for more than was needed")

    def stream() -> object:
        yield b"data: now\r\n\r"
        chunks()

    assert next(iter(read_events(stream()))).data == "now"  # type: ignore[arg-type]


def test_comments_and_events_without_data_are_no_events() -> None:
    assert read(b": ping\n\nevent: nothing\n\ndata: x\n\n") == [ServerSentEvent("message", "x")]


def test_event_the_stream_ends_within_is_dropped() -> None:
    assert read(b"data: whole\n\ndata: half\n") == [ServerSentEvent("message", "whole")]


def test_stream_of_nothing_has_no_events() -> None:
    assert read() == read(b"") == read(b"\xef\xbb") == read(b"\xef\xbb\xbf") == read(b"\n\n") == []


def test_character_cut_in_two_is_whole_again() -> None:
    data = "data: €\n\n".encode()
    assert read(data[:7], data[7:]) == [ServerSentEvent("message", "€")]


def test_id_with_nul_and_retry_that_is_no_number_are_ignored() -> None:
    assert read("id: a\0b\nretry: 2s\nretry: ²\ndata: x\n\n".encode()) == [ServerSentEvent("message", "x", "", None)]


@pytest.mark.parametrize("line", [b"data: ", b": comment "])
def test_endless_line_is_refused(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    with pytest.raises(EventTooLargeError):
        read(line, *([b"x" * 100] * 11))


def test_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    with pytest.raises(EventTooLargeError):
        read(*([b"data: " + b"x" * 100 + b"\n"] * 11))
