"""Modelled providers: how long answers take, and what befalls them when.

A duration is a quantile of the model's distribution, and the quantile is a hash of the seed, the call and the provider:
the same call is as quick or slow at a provider whatever strategy sent it there, so that strategies are compared on the
same trace.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from perfkit.errors import NetworkError, RateLimitError, ServerError
from perfkit.values import ChatResponse, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perfkit.bench.world import World
    from perfkit.values import ChatRequest

__all__ = ["Change", "Model", "Modelled"]

NORMAL = NormalDist()
MINUTE = 60.0
HISTORY = 10
USAGE = Usage(300, 100)
_MASK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Change:
    """Something that befalls a provider for a while.

    Attributes:
        start: simulated seconds since the beginning.
        seconds: how long.
        slower: by which factor answers take longer.
        fails: 0..1 of the calls that end at once with a 503.
        quality: of the answers meanwhile; None leaves it.
    """

    start: float
    seconds: float = math.inf
    slower: float = 1.0
    fails: float = 0.0
    quality: float | None = None

    def covers(self, now: float) -> bool:
        """Whether it lasts at `now`."""
        return self.start <= now < self.start + self.seconds


@dataclass(frozen=True, slots=True)
class Model:
    """One provider.

    Attributes:
        name: as it is registered.
        median: seconds an answer takes.
        p99: seconds that one in a hundred exceeds; log-normal between. Equal to the median, all take the same.
        quantile: another distribution: from 0..1 to seconds, in the place of the two.
        slots: calls it works on at a time, others wait there; None for any number.
        rpm: requests a minute, more get a 429 with Retry-After; None for any number.
        fails: 0..1 of the calls that end at once with a 503.
        quality: 0..1, in `ChatResponse.raw["quality"]`.
        first: seconds the first answer takes longer: a slow start.
        changes: what befalls it.
        terms: keyword arguments of `register_provider`.
    """

    name: str
    median: float = 0.3
    p99: float = 0.9
    quantile: Callable[[float], float] | None = None
    slots: int | None = None
    rpm: int | None = None
    fails: float = 0.0
    quality: float = 1.0
    first: float = 0.0
    changes: Sequence[Change] = ()
    terms: tuple[tuple[str, Any], ...] = ()

    def seconds(self, quantile: float) -> float:
        """Return the duration at a quantile, 0..1."""
        if self.quantile is not None:
            return self.quantile(quantile)
        if self.p99 <= self.median:
            return self.median
        sigma = math.log(self.p99 / self.median) / NORMAL.inv_cdf(0.99)
        return self.median * math.exp(sigma * NORMAL.inv_cdf(quantile))


class Modelled:
    """A model at work: what the router is given as the provider.

    Attributes:
        history: the durations of its last answers.
        asked: how often it was called.
    """

    supported_models = None

    def __init__(self, model: Model, world: World, seed: int, number: int) -> None:
        self.model, self.name = model, model.name
        self.history: deque[float] = deque(maxlen=HISTORY)
        self.asked = 0
        self._world, self._salt = world, seed * 1_000_003 + number * 7919
        self._free = [0.0] * (model.slots or 0)  # when each slot is free again
        self._minute: deque[float] = deque()

    def chat_completion(self, request: ChatRequest) -> ChatResponse:
        """Answer as the model says; `request.user` is the number of the call."""
        self.asked += 1
        now, model = self._world.now(), self.model
        call = int(request.user or 0)
        changes = [change for change in model.changes if change.covers(now)]
        self._admit(now)
        if _uniform(self._salt + 1, call) < max([model.fails, *(change.fails for change in changes)]):
            raise ServerError("modelled failure", status=503)
        seconds = model.seconds(_uniform(self._salt, call)) * math.prod(change.slower for change in changes)
        seconds += model.first if self.asked == 1 else 0.0
        self._serve(self._queued(now, seconds), request.timeout)
        self.history.append(self._world.now() - now)
        told = [change.quality for change in changes if change.quality is not None]
        return ChatResponse(
            "answer", USAGE, request.model, self.name, raw={"quality": told[-1] if told else model.quality}
        )

    def _admit(self, now: float) -> None:
        if self.model.rpm is None:
            return
        while self._minute and self._minute[0] <= now - MINUTE:
            self._minute.popleft()
        if len(self._minute) >= self.model.rpm:
            raise RateLimitError("modelled limit", status=429, retry_after=self._minute[0] + MINUTE - now)
        self._minute.append(now)

    def _queued(self, now: float, seconds: float) -> float:
        """Return how long the call takes with its wait for a slot."""
        if not self._free:
            return seconds
        slot = min(range(len(self._free)), key=self._free.__getitem__)
        self._free[slot] = max(now, self._free[slot]) + seconds
        return self._free[slot] - now

    def _serve(self, seconds: float, timeout: float | None) -> None:
        """Let the time of an answer pass; it may be cancelled, or its time may run out."""
        from perfkit.errors import DeadlineExceeded
        from perfkit.resilience import cancel

        sleeper, dropped = self._world.sleeper(), []

        def drop() -> None:
            dropped.append(True)
            self._world.wake(sleeper)

        cancel.watch(drop)
        late = timeout is not None and seconds > timeout
        self._world.wait(sleeper, timeout if late else seconds)
        if dropped:
            raise NetworkError("cancelled")
        if late:
            raise DeadlineExceeded(f"not within {timeout:g} s")


def _uniform(salt: int, call: int) -> float:
    """Return a number in 0..1 that is a hash of both (splitmix64)."""
    mixed = (salt * 0x9E3779B97F4A7C15 + call * 0xD1342543DE82EF95 + 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((mixed ^ (mixed >> 31)) >> 11) / 2**53 * (1 - 2e-12) + 1e-12
