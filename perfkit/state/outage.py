"""Telling of an outage once: a line in the log when it begins and when it ends, a count for every call that met it."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from perfkit.errors import StateUnavailableError
from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["Outage"]

log = logging.getLogger("perfkit.state")


class Outage:
    """Whether a store is away, as seen by this process.

    Args:
        what: the store in words, without secrets.
        tracker: where `state_unavailable` is counted; None means the shared one.
    """

    def __init__(self, what: str, tracker: PerformanceTracker | None) -> None:
        self.what = what
        self.lasts = False
        self._tracker = tracker
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new."""
        self._lock = threading.Lock()  # guards the change of `lasts`

    def begins(self, error: BaseException) -> None:
        """Remember that the store is away, and say so the first time."""
        if self._changes(lasts=True):
            log.warning("%s is away, going on without it: %s", self.what, type(error).__name__)

    def ends(self) -> None:
        """Remember that the store is back, and say so the first time."""
        if self._changes(lasts=False):
            log.warning("%s is back", self.what)

    def _changes(self, *, lasts: bool) -> bool:
        with self._lock:
            changed, self.lasts = self.lasts != lasts, lasts
        return changed

    def refuse(self, error: BaseException | None = None) -> NoReturn:
        """Count a call that cannot be served and raise.

        Raises:
            StateUnavailableError: always.
        """
        tracker = self._tracker
        if tracker is None:
            tracker = self._tracker = PerformanceTracker.instance()
        tracker.increment("state_unavailable")
        reason = "it failed a moment ago" if error is None else f"{type(error).__name__}: {error}"
        raise StateUnavailableError(f"{self.what} is not available: {reason}") from error
