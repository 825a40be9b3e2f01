"""How long requests stand still for garbage collections, counted inside: a WSGI middleware and a `gc` callback.

A collection stops every thread, so a request is stalled by those that run while it is under way, whoever makes them. It
counts the processor time of the collecting thread, which a busy machine does not stretch as it does the wall's.
"""

from __future__ import annotations

import gc
import itertools
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Stalls"]


class Stalls:
    """Watches an application from `begin` on; arrays of numbers, so that the collector has nothing more to look at."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._started = 0.0, 0.0
        self.begin()
        gc.callbacks.append(self._collected)

    def begin(self) -> None:
        """Forget what was seen."""
        self._requests = array("d")  # began, ended
        self._pauses = array("d")  # began, ended, processor seconds

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        began = time.perf_counter()
        return _Body(self._app(environ, start_response), self._requests, began)

    def _collected(self, phase: str, _info: Any) -> None:
        now = time.perf_counter(), time.thread_time()
        if phase == "start":
            self._started = now
        else:
            self._pauses.extend((self._started[0], now[0], now[1] - self._started[1]))

    def report(self) -> dict[str, float]:
        """Return percentiles of the milliseconds that requests were stalled."""
        numbers = iter(self._pauses[:])
        pauses = sorted(zip(numbers, numbers, numbers, strict=False))
        began, ended = [one[0] for one in pauses], [one[1] for one in pauses]
        times = iter(self._requests[:])
        stalled = sorted(
            sum(
                (min(pauses[n][1], end) - max(pauses[n][0], start))
                / max(pauses[n][1] - pauses[n][0], 1e-9)
                * pauses[n][2]
                for n in range(bisect_right(ended, start), bisect_left(began, end))
            )
            * 1e3
            for start, end in zip(times, times, strict=False)
        ) or [0.0]
        ranks = {"p99": 0.99, "p99_9": 0.999, "longest": 1.0}
        found = {name: stalled[min(len(stalled) - 1, int(len(stalled) * rank))] for name, rank in ranks.items()}
        return {f"stalled_{name}": value for name, value in found.items()} | {
            "longest_pause_ms": max((one[2] for one in pauses), default=0.0) * 1e3
        }


class _Body:
    def __init__(self, body: Any, requests: Any, began: float) -> None:
        self._body, self._requests, self._began = body, requests, began

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain(self._body)

    def close(self) -> None:
        if hasattr(self._body, "close"):
            self._body.close()
        self._requests.extend((self._began, time.perf_counter()))
