"""Allowance: extra requests as a share of the regular ones, so that help never becomes a storm.

Finagle's retry budget: each regular request earns a part of an extra one, some more are earned each second, and what is
earned does not pile up. It bounds retries (20 % and 10 a second) and hedges (2 %).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from perfkit import _process
from perfkit._taking import taken
from perfkit.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from perfkit.clock import Clock

__all__ = ["Allowance"]


class Allowance:
    """Extra requests that may be made.

    Args:
        share: extra requests that each regular one earns.
        per_second: extra requests earned each second, whatever happens.
        most: extra requests that can be saved up.
        start: extra requests to begin with, None for `most`.
        clock: None means the system's.
    """

    def __init__(
        self,
        share: float,
        *,
        per_second: float = 0.0,
        most: float,
        start: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.share, self.per_second, self.most = share, per_second, most
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._saved = start if start is not None else most
        self._at = self._clock.now()
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _saved and _at

    def earn(self) -> None:
        """Note a regular request."""
        if self._saved < self.most:  # mostly nothing more can be saved, and no lock is needed to see that
            lock = taken(self._lock)
            try:
                self._saved = min(self.most, self._saved + self.share)
            finally:
                lock.release()

    def spend(self, *, leaving: float = 0.0) -> bool:
        """Take one extra request, if there is one left, and so many more for those who need it more."""
        now = self._clock.now()
        with self._lock:
            self._saved = min(self.most, self._saved + (now - self._at) * self.per_second)
            self._at = now
            if self._saved < 1.0 + leaving:
                return False
            self._saved -= 1.0
            return True

    def __repr__(self) -> str:
        return f"<Allowance {self._saved:.1f} of {self.most:g}>"
