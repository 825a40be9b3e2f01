"""How large a picture is, read from the first bytes of its file: PNG, GIF, WebP and JPEG."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["size_of"]

HEAD: Final = 128 * 1024  # characters of base64 that are read: cameras write much before a JPEG's size
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG's markers that tell a size
_START: Final = 0xFF


def size_of(part: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return width and height of a picture that a message's part carries; None where that cannot be told.

    Args:
        part: {"image_url": {"url": "data:..."}}, as OpenAI writes it, or {"source": {"data": ...}}, as Anthropic does.
    """
    text = _carried(part)
    if not text:
        return None
    try:
        data = base64.b64decode(text[: HEAD - HEAD % 4])
        return _size(data)
    except (binascii.Error, ValueError, struct.error, IndexError):
        return None


def _carried(part: Mapping[str, Any]) -> str:
    picture, source = part.get("image_url"), part.get("source")
    if isinstance(source, Mapping):
        return str(source.get("data", ""))
    url = picture.get("url", "") if isinstance(picture, Mapping) else picture
    return url.partition(";base64,")[2] if isinstance(url, str) and url.startswith("data:") else ""


def _size(data: bytes) -> tuple[int, int] | None:
    width: int
    height: int
    if data.startswith(b"\x89PNG"):
        width, height = struct.unpack_from(">II", data, 16)
    elif data.startswith(b"GIF8"):
        width, height = struct.unpack_from("<HH", data, 6)
    elif data[8:12] == b"WEBP":
        return _of_webp(data)
    else:
        return _of_jpeg(data) if data.startswith(b"\xff\xd8") else None
    return width, height


def _of_webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _of_jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == _START:
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None
