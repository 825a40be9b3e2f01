"""JSON values one a line, as Ollama streams them, from bytes that arrive split anywhere.

Pure: bytes in, values out, no I/O. A line ends with LF; a CR before it is white space of JSON.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perfkit.transport.sse import MAX_EVENT, EventTooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["read_lines", "read_values"]


def read_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield each line, without its "\n", as soon as it has ended; the last one may do without.

    Raises:
        EventTooLargeError: a line holds more than `MAX_EVENT` bytes.
    """
    rest: list[bytes] = []  # pieces of the line not yet ended
    size = 0
    for chunk in chunks:
        *lines, tail = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join((*rest, lines[0]))
            rest, size = [], 0
            yield from lines
        rest.append(tail)
        size += len(tail)
        if size > MAX_EVENT:
            raise EventTooLargeError(f"a line holds more than {MAX_EVENT} bytes")
    if size:
        yield b"".join(rest)


def read_values(chunks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the value of each line that is not blank.

    Raises:
        EventTooLargeError: a line holds more than `MAX_EVENT` bytes.
        ValueError: a line is not JSON; a stream cut in the middle of one is such a case.
    """
    for line in read_lines(chunks):
        if line.strip():
            yield json.loads(line)
