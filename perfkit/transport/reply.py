"""One reply on the wire: http.client's response with a fast way through regular heads.

Most of what http.client spends on a reply goes into parsing its head as an e-mail message. A head that arrived whole
and is regular in every line is taken apart by one regular expression instead; anything else (folded lines, HTTP/1.0,
interim replies, strange bytes, doubtful lengths) goes to http.client unchanged, so there is one judge of what is odd.
"""

from __future__ import annotations

import http.client
import re
from typing import TYPE_CHECKING, NamedTuple

from perfkit.transport.headers import Headers, by_name, fields_of

if TYPE_CHECKING:
    import io

    from perfkit.transport.limits import BoundedReader

__all__ = ["Head", "Reply", "WholeReply", "has_no_body", "parse_head", "whole_reply"]

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([2-9][0-9]{2})(?: ([^\r\n\0]*))?").fullmatch
_FOLD = re.compile(r"[ \t]*\r\n[ \t]+")
_MOST_FIELDS, _LONGEST_LINE = 100, 65536  # http.client's own limits
_NONE = Headers([], {})  # until the head has come
_LAST_CHUNK = b"0\r\n\r\n"
_NO_BODY = frozenset((http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED))


class Head(NamedTuple):
    """A regular HTTP/1.1 head.

    Attributes:
        length: Content-Length, None when there is none.
        close: whether the connection ends with this reply.
    """

    status: int
    reason: str
    fields: Headers
    length: int | None
    chunked: bool
    close: bool


def parse_head(head: bytes) -> Head | None:
    """Take apart a head that ends with an empty line; None when http.client should judge it."""
    text = head[:-4].decode("latin-1")
    start, *lines = text.split("\r\n")
    matched, count = _STATUS_LINE(start), len(lines)
    if (
        matched is None
        or text.count("\n") != count
        or text.count("\r") != count
        or "\0" in text
        or count >= _MOST_FIELDS
    ):
        return None
    try:
        fields = fields_of([line.split(":", 1) for line in lines])
    except ValueError:
        return None
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if length is not None and (coding is not None or not (length.isascii() and length.isdecimal())):
        return None
    if coding is not None and coding.lower() != "chunked":
        return None
    status, reason = matched.groups("")
    size = None if length is None else int(length)
    close = "close" in fields.get("connection", "").lower()
    return Head(int(status), reason.strip(), fields, size, coding is not None, close)


def has_no_body(status: int, method: str | None) -> bool:
    """Return whether a reply ends with its head, whatever that says (RFC 9112 section 6.3)."""
    return status in _NO_BODY or method == "HEAD"


class WholeReply:
    """A reply that was there, head and body, when it was first looked: all it needs is to be taken apart.

    Attributes:
        body: all of it, still encoded.
        clean: always true: nothing came behind it.
    """

    __slots__ = ("body", "fields", "length", "reason", "status", "will_close")
    clean = True

    def __init__(self, head: Head, body: bytes) -> None:
        self.status, self.reason, self.fields, self.length, _, self.will_close = head
        self.body = body

    @property
    def msg(self) -> http.client.HTTPMessage:
        """The fields as http.client has them."""
        return _message(self.fields.pairs)

    headers = msg

    def end(self) -> None:
        """Do nothing: it has ended."""


def whole_reply(head: Head, came: bytes, size: int, method: str) -> WholeReply | None:
    """Return the reply if `came` is its head of `size` bytes and exactly its body, else None."""
    length = 0 if has_no_body(head.status, method) else head.length
    return WholeReply(head, came[size:]) if length == len(came) - size else None


class _Message(http.client.HTTPMessage):
    """Fields that need not be looked through for strange characters again each time they are listed."""

    pairs: list[tuple[str, str]]

    def items(self) -> list[tuple[str, str]]:
        """Return the fields as received."""
        return self.pairs.copy()


def _message(pairs: list[tuple[str, str]]) -> http.client.HTTPMessage:
    message = _Message()
    message.pairs = pairs
    vars(message)["_headers"] = pairs.copy()  # what set_raw() makes of them, one by one
    return message


class Reply(http.client.HTTPResponse):
    """A reply being read.

    Attributes:
        fields: without the white space around values.
        clean: whether the reply has ended and nothing came after it, so that the connection may be used again.
    """

    fp: io.BufferedReader | None  # type: ignore[assignment]  # http.client sets it to None at the end
    _method: str | None

    def __init__(
        self,
        source: BoundedReader,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
        *,
        last: bool = False,
    ) -> None:
        self._last = last  # whatever its head says, the connection ends with it
        self._message: http.client.HTTPMessage | None = None
        self.fields = _NONE
        self.clean = False
        super().__init__(source, debuglevel, method, url)  # type: ignore[arg-type]  # all it does is source.makefile("rb")

    @property
    def headers(self) -> http.client.HTTPMessage:
        """The fields as http.client and urllib3 want them, made when asked for."""
        if self._message is None and self.fields is not _NONE:
            self._message = _message(self.fields.pairs)
        return self._message  # type: ignore[return-value]  # None before begin(), as in http.client

    @headers.setter
    def headers(self, message: http.client.HTTPMessage) -> None:
        self._message = message

    msg = headers

    def begin(self) -> None:
        """Read the head.

        Raises:
            http.client.HTTPException: it is not HTTP, or its body has no certain end.
            OSError: the connection failed.
        """
        if self.fields is not _NONE:
            return
        assert self.fp is not None
        ahead = self.fp.peek(1)
        end = ahead.find(b"\r\n\r\n") + 4
        head = parse_head(ahead[:end]) if end > 3 else None  # noqa: PLR2004 - find() gave -1
        if head is None:
            self._begin_slowly()
        else:
            self.begin_with(head, end)

    def begin_with(self, head: Head, size: int) -> None:
        """Take a head that has been parsed, and is the next `size` bytes."""
        assert self.fp is not None
        self.fp.read(size)
        self.code = self.status = head.status
        self.reason, self.version = head.reason, 11
        self.fields = head.fields
        empty = has_no_body(head.status, self._method)
        self.chunked, self.chunk_left = head.chunked and not empty, None
        self.length = 0 if empty else head.length
        self.will_close = head.close or self._last or (self.length is None and not self.chunked)

    def _read_status(self) -> tuple[str, int, str]:
        """Skip interim replies (RFC 9110 section 15.2), of which http.client knows only 100."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not in typeshed
            if not 100 < status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:  # noqa: PLR2004 - the 1xx
                return version, status, reason
            assert self.fp is not None
            while self.fp.readline(_LONGEST_LINE).strip():
                pass

    def _begin_slowly(self) -> None:
        assert self.fp is not None
        source: BoundedReader = self.fp.raw  # type: ignore[assignment]
        super().begin()
        if source.at_end:  # to http.client, what there is of it is the head
            raise http.client.HTTPException("the reply was cut off within its head")
        assert self._message is not None
        pairs = [(name, _FOLD.sub(" ", value).strip(" \t")) for name, value in self._message.items()]
        self.fields = Headers(pairs, by_name(pairs))
        lengths = set(self.fields.get_all("content-length"))
        coding = self.fields.get("transfer-encoding", "chunked").lower()
        if len(lengths) > 1 or coding != "chunked":  # RFC 9112 section 6.3: where the body ends is anybody's guess
            raise http.client.HTTPException(f"reply has no certain end: {sorted(lengths) or coding}")
        if self._last or (lengths and self.chunked):
            self.will_close = True
        if has_no_body(self.status, self._method):
            self.chunked = False  # http.client would wait for chunks of a 204

    def read1(self, n: int = -1) -> bytes:
        """Return what has arrived of the body; b"" at its end.

        Raises:
            http.client.IncompleteRead: the connection ended before, which http.client itself tells only of chunks.
        """
        data = super().read1(n)
        if not data and n and self.length:
            raise http.client.IncompleteRead(b"", self.length)
        return data

    def ends_in_buffer(self) -> bool:
        """Return whether the end seems to be there; the reader must be out of time, so that it does not wait."""
        try:
            ahead = b"" if self.fp is None else self.fp.peek(1)
        except TimeoutError:
            return False
        return ahead.endswith(_LAST_CHUNK) if self.chunked else len(ahead) == self.length

    def end(self) -> None:
        """Stop reading; `clean` says afterwards whether the connection may carry another request."""
        if self.fp is not None:
            self._close_conn()

    def close(self) -> None:
        """Give up the rest of the reply; what remains buffered is not looked at."""
        fp, self.fp = self.fp, None
        if fp is not None:
            fp.close()
        super().close()

    def _close_conn(self) -> None:
        """End the reply, as http.client does at its last byte or when it makes no sense; keep the socket."""
        fp, self.fp = self.fp, None
        assert fp is not None
        raw: BoundedReader = fp.raw  # type: ignore[assignment]
        raw.end()
        self.clean = not fp.peek(1)  # bytes after the end would be taken for the next reply
        fp.close()
