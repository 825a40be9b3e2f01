"""Loans that last suspiciously long: each is reported once, with the stack it was made from.

Only types with `leak_after` pay for it: some microseconds a loan for the stack, as file names and line numbers alone.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from perfkit import _process
from perfkit.agents.lending import Lender

if TYPE_CHECKING:
    from perfkit._settings import AgentsSettings
    from perfkit.agents.kind import AgentType
    from perfkit.agents.shelf import Slot
    from perfkit.clock import Clock

__all__ = ["WatchedLender"]

log = logging.getLogger("perfkit.agents")
T = TypeVar("T")
_DEPTH = 20  # frames kept
_LOOKS = 2  # times per `leak_after`


class _Out(NamedTuple):
    since: float
    thread: str
    frames: tuple[tuple[str, int, str], ...]


class WatchedLender(Lender[T]):
    """A lender that remembers who has borrowed what since when."""

    def __init__(self, kind: AgentType[T], clock: Clock, settings: AgentsSettings) -> None:
        super().__init__(kind, clock, settings)
        self._out: dict[int, _Out] = {}  # by the slot's id; each step is one operation of a dict

    def after_fork(self) -> None:
        """Forget the parent's loans."""
        super().after_fork()
        self._out = {}

    def take(self, timeout: float | None = None) -> Slot:
        """Lend, and note from where."""
        slot = super().take(timeout)
        self._out[id(slot)] = _Out(self._now(), threading.current_thread().name, _frames())
        return slot

    def give(self, slot: Slot, *, failed: bool = False) -> None:
        """Take back."""
        self._out.pop(id(slot), None)
        super().give(slot, failed=failed)

    def retire(self, slot: Slot, reason: str) -> None:
        """Close."""
        self._out.pop(id(slot), None)
        super().retire(slot, reason)

    def look(self) -> None:
        """Report the loans that have lasted too long."""
        patience, now = self.kind.leak_after or 0.0, self._now()
        for number, out in list(self._out.items()):
            if now - out.since >= patience and self._out.pop(number, None) is not None:
                self._shelf.events.append("leaked")
                places = "\n".join(f'  File "{file}", line {line}, in {name}' for file, line, name in out.frames)
                log.warning(
                    "an agent %r has been out for %.3g s, lent to thread %s at (latest call first):\n%s",
                    self.kind.name, now - out.since, out.thread, places,
                )  # fmt: skip

    def _keep_swept(self) -> None:
        super()._keep_swept()
        if not self._shelf.shut and self.kind.leak_after is not None:
            _process.background.every(self.kind.leak_after / _LOOKS, self.look)


def _frames() -> tuple[tuple[str, int, str], ...]:
    """Return the callers outside this package, the nearest first."""
    found: list[tuple[str, int, str]] = []
    frame = sys._getframe(2)  # noqa: SLF001 - the documented way to the caller's frame
    while frame is not None and len(found) < _DEPTH:
        code = frame.f_code
        if found or frame.f_globals.get("__package__") != __package__:
            found.append((code.co_filename, frame.f_lineno, code.co_qualname))
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)
