"""Work done behind the callers' backs: stale answers made fresh, one thread a key and a few at a time.

Nobody waits for it and nobody is told of its failures but the log and a counter. A key whose refresh failed is left
alone for a moment, so that a dead upstream is not asked once per hit.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from perfkit import _process

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.clock import Clock

__all__ = ["Refresher"]

log = logging.getLogger("perfkit.caching")

THREADS = 8  # refreshes at a time; for more keys the next hit tries again
PAUSE = 1.0  # seconds that a key is left alone after its refresh failed


class Refresher:
    """Runs at most one refresh a key in threads named `perfkit-refresh`.

    Args:
        clock: tells when a failed key may be tried again.
        on_failure: called in the thread after a refresh failed.
    """

    def __init__(self, clock: Clock, on_failure: Callable[[], None]) -> None:
        self._clock, self._on_failure = clock, on_failure
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _running and _resting
        self._running: dict[str, threading.Thread] = {}
        self._resting: dict[str, float] = {}  # until when

    def start(self, key: str, work: Callable[[], object]) -> bool:
        """Do `work` in a thread of its own, unless that is under way, has just failed, or too many are running."""
        with self._lock:
            if key in self._running or len(self._running) >= THREADS or self._rests(key):
                return False
            thread = threading.Thread(target=self._run, args=(key, work), name="perfkit-refresh", daemon=True)
            self._running[key] = thread
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            with self._lock:
                del self._running[key]
            return False
        return True

    def _rests(self, key: str) -> bool:
        now = self._clock.now()
        if self._resting.get(key, now) > now:
            return True
        self._resting = {other: until for other, until in self._resting.items() if until > now}
        return False

    def _run(self, key: str, work: Callable[[], object]) -> None:
        failed = True
        try:
            work()
            failed = False
        except Exception as error:
            log.warning("a stale answer could not be refreshed: %s", type(error).__name__, exc_info=True)
            with suppress(Exception):
                self._on_failure()
        finally:
            with self._lock:
                self._running.pop(key, None)
                if failed:
                    self._resting[key] = self._clock.now() + PAUSE

    def wait(self, timeout: float) -> bool:
        """Wait until no refresh is under way; False when that took too long. For tests and shutdown."""
        with self._lock:
            threads = list(self._running.values())
        for thread in threads:
            thread.join(timeout)
        return not any(thread.is_alive() for thread in threads)
