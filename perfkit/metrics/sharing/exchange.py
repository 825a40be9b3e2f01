"""One process's part in sharing: it tells what its slots held, folds when it is due, and reads what all have told."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from perfkit.metrics.sharing.blobs import encode, encode_slots
from perfkit.metrics.sharing.fold import fold
from perfkit.metrics.sharing.ledger import DELTA, Ledger
from perfkit.metrics.sharing.view import MergedView, merged_series
from perfkit.metrics.sharing.worker import Worker
from perfkit.metrics.window import SLOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perfkit.clock import Clock
    from perfkit.metrics.handle import Handle
    from perfkit.metrics.sharing.blobs import Row
    from perfkit.metrics.sharing.stores import Store

__all__ = ["Exchange"]

log = logging.getLogger("perfkit.metrics")

_FOLD_AT = 32  # deltas


class Exchange:
    """Shares one tracker's metrics through a store; the store's absence costs nothing but time.

    While it is away, deltas wait: first here, then in the series, whose slots grow coarser, for a day at most.

    Args:
        store: where deltas go.
        clock: the tracker's.
        handles: returns the series to share.
        away: called when the store could not be used, once each time it was tried.
        host: this machine's name; None means its own.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        handles: Callable[[], Iterable[Handle]],
        away: Callable[[], None],
        *,
        host: str | None = None,
    ) -> None:
        self.store = store
        self._host = os.uname().nodename if host is None else host
        self._clock = clock
        self._handles = handles
        self._away = away
        self.after_fork()

    def after_fork(self) -> None:
        """Become another worker, one that has told nothing yet."""
        self._lock = threading.Lock()  # guards taking slots and putting them into a delta
        self._id = f"{self._host}.{os.getpid()}.{os.urandom(4).hex()}".replace("/", "_")
        self._numbers = itertools.count()
        self._waiting: deque[tuple[str, bytes]] = deque()  # deltas on their way
        self._slot = -1  # in which was told last
        self._told = False
        self._lost = False  # the store, and that was logged
        self._ledger: Ledger | None = None
        self._view: MergedView | None = None

    # --- telling

    def tick(self, limit: int) -> None:
        """Tell of the slots that are over, if a slot has ended since the last time, and fold if it is due."""
        slot = int(self._clock.wall() // SLOT)
        if slot != self._slot:
            self._slot = slot
            self.tell()
            self._fold(limit)

    def tell(self, *, everything: bool = False, ended: bool = False) -> None:
        """Tell of the slots that are over; with `everything` also of the present one."""
        if not self._send():
            return
        with self._lock:
            rows = list(self._rows(everything=everything))
            if ended and not self._told and not rows:
                return  # nobody knows this worker
            about = {"worker": Worker.here(self._id, self._host, self._clock.wall(), ended=ended)}
            self._waiting.append((f"{DELTA}{self._id}.{next(self._numbers)}", encode(about, rows)))
            self._told = True
        self._send()

    def _rows(self, *, everything: bool) -> Iterator[Row]:
        now = self._clock.wall()
        for handle in self._handles():
            slots = handle.take(everything=everything)
            if slots:
                extras: dict[str, Any] = {"last": [handle.last, now]} if handle.kind == "gauge" else {}
                yield handle.key, extras, encode_slots(slots)

    def _send(self) -> bool:
        """Write what waits; one that fails stays first, under the name it had, since it may have been written."""
        while self._waiting:
            try:
                name, data = self._waiting.popleft()
            except IndexError:  # another thread was quicker
                break
            try:
                self.store.write(name, data)
            except OSError as error:
                self._waiting.appendleft((name, data))
                self._lose(error)
                return False
            self._lost = False
        return True

    def _lose(self, error: Exception) -> None:
        if not self._lost:
            self._lost = True
            log.warning("%r cannot be used, metrics are not shared for now: %s", self.store, error)
        self._away()

    def _fold(self, limit: int) -> None:
        try:
            if sum(name.startswith(DELTA) for name in self.store.names()) >= _FOLD_AT:
                fold(self.store, self._id, self._clock.wall(), limit=limit, least=_FOLD_AT)
        except OSError as error:
            self._lose(error)

    # --- reading

    def view(self) -> MergedView:
        """Return what all workers have told; what was known before when the store is away."""
        before = self._ledger
        try:
            ledger = Ledger.read(self.store, before)
        except OSError as error:
            self._lose(error)
            return self._view if self._view is not None else MergedView(self._clock, [], [], host=self._host)
        self._ledger = ledger
        self._view = MergedView(self._clock, merged_series(ledger), ledger.workers, host=self._host)
        return self._view

    def __repr__(self) -> str:
        return f"Exchange({self.store!r}, {self._id})"
