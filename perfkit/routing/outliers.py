"""Passive outlier ejection: who fares much worse than the others is preferred last for a while.

As in Envoy, every ten seconds all are compared by what their calls did since; unlike there, the measure is the median
of the others, which also says something of two or three providers, and ejection is a preference: an outlier serves when
nobody else can. Never is more than half of the pool out of use.
"""

from __future__ import annotations

import random
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfkit.routing.health import Candidate

__all__ = ["SWEEP", "Record", "eject", "outliers"]

SWEEP = 10.0  # seconds
LEAST_CALLS = 5  # in the interval, to be compared at all
FAILURE_GAP = 0.3  # more failures than the others' median, as a share of the calls
BASE, LONGEST = 30.0, 300.0  # seconds of the first ejection; each one after is as much longer


class Record(NamedTuple):
    """What the calls of one provider did in the interval."""

    name: str
    calls: int
    failures: int
    seconds: float

    @property
    def failure_rate(self) -> float:
        """Share of the calls."""
        return self.failures / self.calls

    @property
    def mean(self) -> float:
        """Seconds a call that succeeded; a provider that fails at once is not a fast one."""
        return self.seconds / (self.calls - self.failures) if self.calls > self.failures else 0.0


def outliers(records: Sequence[Record], factor: float) -> list[str]:
    """Return who fails much more, or is `factor` times slower, than the median of the others; the worst first."""
    compared = [record for record in records if record.calls >= LEAST_CALLS]
    found = []
    for record in compared:
        others = [other for other in compared if other is not record]
        if not others:
            continue
        worse = record.failure_rate - median(other.failure_rate for other in others)
        usual = median([other.mean for other in others if other.mean] or [0.0])
        slower = record.mean / usual if usual else 1.0
        if worse > FAILURE_GAP or slower > factor:
            found.append((worse, slower, record.name))
    return [name for _, _, name in sorted(found, reverse=True)]


def eject(candidates: Sequence[Candidate], now: float, factor: float) -> list[Candidate]:
    """Look at the last interval and eject the outliers; return them."""
    taken = [Record(one.name, *one.take_interval()) for one in candidates]
    by_name = {one.name: one for one in candidates}
    out = sum(one.ejected_until > now or one.breaker.state.mode != "closed" for one in candidates)
    ejected = []
    for name in outliers(taken, factor):
        if out + 1 > len(candidates) / 2:
            break
        chosen = by_name[name]
        if chosen.ejected_until > now or chosen.breaker.state.mode != "closed":  # its probe decides
            continue
        length = min(LONGEST, BASE * (chosen.ejections + 1))
        chosen.eject(now + length * (1 - random.random() / 5))
        ejected.append(chosen)
        out += 1
    return ejected
