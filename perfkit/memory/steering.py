"""When to collect what between requests: pure decisions, fed with what the last collections cost and found.

Young collections come so often that each costs about the wanted pause; what survives is frozen, so that the next one
need not look at it. Cycles that die after they were frozen are garbage nobody finds, which is why a deep pass (thaw,
collect all, freeze) comes when memory has grown or time has passed. It takes long, so it waits for a lull; where there
is none it comes half as much later, between two requests, and where these never end after twice as much. Where it finds
much, objects live long and die in cycles: nothing is frozen then but by deep passes, and an old pass looks at what was
not frozen whenever survivors have come to half of what the last one left. That, like CPython's own rule of a quarter,
costs in proportion to what is made, however slow the machine, and does not mind that allocators keep what was freed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perfkit._settings import GCSettings
    from perfkit.memory.workloads import Pass

__all__ = ["Steering"]

_SHORTEST, _LONGEST = 0.02, 1.0  # seconds between young collections
_CROWD = 20_000  # more new than freed objects since the last: do not wait for the interval
_BUSY = 1.5  # times longer young passes wait while requests run
_LULL, _IDLE, _RUNNING = 1.0, 1.5, 2.0  # times what is allowed, until a deep pass: no request for long, none now, some
_SLACK = 32 * 2**20  # bytes of growth that mean nothing
_REST = 10.0  # times its cost between two passes over old objects: at most a tenth of the time
_KNOWN = 1 / 3  # of the growth allowed, where it is known to be garbage: a heap that only fills is left alone longer
_SURVIVORS = 50_000  # objects that an old pass is worth, where nothing is frozen, or
_PART = 0.5  # this part of those the last one left
_UNFROZEN = 1.0  # seconds after which survivors are frozen even though requests run


@dataclass(slots=True)
class Steering:
    """State of one process.

    Attributes:
        settings: the `[gc]` table.
        passes: what may be chosen.
        deep_age: seconds between deep passes.
        resident: objects that were frozen to begin with.
        interval: seconds between young collections.
        refreeze: whether survivors of young collections are frozen.
    """

    settings: GCSettings
    passes: tuple[Pass, ...]
    deep_age: float
    resident: int = 0
    interval: float = 0.1
    refreeze: bool = field(init=False)
    collected_at: float = 0.0
    frozen_at: float = 0.0
    deep_at: float = 0.0
    rest_until: float = 0.0
    base: int | None = None  # bytes resident after the last pass over old objects that found little
    found: int = 0  # by such passes since the last deep one
    pending: int = 0  # objects that survived young passes since the last pass over old ones,
    kept: int = 0  # and that such a pass left unfrozen

    def __post_init__(self) -> None:
        self.refreeze = "deep" in self.passes  # what died frozen would never be found

    def start(self, now: float, rss: int | None) -> None:
        """Count time and growth from here, in a process just set up or forked."""
        self.collected_at = self.frozen_at = self.deep_at = now
        self.base, self.found, self.rest_until = rss, 0, now
        self.pending = self.kept = 0

    def choose(
        self, now: float, rss: int | None, new_objects: int, *, idle: bool = True, lull: bool = False
    ) -> Pass | None:
        """Return the pass that is due, None when nothing is."""
        patience = _LULL if lull else _IDLE if idle else _RUNNING
        self.base = self.base if self.base is not None else rss
        if now >= self.rest_until:
            if "deep" in self.passes and now - self.deep_at >= self.deep_age * patience:
                return "deep"
            if self._growth(rss) >= (patience if self.refreeze else _KNOWN):
                return "deep" if self.refreeze else "old"
        if not self.refreeze and self.pending + new_objects >= max(_SURVIVORS, self.kept * _PART):
            return "old"
        waited = now - self.collected_at
        due = waited >= self.interval * (1.0 if idle else _BUSY) or (new_objects >= _CROWD and waited >= _SHORTEST)
        return "young" if due and "young" in self.passes else None

    def _growth(self, rss: int | None) -> float:
        """Return how much of the allowed growth is used up; 1 is all of it."""
        if rss is None or self.base is None:
            return 0.0
        return (rss - self.base) / (self.base * self.settings.deep_growth + _SLACK)

    def freezes(self, kind: Pass, now: float, *, idle: bool) -> bool:
        """Tell whether to freeze after this pass, once `done`."""
        if kind == "deep":  # where all dies in cycles, what was there before is worth it only if that is more
            return self.refreeze or self.resident > self.kept * _PART
        return self.refreeze and (idle or now - self.frozen_at >= _UNFROZEN)

    def froze(self, now: float) -> None:
        """Know that nothing is left unfrozen."""
        self.frozen_at, self.pending, self.kept = now, 0, 0

    def done(self, kind: Pass, now: float, seconds: float, found: int, rss: int | None, left: int = 0) -> None:
        """Learn what a pass cost, found and `left` unfrozen: of the new objects a young one, else of all."""
        self.collected_at = now
        if kind == "young":
            self.pending += left
            factor = min(2.0, max(0.5, self.settings.pause / seconds)) if seconds > 0 else 2.0
            self.interval = min(_LONGEST, max(_SHORTEST, self.interval * factor))
            return
        self.kept, self.pending = left, 0
        self.found += found
        self.rest_until = now + _REST * seconds
        if self.base is None or found <= self.settings.much_garbage:  # else what grew was garbage: keep at it
            self.base = rss
        if kind == "deep":
            self.refreeze = self.found <= self.settings.much_garbage
            self.found, self.deep_at = 0, now
