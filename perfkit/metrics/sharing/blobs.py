"""The form of a blob: a line of JSON about all its series, then the slots of each, to be read only where asked for."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perfkit.metrics.sketch import Sketch
from perfkit.metrics.window import Slots, add_slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from perfkit.metrics.series import Key

__all__ = ["Blob", "Row", "decode", "decode_slots", "encode", "encode_slots", "rows"]

VERSION = 1
_SLOT = struct.Struct("<qI")  # index of the slot, bytes of the sketch that follows

Row = tuple["Key", "Mapping[str, Any]", bytes]  # series, what else is known of it, its slots


@dataclass(frozen=True, slots=True)
class Blob:
    """What `encode` was given."""

    about: Mapping[str, Any]
    series: Mapping[Key, tuple[Mapping[str, Any], bytes]]


def encode(about: Mapping[str, Any], rows: Iterable[Row]) -> bytes:
    """Return a blob."""
    heads, bodies = [], []
    for (kind, name, labels), extras, body in rows:
        heads.append([kind, name, labels, extras, len(body)])
        bodies.append(body)
    head = json.dumps({"version": VERSION, "about": about, "series": heads}, separators=(",", ":"))
    return b"\n".join([head.encode(), b"".join(bodies)])


def decode(data: bytes) -> Blob:
    """Return what was encoded.

    Raises:
        ValueError: it is no blob of this version.
    """
    line, _, bodies = data.partition(b"\n")
    head = json.loads(line)
    if head.get("version") != VERSION:
        raise ValueError(f"blob of version {head.get('version')!r}; this perfkit reads {VERSION}")
    series: dict[Key, tuple[Mapping[str, Any], bytes]] = {}
    start = 0
    for kind, name, labels, extras, length in head["series"]:
        series[kind, name, tuple(map(tuple, labels))] = extras, bodies[start : start + length]
        start += length
    return Blob(head["about"], series)


def encode_slots(slots: Slots) -> bytes:
    """Return slots as bytes; what two calls returned may be joined."""
    return b"".join(part for index, sketch in slots.items() for part in _slot(index, sketch.encode()))


def _slot(index: int, sketch: bytes) -> tuple[bytes, bytes]:
    return _SLOT.pack(index, len(sketch)), sketch


def rows(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield for each slot its index and where its sketch begins."""
    start, end = 0, len(body)
    while start < end:
        index, length = _SLOT.unpack_from(body, start)
        start += _SLOT.size
        yield index, start
        start += length


def decode_slots(body: bytes) -> Slots:
    """Return the slots, those of one index merged."""
    slots: Slots = {}
    for index, start in rows(body):
        add_slot(slots, index, Sketch.decode(body, start)[0])
    return slots
