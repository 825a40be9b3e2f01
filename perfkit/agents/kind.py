"""What an agent type is: the hooks of its objects, and how many there may be for how long; checked when made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AgentType", "check_bounds"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentType(Generic[T]):
    """What `AgentPool.register` was told; seconds and objects.

    Raises:
        TypeError: a hook cannot be called, or a number is none.
        ValueError: a number is out of bounds.
    """

    name: str
    factory: Callable[[], T]
    size: int = 3
    min_idle: int = 0
    max_waiting: int | None = None
    reset: Callable[[T], Any] | None = None
    validate: Callable[[T], Any] | None = None
    close: Callable[[T], Any] | None = None
    max_idle: float = 1800
    max_lifetime: float | None = None
    timeout: float = 30
    nested: bool = False
    leak_after: float | None = None

    def __post_init__(self) -> None:
        for hook in ("factory", "reset", "validate", "close"):
            call = getattr(self, hook)
            if not (callable(call) or (call is None and hook != "factory")):
                raise TypeError(f"{hook} of agent type {self.name!r} must be callable, not {call!r}")
        check_bounds(self.name, size=self.size, min_idle=self.min_idle, max_waiting=self.max_waiting)
        finite("timeout", self.timeout, least=0)
        for setting in ("max_idle", "max_lifetime", "leak_after"):
            value = getattr(self, setting)
            if value is not None or setting == "max_idle":
                finite(setting, value, above=0)


def check_bounds(name: str, *, size: int, min_idle: int = 0, max_waiting: int | None = None) -> None:
    """Refuse numbers of objects and callers that cannot be.

    Raises:
        TypeError: one is no whole number.
        ValueError: one is out of bounds.
    """
    for setting, value, least in (("size", size, 1), ("min_idle", min_idle, 0), ("max_waiting", max_waiting, 0)):
        if value is None:
            continue
        if not isinstance(value, int):
            raise TypeError(f"{setting} of agent type {name!r} must be a whole number, not {value!r}")
        finite(f"{setting} of agent type {name!r}", value, least=least)
    if min_idle > size:
        raise ValueError(f"min_idle of agent type {name!r} is {min_idle}, more than its size of {size}")
