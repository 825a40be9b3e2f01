"""Errors that would come again at once: a model nobody has, a request that is wrong whoever asks.

They are raised again for a short time without asking anybody; errors that may pass (a full server, a limit, a filter)
never are. They are kept in this process only.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from perfkit.errors import BadRequestError, ContentFilterError, ModelNotFoundError
from perfkit.resilience.singleflight import copied, raise_again

if TYPE_CHECKING:
    from perfkit.clock import Clock

__all__ = ["KnownErrors", "is_definite"]

MOST = 1024  # errors kept: a few MB


def is_definite(error: Exception) -> bool:
    """Tell whether the same request would fail in the same way."""
    return isinstance(error, BadRequestError | ModelNotFoundError) and not isinstance(error, ContentFilterError)


class KnownErrors:
    """Definite errors by key, each for a few seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new and forget."""
        self._lock = threading.Lock()  # guards _known
        self._known: dict[str, tuple[Exception, float]] = {}

    def remember(self, key: str, error: Exception, seconds: float) -> None:
        """Raise `error` for `key` from now on, for `seconds`, if it is a definite one."""
        if seconds <= 0 or not is_definite(error):
            return
        now, known = self._clock.now(), copied(error)
        with self._lock:
            if len(self._known) >= MOST:
                self._known = {one: kept for one, kept in self._known.items() if kept[1] > now}
            if len(self._known) < MOST and known is not None:
                self._known[key] = (known, now + seconds)

    def check(self, key: str) -> None:
        """Raise what is known to come of `key`.

        Raises:
            BadRequestError, ModelNotFoundError: as the provider answered a moment ago.
        """
        if not self._known:
            return
        with self._lock:
            error, until = self._known.get(key, (None, 0.0))
            if error is None or until <= self._clock.now():
                self._known.pop(key, None)
                return
        raise_again(error)

    def forget(self) -> None:
        """Forget all."""
        with self._lock:
            self._known.clear()
