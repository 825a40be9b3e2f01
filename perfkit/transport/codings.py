"""Brotli and Zstandard, where their libraries are installed, in the shape of zlib's decompressors.

zlib is always there, and its objects tell all that a strict decoder needs: what of the input is left, and whether the
end has come. The others are made to tell the same; in particular none may unpack more than it is asked for.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any, Protocol

from perfkit._registry import load

__all__ = ["Stream", "available", "begin"]

_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_LIBRARIES = {"br": "brotli", "zstd": _ZSTD}


class Stream(Protocol):
    """What `zlib.decompressobj` returns, as far as it is used."""

    @property
    def eof(self) -> bool:
        """Whether the end of the compressed data has come."""
        ...

    @property
    def unconsumed_tail(self) -> bytes:
        """Input not looked at yet, because the output was as long as allowed."""
        ...

    @property
    def unused_data(self) -> bytes:
        """Input behind the end."""
        ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return what `data` decodes to, about `max_length` bytes at most."""
        ...


class _Brotli:
    """RFC 7932; whatever follows the end is an error of the library itself."""

    unconsumed_tail = unused_data = b""

    def __init__(self, library: Any) -> None:
        self._stream = library.Decompressor()
        self._error: type[Exception] = library.error

    @property
    def eof(self) -> bool:
        return bool(self._stream.is_finished())

    def decompress(self, data: bytes, most: int) -> bytes:
        try:
            piece: bytes = self._stream.process(data, output_buffer_limit=most)
        except self._error as error:
            raise ValueError(str(error)) from error
        return piece


class _Zstandard:
    """RFC 8878; frames may follow one another."""

    unconsumed_tail = b""

    def __init__(self, library: Any) -> None:
        self._stream = library.ZstdDecompressor()
        self._error: type[Exception] = library.ZstdError

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        behind: bytes = self._stream.unused_data
        return behind

    def decompress(self, data: bytes, most: int) -> bytes:
        try:
            piece: bytes = self._stream.decompress(data, most)
        except self._error as error:
            raise ValueError(str(error)) from error
        return piece


_KINDS: dict[str, type[_Brotli | _Zstandard]] = {"br": _Brotli, "zstd": _Zstandard}


def available() -> list[str]:
    """Return the codings whose library is installed; none is imported for it."""
    return [coding for coding, name in _LIBRARIES.items() if _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def begin(coding: str) -> Stream:
    """Return a decompressor of one of the codings that are `available`."""
    return _KINDS[coding](load(_LIBRARIES[coding]))
