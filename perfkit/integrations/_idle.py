"""How many requests of a process are under way, so that garbage can wait for the end of them, or for a lull."""

from __future__ import annotations

import threading

from perfkit import _process
from perfkit._shared import current_config
from perfkit.memory import GCOptimizer
from perfkit.startup import prepare_beside

__all__ = ["UnderWay"]

_LULL = 1.0  # seconds without a request


class UnderWay:
    """Counts requests.

    Args:
        collector: collects garbage between them; None means the shared one.
    """

    def __init__(self, collector: GCOptimizer | None = None) -> None:
        self._collector = collector
        self._rests = False
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _number and _begun
        self._number = 0
        self._begun = self._seen = 0  # requests so far, and at the last look for a lull

    def begin(self) -> None:
        """Count a request; the first of a process prepares it."""
        _process.check()  # before any lock: uWSGI may have forked without telling Python
        with self._lock:
            self._number += 1
            self._begun += 1
        prepare_beside()

    def end(self) -> bool:
        """Count it no more; return whether it was the last."""
        with self._lock:
            self._number -= 1
            return self._number == 0

    def collect(self, *, idle: bool, lull: bool = False) -> None:
        """Collect garbage if that is asked for and due; from then on also when no request has come for a second."""
        if not current_config().table("web").collect_garbage:
            return
        if self._collector is None:
            self._collector = GCOptimizer.instance()
        self._collector.collect_between_requests(idle=idle, lull=lull)
        if not self._rests:
            self._rests = True
            _process.background.every(_LULL, self._rest)

    def _rest(self) -> None:
        seen, self._seen = self._seen, self._begun
        if self._number == 0 and seen == self._begun:
            self.collect(idle=True, lull=True)
