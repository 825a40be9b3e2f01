"""Content codings of bodies, strictly: gzip and deflate, and br and zstd where their libraries are installed.

Every common client accepts a gzip body that is cut short, and unpacks a bomb until the memory is full. Here a body
that does not end where its coding says, or that grows over a limit, is an error. Only what `ACCEPT` names is asked for.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from perfkit.transport import codings

if TYPE_CHECKING:
    from perfkit.transport.codings import Stream

__all__ = ["ACCEPT", "CodingError", "Decoder", "compress", "decode", "decoder"]

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_TELLING = 2  # bytes
_BITS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}  # zlib's window bits, which also say the format
_MORE = codings.available()
_IN_MEMBERS = ("gzip", "x-gzip", "zstd")  # of which several may follow one another (RFC 1952 and RFC 8878)
ACCEPT = ", ".join(["gzip", "deflate", *_MORE])


class CodingError(ValueError):
    """A body that cannot be decoded whole: unknown coding, damaged, cut short or too large."""


class Decoder:
    """Decodes one body piece by piece.

    Args:
        coding: its name.
        limit: most bytes of the decoded body.
    """

    def __init__(self, coding: str, limit: int) -> None:
        self._coding = coding
        self._left = self._limit = limit
        self._first = b""  # until there are two bytes to tell the format by
        self._stream: Stream | None = None

    def feed(self, data: bytes) -> bytes:
        """Return what `data` decodes to so far.

        Raises:
            CodingError: it is damaged or decodes to more than the limit.
        """
        pieces = []
        if self._stream is None:
            data = self._first = self._first + data
            if len(data) < _TELLING:
                return b""
            self._stream = self._begin(data)
        while data:
            if self._stream.eof:
                self._stream = self._next_member(data)
            piece = self._inflate(self._stream, data)
            pieces.append(piece)
            self._left -= len(piece)
            if self._left < 0:
                raise CodingError(f"body decodes to more than {self._limit} bytes")
            data = self._stream.unconsumed_tail or self._stream.unused_data
        return b"".join(pieces)

    def _begin(self, data: bytes) -> Stream:
        """Some servers send deflate without the zlib frame around it, whose header RFC 1950 section 2.2 describes."""
        if self._coding in _MORE:
            return codings.begin(self._coding)
        bits = _BITS[self._coding]
        framed = data[0] & 0x0F == zlib.DEFLATED and (data[0] << 8 | data[1]) % 31 == 0
        return zlib.decompressobj(_RAW if bits == _ZLIB and not framed else bits)

    def _inflate(self, stream: Stream, data: bytes) -> bytes:
        try:
            return stream.decompress(data, self._left + 1)
        except (zlib.error, ValueError) as error:
            raise CodingError(f"body is damaged: {error}") from error

    def _next_member(self, data: bytes) -> Stream:
        if self._coding not in _IN_MEMBERS:
            raise CodingError(f"{len(data)} bytes follow the end of the compressed body")
        return self._begin(data)

    def finish(self) -> None:
        """Check that the body is whole.

        Raises:
            CodingError: it was cut short.
        """
        if self._first and (self._stream is None or not self._stream.eof):
            raise CodingError("compressed body is cut short")


def decoder(coding: str, limit: int) -> Decoder | None:
    """Return the decoder for a Content-Encoding, None when there is nothing to decode.

    Raises:
        CodingError: the coding is not one of those asked for.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in _BITS and name not in _MORE:
        raise CodingError(f"body is encoded as {coding!r}, but only {ACCEPT} was asked for")
    return Decoder(name, limit)


def decode(body: bytes, coding: str, limit: int) -> bytes:
    """Return the decoded body.

    Raises:
        CodingError: it cannot be decoded whole within `limit` bytes.
    """
    unpack = decoder(coding, limit)
    if unpack is None:
        return body
    decoded = unpack.feed(body)
    unpack.finish()
    return decoded


def compress(body: bytes) -> bytes:
    """Return `body` as gzip; level 1 is where text stops getting much smaller for the time."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()
