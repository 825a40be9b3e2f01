"""Rate limits kept on this side, so that a provider never has to answer 429.

The generic cell rate algorithm (ITU-T I.371): one number, the theoretical arrival time of the next cell, says all. Here
it runs at 98 % of the limit with a small burst, so that no window of the period, wherever a provider lets it begin,
ever holds more than the limit, and 97 % of it can be used. An amount larger than the burst goes when the bucket is full
and leaves a debt. Several processes share a limit through a script of the same arithmetic in Redis.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from perfkit.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.clock import Clock

__all__ = ["RateLimit", "SharedRateLimit", "gcra"]

STEADY = 0.98  # of the limit, as the constant rate
BURST = 0.01  # of the limit, at once
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local wait = math.max(0, arrival - tonumber(ARGV[2]) - now)
if wait <= tonumber(ARGV[3]) then
    arrival = math.max(now, arrival + tonumber(ARGV[1]))
    redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1000)
end
return {math.ceil(wait), math.ceil(arrival - now)}
"""


def gcra(arrival: float, now: float, cost: float, tolerance: float, patience: float) -> tuple[float, float]:
    """Return seconds to wait, and the new theoretical arrival time, unchanged if the wait is longer than `patience`.

    Args:
        arrival: theoretical arrival time until now.
        now: monotonic second.
        cost: seconds that the amount takes at the steady rate; negative to give back.
        tolerance: seconds of burst.
        patience: longest wait that is taken.
    """
    start = max(arrival, now)
    wait = max(0.0, start - tolerance - now)
    return wait, (max(now, start + cost) if wait <= patience else arrival)


class Steps(Protocol):
    """What a shared limit needs of a connection to Redis."""

    def key(self, *parts: str) -> str:
        """Return the key made of `parts`."""

    def script(self, lua: str) -> Callable[..., Any]:
        """Return a callable that runs `lua` with keys= and args=."""


class RateLimit:
    """So many a period, in this process.

    Args:
        limit: amount a period.
        period: seconds.
        clock: None means the system's.
    """

    def __init__(self, limit: float, *, period: float = 60.0, clock: Clock | None = None) -> None:
        self.limit = limit
        self._each = period / limit / STEADY  # seconds an amount of one takes
        self._tolerance = self._each * (max(1.0, limit * BURST // 1) - 1)
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._arrival = 0.0
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _arrival

    def wait(self) -> float:
        """Return seconds until the next one could go; takes nothing."""
        return max(0.0, self._arrival - self._tolerance - self._clock.now())

    def take(self, amount: float = 1.0, *, patience: float = 0.0) -> float:
        """Take `amount` if its turn comes within `patience` seconds, and return the seconds to wait for it first.

        A wait longer than `patience` means that nothing was taken.
        """
        now = self._clock.now()
        with self._lock:
            wait, self._arrival = gcra(self._arrival, now, amount * self._each, self._tolerance, patience)
        return wait

    def give_back(self, amount: float) -> None:
        """Return an amount that was taken and not used; a negative one was used beyond what was taken."""
        with self._lock:
            self._arrival -= amount * self._each

    @property
    def remaining(self) -> float:
        """Part of what may go at once that is free now: 1 when idle, 0 when the next one has to wait its whole turn."""
        owed = self._arrival - self._clock.now()
        return min(1.0, max(0.0, 1.0 - owed / (self._tolerance + self._each)))


class SharedRateLimit(RateLimit):
    """A limit that several processes keep together; kept by each alone while Redis is away.

    Args:
        name: what is limited; part of the key.
        steps: the connection, None when there is none now.
        limit: amount a period.
        period: seconds.
        clock: of the local limit.
    """

    def __init__(
        self,
        name: str,
        steps: Callable[[], Steps | None],
        limit: float,
        *,
        period: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(limit, period=period, clock=clock)
        self._name, self._steps = name, steps
        self._script: tuple[Steps, Callable[..., Any]] | None = None

    def take(self, amount: float = 1.0, *, patience: float = 0.0) -> float:
        """Take `amount` of what all processes share; see RateLimit.take."""
        told = self._ask(amount, patience)
        if told is None:
            return super().take(amount, patience=patience)
        wait, owed = told
        arrival = self._clock.now() + owed
        with self._lock:  # what was learnt keeps others in this process from asking too early
            self._arrival = arrival
        return wait

    def give_back(self, amount: float) -> None:
        """Return an amount to all processes."""
        if self._ask(-amount, float("inf")) is None:
            super().give_back(amount)

    def _ask(self, amount: float, patience: float) -> tuple[float, float] | None:
        """Return seconds to wait, and to the theoretical arrival of the next; None while Redis is away."""
        from perfkit.errors import StateUnavailableError

        steps = self._steps()
        if steps is None:
            return None
        if self._script is None or self._script[0] is not steps:
            self._script = (steps, steps.script(SCRIPT))
        micros = [f"{min(seconds, 1e9) * 1e6:.0f}" for seconds in (amount * self._each, self._tolerance, patience)]
        try:
            wait, owed = self._script[1](keys=[steps.key("rate", self._name)], args=micros)
        except StateUnavailableError:
            return None
        return int(wait) / 1e6, int(owed) / 1e6
