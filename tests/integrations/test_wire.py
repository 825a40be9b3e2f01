"""What is taken for the first token and for the end of a stream."""

from __future__ import annotations

import pytest

from perfkit.integrations._wire import _END_MARKS, _FIRST_TOKEN, _TAIL, Wire
from perfkit.transport.call import Waits
from perfkit.transport.encoding import ACCEPT

WAITS = Waits(1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    "event",
    [
        b'{"choices":[{"delta":{"content":"Hi"}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}',
        b'{"choices":[{"delta": {"reasoning_content": "Hm"}}]}',
        b'{"type":"response.output_text.delta","delta":"Hi"}',
        b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}',
        b'{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}',
    ],
)
def test_text_and_arguments_are_tokens(event: bytes) -> None:
    assert _FIRST_TOKEN(event)


@pytest.mark.parametrize(
    "event",
    [
        b'{"choices":[{"delta":{"role":"assistant","content":"","refusal":null}}]}',
        b'{"choices":[{"delta":{"role":"assistant","content":null}}]}',
        b'{"type":"message_start","message":{"role":"assistant","content":[],"model":"m"}}',
        b'{"type":"content_block_start","content_block":{"type":"text","text":""}}',
        b": ping",
        b"event: ping",
    ],
)
def test_what_comes_before_is_none(event: bytes) -> None:
    assert not _FIRST_TOKEN(event)


def test_end_marks_fit_into_the_tail() -> None:
    assert all(len(mark + b"\r\n\r\n") <= _TAIL for mark in _END_MARKS)


def test_body_is_framed_by_its_length() -> None:
    fields = {"transfer-encoding": "chunked", "accept-encoding": "br, zstd"}
    call = Wire(deadline=5).call("POST", "/", fields, b"four", waits=WAITS)
    assert call.fields == {"content-length": "4", "accept-encoding": ACCEPT}
    assert (call.patience, call.waits) == (3.0, WAITS)
    assert call.deadline - call.started == pytest.approx(5)
    assert Wire().call("GET", "/", {}, b"", waits=WAITS).fields == {}
    assert Wire().call("POST", "/", {"content-length": "9"}, b"", waits=WAITS).fields == {"content-length": "0"}


def test_deadline_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="deadline"):
        Wire(deadline=0)
