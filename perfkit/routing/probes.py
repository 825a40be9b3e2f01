"""Active health checks: a provider whose circuit is open is asked for its list of models, which costs nothing.

If it answers, the next real call may be the probe that decides, instead of waiting for the circuit's time. Checks have
a thread of their own, since they may block; there is none while all circuits are closed.
"""

from __future__ import annotations

import inspect
import random
from typing import TYPE_CHECKING, Any

from perfkit._process import Background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perfkit.clock import Clock
    from perfkit.routing.health import Candidate

__all__ = ["Prober"]

PATIENCE = 5.0  # seconds a check may take
LONGEST = 60.0  # seconds between two checks of a provider whose probes keep failing

worker = Background("perfkit-probes")


class Prober:
    """Looks after the open circuits of one router.

    Args:
        everybody: returns all candidates.
        interval: returns seconds between looks, None for none.
        clock: of the router.
    """

    def __init__(
        self, everybody: Callable[[], Iterable[Candidate]], interval: Callable[[], float | None], clock: Clock
    ) -> None:
        self._everybody, self._interval, self._clock = everybody, interval, clock
        self._due: dict[str, float] = {}  # name to the monotonic second of its next check; of the worker's thread

    def watch(self) -> None:
        """Begin to look, because a circuit opened."""
        interval = self._interval()
        if interval is not None:
            worker.every(min(1.0, interval / 2), self.look)

    def stop(self) -> None:
        """Look no more, until the next circuit opens."""
        worker.cancel(self.look)

    def look(self) -> None:
        """Check whose turn it is; stop when nothing is left to be checked."""
        interval, now = self._interval(), self._clock.now()
        out = [one for one in self._everybody() if one.breaker.state.mode == "open" and _checkable(one.provider)]
        if interval is None or not out:
            self._due.clear()
            self.stop()
            return
        for candidate in out:
            due = self._due.setdefault(candidate.name, now + self._pause(candidate, interval))
            if due <= now:
                self._due[candidate.name] = now + self._pause(candidate, interval)
                if _answers(candidate.provider):
                    candidate.breaker.allow_probe()

    @staticmethod
    def _pause(candidate: Candidate, interval: float) -> float:
        """Return seconds to the next check: twice as long after each probe that failed, with jitter."""
        doublings = min(candidate.breaker.state.openings - 1, 10)
        return min(LONGEST, interval * 2.0**doublings) * random.uniform(0.8, 1.2)


def _checkable(provider: Any) -> bool:
    return callable(getattr(provider, "list_models", None))


def _answers(provider: Any) -> bool:
    """Whether a provider tells its models; any error means no."""
    try:
        known = inspect.signature(provider.list_models).parameters
        provider.list_models(**({"timeout": PATIENCE} if "timeout" in known else {}))
    except Exception:
        return False
    return True
