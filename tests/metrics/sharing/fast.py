"""Time that runs ten times as fast, in this process and in others alike: a slot of ten seconds takes one."""

from __future__ import annotations

import time

SPEED = 10.0


class FastClock:
    def now(self) -> float:
        return time.monotonic() * SPEED

    def wall(self) -> float:
        return time.time() * SPEED

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / SPEED)
