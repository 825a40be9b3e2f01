"""Header fields of a reply, by name in any case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from perfkit.transport.message import field_name, masked

__all__ = ["Headers", "by_name", "fields_of"]

T = TypeVar("T")
_MOST_KNOWN = 1024  # names


class _Names(dict[str, str]):
    """Names as received, to the same in lower case; servers send the same few again and again."""

    def __missing__(self, name: str) -> str:
        low = field_name(name)
        if len(self) < _MOST_KNOWN:
            self[name] = low
        return low


_NAMES = _Names()


class Headers(Mapping[str, str]):
    """Header fields by name in any case; a field that came more than once is joined by ", " (RFC 9110 section 5.3).

    Args:
        lines: names and values as received.
        fields: the same by lower-case name.
    """

    __slots__ = ("_fields", "_lines")

    def __init__(self, lines: list[Any], fields: dict[str, str]) -> None:
        self._lines = lines
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: T) -> str | T: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """Return a field, or `default`; Mapping's own raises and catches an error for each that is not there."""
        return self._fields.get(name.lower(), default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return every value of `name` in the order received: for Set-Cookie, which must not be joined."""
        return tuple(value for key, value in self.pairs if key.lower() == name.lower())

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The fields as received: names in their own case, repeated ones apart."""
        return [(name, value.strip(" \t")) for name, value in self._lines]

    def __repr__(self) -> str:
        return f"Headers({masked(self)})"


def fields_of(lines: list[list[str]]) -> Headers:
    """Return the fields of lines that have been parted at their first colon.

    Raises:
        ValueError: a line has no colon, or its name is not a token, as that of a folded one.
    """
    fields = {_NAMES[name]: value.strip(" \t") for name, value in lines}
    headers = Headers(lines, fields)
    if len(fields) < len(lines):
        headers._fields = by_name(headers.pairs)
    return headers


def by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return fields by lower-case name, repeated ones joined by ", "."""
    fields: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields
