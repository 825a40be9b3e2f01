"""The life of one agent type's objects: made, lent, checked, reset, replaced and closed by the hooks of its type.

Hooks are the user's code and never run under a lock; one that fails costs its object, never the place or the caller
who returns it. `Shelf` decides who gets which slot; here is decided what is fit to be lent.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from perfkit import _process
from perfkit.agents.batch import map_bounded
from perfkit.agents.nesting import Held, Nest
from perfkit.agents.shelf import EMPTY, Refused, Shelf, Slot
from perfkit.errors import PoolTimeout
from perfkit.metrics.operations import operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from perfkit._settings import AgentsSettings
    from perfkit.agents.kind import AgentType
    from perfkit.clock import Clock

__all__ = ["Lender", "Loan", "NestedLoan"]

log = logging.getLogger("perfkit.agents")
T = TypeVar("T")
_JITTER = 0.05  # of a lifetime, so that objects made together do not end together (psycopg_pool's share)


class Loan(Generic[T]):
    """An agent for the length of a `with` block; made by `AgentPool.get_agent`, takes nothing before it is entered."""

    __slots__ = ("_lender", "_slot", "_timeout")

    def __init__(self, lender: Lender[T], timeout: float | None) -> None:
        self._lender = lender
        self._timeout = timeout
        self._slot: Slot | None = None

    def __enter__(self) -> T:
        if self._slot is not None:
            raise self._busy()
        self._slot = slot = self._lender.take(self._timeout)
        return slot.value  # type: ignore[no-any-return]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        slot = self._slot
        if slot is not None:
            self._slot = None
            self._lender.give(slot, failed=kind is not None)

    def _busy(self) -> RuntimeError:
        return RuntimeError(f"this loan of an agent {self._lender.kind.name!r} is in use: call get_agent() again")

    def discard(self) -> None:
        """Close the agent instead of lending it again: for a block that finds it broken. It ends the loan."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._lender.retire(slot, "discarded")


class NestedLoan(Loan[T]):
    """A loan that may stand inside another one of its thread, and shares the agent then."""

    __slots__ = ("_held",)

    def __init__(self, lender: Lender[T], timeout: float | None) -> None:
        super().__init__(lender, timeout)
        self._held: Held | None = None

    def __enter__(self) -> T:
        if self._held is not None:
            raise self._busy()
        nest = self._lender.nest
        held = nest.enter()
        self._held = held = held if held is not None else nest.begin(self._lender.take(self._timeout))
        return held.slot.value  # type: ignore[no-any-return]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(failed=kind is not None)

    def discard(self) -> None:
        """Close the agent instead of lending it again, when the outermost block has ended. It ends the loan."""
        self._end(discarded=True)

    def _end(self, *, failed: bool = False, discarded: bool = False) -> None:
        held, self._held = self._held, None
        if held is None or not self._lender.nest.leave(held, failed=failed, discarded=discarded):
            return
        if held.discarded:
            self._lender.retire(held.slot, "discarded")
        else:
            self._lender.give(held.slot, failed=held.failed)


class Lender(Generic[T]):
    """The pool of one agent type.

    Args:
        kind: its hooks and bounds.
        clock: time, for ages and waits.
        settings: of the pool it belongs to.
    """

    def __init__(self, kind: AgentType[T], clock: Clock, settings: AgentsSettings) -> None:
        self.kind = kind
        self.settings = settings
        self._grace = settings.validate_after
        self._reset = kind.reset
        self._now = clock.now
        self._shelf = Shelf(kind.size)
        self.nest = Nest()
        self.loan: type[Loan[T]] = NestedLoan if kind.nested else Loan
        self._swept_every: float | None = None

    def after_fork(self) -> None:
        """Forget the parent's objects and waiters; objects are dropped, not closed, since the parent uses them."""
        self._shelf = Shelf(self._shelf.size)
        self.nest = Nest()

    def take(self, timeout: float | None = None) -> Slot:
        """Return a slot with an object fit to be lent; it goes back by `give` or `retire`.

        Raises:
            PoolTimeout: none came back in time, too many wait already, or the pool was shut down.
            Exception: what the factory raised.
        """
        shelf = self._shelf
        slot = None
        if not shelf.waiters:
            try:  # noqa: SIM105 - suppress() costs more than all the rest
                slot = shelf.idle.pop()
            except IndexError:
                pass
        if slot is None:
            slot = self._join(timeout)
        if self._now() - slot.since > self._grace:
            slot = self._checked(slot, timeout)
        slot.uses += 1
        return slot

    def _join(self, timeout: float | None) -> Slot:
        _process.check()
        shelf, began = self._shelf, self._now()
        try:
            return shelf.join(self.kind.timeout if timeout is None else timeout, self.kind.max_waiting)
        except Refused as refused:
            shelf.events.append({"late": "timeouts", "shed": "shed", "shut": "refused"}[refused.reason])
            raise self._error(refused, self._now() - began) from None
        finally:
            shelf.waits.append((ended := self._now()) - began)
            operations.waited("agent", self.kind.name, began, ended)

    def _error(self, refused: Refused, waited: float) -> PoolTimeout:
        name, size = self.kind.name, self._shelf.size
        what = {
            "late": f"all {size} are in use and none came back within {waited:.3g} s; raise size= or timeout=,"
            " or hold them for a shorter time",
            "shed": f"all {size} are in use and {refused.waiting} callers wait already, which is max_waiting",
            "shut": "the pool was shut down; register() the type again to go on",
        }[refused.reason]
        data = {"agent_type": name, "size": size, "waiting": refused.waiting, "elapsed": waited}
        return PoolTimeout(f"no agent {name!r}: {what}", **data, reason=refused.reason)

    def _checked(self, slot: Slot, timeout: float | None) -> Slot:
        """Make the object of an empty slot, and look at one that was idle for long; replace it if it is not fit."""
        if slot.pid != os.getpid():  # put down by the parent of this process
            slot = self._join(timeout)
        if slot.value is not EMPTY:
            if self._now() < slot.expires and self._valid(slot.value):
                return slot
            self._close(slot)
            self._shelf.events.append("replaced")
        self._fill(slot)
        return slot

    def _fill(self, slot: Slot) -> None:
        try:
            slot.value = self.kind.factory()
        except BaseException:
            slot.free("failed")
            raise
        lifetime = self.kind.max_lifetime
        slot.since = self._now()
        slot.expires = float("inf") if lifetime is None else slot.since + lifetime * random.uniform(1 - _JITTER, 1)
        self._shelf.events.append("created")
        self._keep_swept()
        self._close_lost()

    def give(self, slot: Slot, *, failed: bool = False) -> None:
        """Take a slot back: reset its object for the next, or close it if it is not fit, old, or one too many."""
        slot.since = self._now()
        shelf = self._shelf
        if slot.era != shelf.era or shelf.crowded or slot.since >= slot.expires:
            self.retire(slot, "retired")
        elif (failed or self._reset is not None) and not self._fit(slot, failed=failed):
            self.retire(slot, "broken")
        elif not shelf.put(slot):
            self._trim()

    def _fit(self, slot: Slot, *, failed: bool) -> bool:
        """Reset the object; after a block that failed also ask whether it is valid."""
        try:
            if self._reset is not None:
                self._reset(slot.value)
        except Exception:
            log.warning("reset of an agent %r failed; it is closed", self.kind.name, exc_info=True)
            return False
        except BaseException:
            self.retire(slot, "broken")
            raise
        return not failed or self._valid(slot.value)

    def _valid(self, value: T) -> bool:
        if self.kind.validate is None:
            return True
        try:
            return bool(self.kind.validate(value))
        except Exception:
            log.warning("validation of an agent %r failed; it is closed", self.kind.name, exc_info=True)
            return False

    def retire(self, slot: Slot, reason: str) -> None:
        """Close the object of a slot and let another one be made in its place."""
        try:
            self._close(slot)
        finally:
            slot.free(reason)

    def _close(self, slot: Slot) -> None:
        value, slot.value = slot.value, EMPTY
        if value is not EMPTY and slot.pid == os.getpid():
            self._close_value(value)

    def _close_value(self, value: T) -> None:
        if self.kind.close is not None:
            try:
                self.kind.close(value)
            except Exception:
                log.warning("close of an agent %r failed", self.kind.name, exc_info=True)

    def _retire_all(self, slots: Iterable[Slot], reason: str) -> None:
        for slot in slots:
            self.retire(slot, reason)

    def _trim(self) -> None:
        """Close idle objects of earlier eras, and those there are too many."""
        shelf = self._shelf
        surplus = shelf.resize(shelf.size)

        def unwanted(slot: Slot) -> bool:
            nonlocal surplus
            surplus -= 1
            return shelf.shut or slot.era != shelf.era or surplus >= 0

        self._retire_all(shelf.remove(unwanted), "retired")

    def warm_up(self, n: int) -> int:
        """Make objects, all at once, until `n` are idle or there are as many as may be; return how many are idle.

        Raises:
            Exception: what the factory raised first; those that could be made stay.
        """
        _process.check()
        self._make(self._shelf.reserve(n))
        return len(self._shelf.idle)

    def _make(self, slots: list[Slot]) -> None:
        results = list(map_bounded(self._fill_and_give, slots, len(slots))) if slots else []
        error = next((result.error for result in results if result.error is not None), None)
        if error is not None:
            raise error

    def _fill_and_give(self, slot: Slot) -> None:
        self._fill(slot)
        self.give(slot)

    def resize(self, size: int) -> None:
        """Allow `size` objects; surplus ones are closed now or when they come back."""
        self._shelf.resize(size)
        self._trim()

    def reload(self) -> Callable[[float], bool]:
        """Replace all objects: idle ones are closed now, lent ones when they come back.

        Returns:
            A function that waits so many seconds for those lent, and tells whether all came back.
        """
        return self._renewed(shut=False)

    def shut(self) -> Callable[[float], bool]:
        """Lend nothing any more, send those who wait away and close all as `reload` does."""
        return self._renewed(shut=True)

    def _renewed(self, *, shut: bool) -> Callable[[float], bool]:
        _process.check()
        shelf = self._shelf
        era = shelf.renew(shut=shut)
        self._trim()
        if shut:
            _process.background.cancel(self.sweep)
        return partial(shelf.await_departure, era)

    def configure(self, settings: AgentsSettings) -> None:
        """Take other settings of the pool."""
        self.settings = settings
        self._grace = settings.validate_after
        if self._swept_every is not None:
            self._keep_swept()

    def _keep_swept(self) -> None:
        """Have `sweep` run by the background thread, from the first object on."""
        interval = self.settings.reap_interval
        if self._shelf.shut or self._swept_every == interval:
            _process.background.ensure()
        else:
            self._swept_every = interval
            _process.background.every(interval, self.sweep)

    def sweep(self) -> None:
        """Close what has been idle for too long or is too old, and what was lost; make what `min_idle` is short of."""
        now, shelf = self._now(), self._shelf
        spare = len(shelf.idle) - self.kind.min_idle

        def unwanted(slot: Slot) -> bool:
            nonlocal spare
            old = slot.expires <= now or (slot.since + self.kind.max_idle <= now and spare > 0)
            spare -= old
            return old

        self._retire_all(shelf.remove(unwanted), "reaped")
        self._close_lost()
        missing = shelf.reserve(self.kind.min_idle)
        if missing:
            threading.Thread(target=self._refill, args=(missing,), name="perfkit-agents-min-idle", daemon=True).start()

    def _refill(self, slots: list[Slot]) -> None:
        try:
            self._make(slots)
        except Exception:
            log.warning("making idle agents %r failed", self.kind.name, exc_info=True)

    def _close_lost(self) -> None:
        lost = self._shelf.lost
        while lost:
            with suppress(IndexError):  # another thread was faster
                self._close_value(lost.popleft())

    def stats(self) -> dict[str, Any]:
        """Return the shelf's numbers, every count there can be included."""
        zero = dict.fromkeys(_COUNTS, 0)
        return {**zero, **self._shelf.stats()}

    def __repr__(self) -> str:
        now = self.stats()
        return (
            f"<agents {self.kind.name!r}: {now['in_use']} of {now['size']} in use, {now['idle']} idle,"
            f" {now['waiters']} waiting>"
        )


_COUNTS = (
    "lent", "created", "failed", "replaced", "broken", "discarded", "retired", "reaped", "lost", "leaked",
    "timeouts", "shed", "refused",
)  # fmt: skip
