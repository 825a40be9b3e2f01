"""Server-sent events from bytes that arrive split anywhere, as the WHATWG HTML standard section 9.2 parses them.

Pure: bytes in, events out, no I/O. Lines are found and joined as bytes, and only finished values are decoded, so that a
character cut in two by the network is whole again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["EventTooLargeError", "ServerSentEvent", "read_events"]

MAX_EVENT = 16 * 2**20  # bytes of one event; a peer that never ends its line must not fill the memory
_BOM = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """One event holds more than `MAX_EVENT` bytes."""


class ServerSentEvent(NamedTuple):
    """One dispatched event.

    Attributes:
        event: its type, "message" when the server named none.
        data: its data lines joined by newlines.
        id: the last id the stream has given, "" when none.
        retry: milliseconds to wait before reconnecting if this event said so.
    """

    event: str
    data: str
    id: str = ""
    retry: int | None = None


class _Block:
    """The fields of the event being read; the id outlives it."""

    __slots__ = ("data", "event", "id", "retry", "size")

    def __init__(self) -> None:
        self.id = ""
        self._clear()

    def _clear(self) -> None:
        self.data: list[bytes] = []
        self.event = ""
        self.retry: int | None = None
        self.size = 0

    def add(self, line: bytes) -> None:
        """Take one line that is not blank; comments and unknown fields are ignored."""
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self.data.append(value)
            self.size += len(value)
            if self.size > MAX_EVENT:
                raise EventTooLargeError(f"an event holds more than {MAX_EVENT} bytes")
        elif name == b"event":
            self.event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self.id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self.retry = int(value)

    def finish(self) -> ServerSentEvent | None:
        """Return the event at a blank line, None when it has no data; begin the next."""
        event = None
        if self.data:
            data = self.data[0] if len(self.data) == 1 else b"\n".join(self.data)
            event = ServerSentEvent(self.event or "message", data.decode("utf-8", "replace"), self.id, self.retry)
        self._clear()
        return event


def read_events(chunks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """Yield each event as soon as its blank line is there; an event the stream ends within is dropped.

    Raises:
        EventTooLargeError: a line or an event holds more than `MAX_EVENT` bytes.
    """
    block = _Block()
    for line in _lines(chunks):
        if line:
            block.add(line)
        elif (event := block.finish()) is not None:
            yield event


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield complete lines without their ends (CR, LF or CRLF)."""
    rest: list[bytes] = []  # pieces of the line not yet ended
    size = 0
    after_cr = False
    for chunk in _without_bom(chunks):
        data = chunk[1:] if after_cr and chunk.startswith(b"\n") else chunk
        after_cr = chunk.endswith(b"\r")
        lines = data.splitlines(keepends=True)
        if not lines:
            continue
        tail = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        if lines and rest:
            lines[0] = b"".join((*rest, lines[0]))
            rest, size = [], 0
        for line in lines:
            yield line.rstrip(b"\r\n")
        if tail:
            rest.append(tail)
            size += len(tail)
            if size > MAX_EVENT:
                raise EventTooLargeError(f"a line holds more than {MAX_EVENT} bytes")


def _without_bom(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `chunks` that are not empty, less a byte order mark at the very beginning."""
    head: bytes | None = b""
    for chunk in chunks:
        if head is None:
            if chunk:
                yield chunk
            continue
        head += chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            continue
        yield head.removeprefix(_BOM)
        head = None
    if head:
        yield head
