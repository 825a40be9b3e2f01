"""Header fields of a reply, taken apart only when somebody asks for one that is there.

Most callers look at two or three of the 25 fields a provider sends, and those that are not there cost as much to look
for as those that are. What is regular text stays text until then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar, overload

from perfkit.transport.message import masked

__all__ = ["Headers", "by_name"]

T = TypeVar("T")


class Headers(Mapping[str, str]):
    """Header fields by name in any case; a field that came more than once is joined by ", " (RFC 9110 section 5.3).

    Args:
        pairs: fields as received.
    """

    __slots__ = ("_fields", "_low", "_pairs", "_text")

    _low: str
    _text: str

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs
        self._fields: dict[str, str] | None = by_name(pairs)

    @classmethod
    def of_text(cls, text: str, low: str) -> Self:
        """Return the fields of a head that is known to be regular; `low` is the same in lower case."""
        self = cls.__new__(cls)
        self._text, self._low, self._fields = text, low, None
        return self

    def _named(self) -> dict[str, str]:
        fields = self._fields
        if fields is None:
            parts = [line.partition(":") for line in self._text.split("\r\n")[1:-2]]
            self._pairs = [(name, value.strip(" \t")) for name, _, value in parts]
            fields = self._fields = by_name(self._pairs)
        return fields

    def alone(self, begin: str) -> str | None:
        """Return in lower case the value of the field whose line begins so; None when it is not there.

        Raises:
            ValueError: it came more than once.
        """
        low = self._low
        at = low.find(begin)
        if at < 0:
            return None
        end = low.find("\r", at)
        if low.find(begin, end) >= 0:
            raise ValueError(begin)
        return low[at + len(begin) : end].strip(" \t")

    def __getitem__(self, name: str) -> str:
        return self._named()[name.lower()]

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: T) -> str | T: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """Return a field, or `default`; Mapping's own raises and catches an error for each that is not there."""
        name = name.lower()
        if self._fields is None and f"\n{name}:" not in self._low:
            return default
        return self._named().get(name, default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._named())

    def __len__(self) -> int:
        return len(self._named())

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return every value of `name` in the order received: for Set-Cookie, which must not be joined."""
        self._named()
        return tuple(value for key, value in self._pairs if key.lower() == name.lower())

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The fields as received: names in their own case, repeated ones apart."""
        self._named()
        return self._pairs.copy()

    def __repr__(self) -> str:
        return f"Headers({masked(self)})"


def by_name(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return fields by lower-case name, repeated ones joined by ", "."""
    fields = {name.lower(): value for name, value in pairs}
    if len(fields) < len(pairs):
        fields = {}
        for name, value in pairs:
            key = name.lower()
            fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields
