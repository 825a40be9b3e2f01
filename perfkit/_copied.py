"""Frozen dataclasses that are copied quickly and written as JSON: the base of all values."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Value", "copied", "names_of"]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.to_dict() if isinstance(value, Value) else value


_known: dict[type[Any], tuple[str, ...]] = {}


def names_of(cls: type[Any]) -> tuple[str, ...]:
    """Return the names of a dataclass's fields, looked up once."""
    found = _known.get(cls)
    if found is None:
        found = _known[cls] = tuple(f.name for f in fields(cls))
    return found


class Value:
    """JSON form of a frozen dataclass."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON types; nested mappings are the value's own, not copies."""
        return {name: _plain(getattr(self, name)) for name in names_of(type(self))}

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some fields changed and nothing checked: dataclasses.replace at a tenth of its cost."""
        cls = type(self)
        copy = object.__new__(cls)
        for name in names_of(cls):
            object.__setattr__(copy, name, changes[name] if name in changes else getattr(self, name))
        return copy

    def but(self, *changes: Any) -> Self:
        """Return a copy with the fields changed that change at every call, in the order `copied` was given them."""
        often = next(_often[cls] for cls in type(self).__mro__ if cls in _often)
        return self.evolve(**dict(zip(often, changes, strict=True)))

    @classmethod
    def made(cls, *values: Any) -> Self:
        """Return one with all its fields as given: a frozen object's constructor at a quarter of its cost."""
        return cls(*values)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s form; keys of a newer version are ignored."""
        return cls(**{name: data[name] for name in names_of(cls) if name in data})


V = TypeVar("V", bound=Value)
_often: dict[type[Any], tuple[str, ...]] = {}


def copied(*often: str) -> Callable[[type[V]], type[V]]:
    """Give a class its copying methods written out, as dataclasses writes its own: every call makes several copies.

    The fields of a frozen object are slow to write, so they are written into a twin with the same slots, which then
    becomes one of the class.

    Args:
        often: the fields that `but` changes.
    """

    def write(cls: type[V]) -> type[V]:
        names = names_of(cls)
        twin = type(cls.__name__, (Value,), {"__slots__": names})
        scope: dict[str, Any] = {"twin": twin, "cls": cls, "evolved": Value.evolve, "changed": Value.but}
        written = {
            "all": "\n    ".join(f"copy.{name} = self.{name}" for name in names),
            "others": "\n    ".join(f"copy.{name} = self.{name}" for name in names if name not in often),
            "given": "\n    ".join(f"copy.{name} = {name}" for name in often),
            "often": ", ".join(("self", *often)),
            "filled": "\n    ".join(f"made.{name} = {name}" for name in names),
            "names": ", ".join(names),
        }
        exec(_WRITTEN_OUT.format_map(written), scope)  # noqa: S102
        _often[cls] = often
        cls.evolve = functools.wraps(Value.evolve)(scope["evolve"])  # type: ignore[method-assign]
        cls.made, cls.but = staticmethod(scope["made"]), scope["but"]  # type: ignore[method-assign]
        return cls

    return write


_WRITTEN_OUT = """def evolve(self, **changes):
    if self.__class__ is not cls:
        return evolved(self, **changes)
    copy = twin()
    {all}
    for name, value in changes.items():
        setattr(copy, name, value)
    copy.__class__ = cls
    return copy

def but({often}):
    if self.__class__ is not cls:
        return changed({often})
    copy = twin()
    {others}
    {given}
    copy.__class__ = cls
    return copy

def made({names}):
    made = twin()
    {filled}
    made.__class__ = cls
    return made
"""
