"""Names to classes: each family of parts (strategies, sinks, providers, backends) is a table imported on first use.

A new part is one file and one line in its family's table; third parties register the same way.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from perfkit.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Registry", "load"]


def load(target: str) -> Any:
    """Import and return what `"package.module:attribute"` names, or the module if no attribute is named."""
    name, _, attribute = target.partition(":")
    module = importlib.import_module(name)
    return getattr(module, attribute) if attribute else module


class Registry:
    """One family of named parts.

    Args:
        kind: the family's name in error messages, for example "routing strategy".
        entries: name to `"module:attribute"` or to the part itself.
    """

    def __init__(self, kind: str, entries: Mapping[str, Any]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def register(self, name: str, part: Any) -> None:
        """Add or replace a part: the object itself or `"module:attribute"`, imported on first use."""
        self._entries[name] = part

    def get(self, name: str) -> Any:
        """Return the part called `name`.

        Raises:
            UnknownNameError: naming the known ones and the nearest.
        """
        try:
            part = self._entries[name]
        except (KeyError, TypeError):
            raise UnknownNameError.of(self.kind, name, self._entries) from None
        if isinstance(part, str):
            part = load(part)
            self.register(name, part)
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries
