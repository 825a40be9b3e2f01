"""What one host's pool has done in this process: counts and waiting times for `stats()`."""

from __future__ import annotations

import threading
from collections import Counter, deque

__all__ = ["Tally"]

_WAITS = 512  # waiting times remembered for the percentile


class Tally:
    """Counts by name and the latest waiting times."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew, with a new lock: at the start and in a forked child."""
        self._lock = threading.Lock()  # guards _counts and _waits
        self._counts: Counter[str] = Counter()
        self._waits: deque[float] = deque(maxlen=_WAITS)

    def add(self, name: str, number: int = 1) -> None:
        """Count something."""
        with self._lock:
            self._counts[name] += number

    def handed_out(self, waited: float, *, reused: bool) -> None:
        """Note that a caller got a connection after `waited` seconds."""
        with self._lock:
            self._waits.append(waited)
            if reused:
                self._counts["reused"] += 1

    def count(self, name: str) -> int:
        """Return how often `name` was counted."""
        with self._lock:
            return self._counts[name]

    def wait_p95(self) -> float:
        """Return the 95th percentile, by nearest rank, of the latest waits in seconds."""
        with self._lock:
            waits = sorted(self._waits)
        return waits[-(-len(waits) * 95 // 100) - 1] if waits else 0.0
