"""How a value becomes a line of StatsD, in the two dialects that daemons speak.

Plain StatsD knows neither tags nor distributions: tags become part of the name, sorted, and other distributions than
timers travel as timers of their own unit, as hashicorp/go-metrics does, since the original daemon counts `|h` as a
counter. Its timers are milliseconds. DogStatsD has tags and distributions, so durations stay seconds. Whatever the
names, tags and values are, a line is one line: all that has a meaning to a daemon is replaced.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from perfkit._registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.metrics.sinks import Kind

__all__ = ["FLAVORS", "Dialect", "DogLines", "PlainLines"]

_HEADS = 8192  # names remembered
_NAME = 512  # bytes of a plain name, so that every line fits a datagram
_DOG_NAME = 200  # bytes of a name and of a tag (docs.datadoghq.com, "Getting started with tags")
_DOG_TAGS = 800  # bytes of all tags of a line
_WHOLE = 2.0**53  # below it floats without a fraction are written as integers

_clean_name = re.compile(r"[^A-Za-z0-9_.-]").sub
_clean_part = re.compile(r"[^A-Za-z0-9_-]").sub  # a dot would begin a new level of the hierarchy
_clean_key = re.compile(r"[^A-Za-z0-9_./-]").sub
_clean_value = re.compile(r"[^A-Za-z0-9_./:-]").sub


def _number(value: float) -> bytes:
    return b"%d" % value if value == int(value) and abs(value) < _WHOLE else repr(value).encode()


class Dialect(ABC):
    """Writes lines; what it has found out about names and tags it remembers.

    Args:
        prefix: first part of every name, may be empty.
        distribution: type letter of durations and other values, "d" or "h", where the dialect has them.
    """

    packs: ClassVar[bool]  # whether one line may carry several values (DogStatsD protocol v1.1)

    def __init__(self, prefix: str, distribution: str = "d") -> None:
        self._prefix = _clean_name("_", prefix.rstrip(".")) + "." if prefix else ""
        self._distribution = distribution.encode()
        self._heads: dict[Any, tuple[bytes, bytes]] = {}

    def line(self, kind: Kind, name: str, value: float, tags: Mapping[str, str], rate: bytes = b"") -> bytes:
        """Return the line of a value, nothing when the daemon would not take it.

        Args:
            kind: as a sink gets it.
            name: any text.
            value: seconds of a "timing", else any number.
            tags: any texts.
            rate: `|@0.1` when only a part of the values is sent.
        """
        key = (name, *tags.items())
        found = self._heads.get(key)
        if found is None:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            found = self._heads[key] = self._head(name, tags)
        return self._written(kind, found, value, rate) if math.isfinite(value) else b""

    @abstractmethod
    def _head(self, name: str, tags: Mapping[str, str]) -> tuple[bytes, bytes]:
        """Return what stands before the value and what ends the line."""

    @abstractmethod
    def _written(self, kind: Kind, head: tuple[bytes, bytes], value: float, rate: bytes) -> bytes:
        """Return the line of a finite value."""


class PlainLines(Dialect):
    """What every StatsD daemon reads."""

    packs = False
    _types: ClassVar[dict[str, bytes]] = {"value": b"ms", "counter": b"c", "gauge": b"g"}

    def _head(self, name: str, tags: Mapping[str, str]) -> tuple[bytes, bytes]:
        parts = [_clean_part("_", part) or "_" for pair in sorted(tags.items()) for part in pair]
        return ".".join([self._prefix + (_clean_name("_", name) or "_"), *parts])[:_NAME].encode(), b""

    def _written(self, kind: Kind, head: tuple[bytes, bytes], value: float, rate: bytes) -> bytes:
        name = head[0]
        if kind == "timing":
            value *= 1000
            return b"%s:%.6f|ms%s" % (name, value, rate) if 0 <= value < math.inf else b""
        if value < 0 and kind == "value":
            return b""
        text = _number(value)
        if kind == "gauge" and value < 0:  # a sign means "change by" to the daemon: set to zero first
            return b"%s:0|g\n%s:%s|g" % (name, name, text)
        return b"%s:%s|%s%s" % (name, text, self._types[kind], rate)


class DogLines(Dialect):
    """What the Datadog Agent, Vector, Telegraf and Prometheus' statsd_exporter read."""

    packs = True
    _types: ClassVar[dict[str, bytes]] = {"counter": b"c", "gauge": b"g"}

    def _head(self, name: str, tags: Mapping[str, str]) -> tuple[bytes, bytes]:
        head = (self._prefix + (_clean_name("_", name) or "_"))[:_DOG_NAME].encode()
        tail = ""
        for key, value in sorted(tags.items()):
            cleaned = (_clean_key("_", key) or "_")[: _DOG_NAME - 1]  # the colon has to fit
            tag = f"{cleaned}:{_clean_value('_', value)}"[:_DOG_NAME]
            if len(tail) + len(tag) < _DOG_TAGS:
                tail += ("," if tail else "|#") + tag
        return head, tail.encode()

    def _written(self, kind: Kind, head: tuple[bytes, bytes], value: float, rate: bytes) -> bytes:
        type_ = self._types.get(kind, self._distribution)
        return b"%s:%s|%s%s%s" % (head[0], _number(value), type_, rate, head[1])


FLAVORS = Registry("StatsD flavor", {"statsd": PlainLines, "dogstatsd": DogLines})
