"""Circuit breaker: after enough failures stop asking, later let exactly one caller try whether it works again.

    closed --too many failures, or a fatal one--> open --its time is over--> half-open (one probe is out)
    half-open --the probe succeeds--> closed         half-open --the probe fails--> open, for longer

The table below says all of it; `transition` is pure. A permit is the epoch its call began in, and every change of mode
begins a new epoch: the late result of a call from before the change is no news about the state after it, so it is
dropped. The state is one immutable value, so reading it needs no lock. Too many are so many failures in a row, or such
a share of the calls of a window, which rotates in two halves, that failed or were slow. Successes, of which there are
most, are noted without a lock and counted when something else comes, or a thousand of them.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from typing import TYPE_CHECKING, Literal, NamedTuple

from perfkit import _process
from perfkit.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TABLE", "CircuitBreaker", "Event", "Rules", "State", "transition"]

log = logging.getLogger("perfkit.resilience")
BUNCH = 1000  # successes that are noted before they are counted

Mode = Literal["closed", "open", "half-open"]
Event = Literal["ask", "success", "slow", "failure", "fatal", "abandoned"]


class Rules(NamedTuple):
    """When to open and for how long.

    Attributes:
        failure_threshold: failures in a row that open it.
        open_seconds: length of the first opening; each one after a failed probe is twice as long.
        max_open_seconds: bound of that growth (Envoy's outlier detection ends at the same 300 s).
        failure_rate: share of the window's calls that open it when they fail; 1 or more: never.
        slow_rate: the same of slow calls.
        minimum_calls: in the window, before a share says anything.
        window: seconds.
    """

    failure_threshold: int = 5
    open_seconds: float = 60.0
    max_open_seconds: float = 300.0
    failure_rate: float = 1.0
    slow_rate: float = 1.0
    minimum_calls: int = 20
    window: float = 30.0

    @property
    def by_share(self) -> bool:
        """Whether shares of the window can open it."""
        return self.failure_rate < 1 or self.slow_rate < 1

    def length(self, openings: int, jitter: float) -> float:
        """Return the seconds the next opening lasts after `openings` earlier ones; jitter 1 takes a fifth off.

        The first opening is exact. Later ones are spread, so that processes do not all probe at the same moment.
        """
        longest = max(self.open_seconds, self.max_open_seconds)
        length = min(longest, self.open_seconds * 2.0 ** min(openings, 30))
        return length if openings == 0 else length * (1 - jitter / 5)


class Counts(NamedTuple):
    """Calls of half a window."""

    calls: int = 0
    failed: int = 0
    slow: int = 0


class State(NamedTuple):
    """All that a breaker remembers.

    Attributes:
        epoch: raised by every change of mode; the permit of calls that begin in it.
        failures: in a row, while closed.
        openings: since it was last closed.
        until: open: when a probe may go; half-open: when the probe that is out counts as lost.
        began: when the present half of the window began.
        recent: its calls.
        earlier: calls of the half before.
    """

    mode: Mode = "closed"
    epoch: int = 0
    failures: int = 0
    openings: int = 0
    until: float = 0.0
    began: float = 0.0
    recent: Counts = Counts()
    earlier: Counts = Counts()

    def noted(self, event: Event, now: float, rules: Rules) -> State:
        """Count a call in the window, if its shares matter."""
        if not rules.by_share:
            return self
        age, began, recent, earlier = now - self.began, self.began, self.recent, self.earlier
        if age >= rules.window / 2:
            began, recent, earlier = now, Counts(), recent if age < rules.window else Counts()
        calls, failed, slow = recent
        recent = Counts(calls + 1, failed + (event == "failure"), slow + (event == "slow"))
        return State(self.mode, self.epoch, self.failures, self.openings, self.until, began, recent, earlier)

    def too_bad(self, rules: Rules) -> bool:
        """Whether the shares of the window open it."""
        calls = self.recent.calls + self.earlier.calls
        if calls < rules.minimum_calls:
            return False
        failed, slow = self.recent.failed + self.earlier.failed, self.recent.slow + self.earlier.slow
        return (rules.failure_rate < 1 and failed >= rules.failure_rate * calls) or (
            rules.slow_rate < 1 and slow >= rules.slow_rate * calls
        )


def _stay(state: State, now: float, rules: Rules, jitter: float) -> State:
    return state


def _forgive(state: State, now: float, rules: Rules, jitter: float) -> State:
    calm = state if not state.failures else state._replace(failures=0)
    return calm.noted("success", now, rules)


def _note_slow(state: State, now: float, rules: Rules, jitter: float) -> State:
    noted = state._replace(failures=0).noted("slow", now, rules)
    return _open(noted, now, rules, jitter) if noted.too_bad(rules) else noted


def _count(state: State, now: float, rules: Rules, jitter: float) -> State:
    noted = state._replace(failures=state.failures + 1).noted("failure", now, rules)
    if noted.failures >= rules.failure_threshold or noted.too_bad(rules):
        return _open(state, now, rules, jitter)
    return noted


def _open(state: State, now: float, rules: Rules, jitter: float) -> State:
    until = now + rules.length(state.openings, jitter)
    return State("open", state.epoch + 1, 0, state.openings + 1, until)


def _probe(state: State, now: float, rules: Rules, jitter: float) -> State:
    if now < state.until:
        return state
    lost_at = now + rules.length(state.openings, jitter)
    return State("half-open", state.epoch + 1, 0, state.openings, lost_at)


def _close(state: State, now: float, rules: Rules, jitter: float) -> State:
    return State("closed", state.epoch + 1)


def _hand_back(state: State, now: float, rules: Rules, jitter: float) -> State:
    return State("open", state.epoch + 1, 0, state.openings, now)


TABLE: dict[tuple[Mode, Event], Callable[[State, float, Rules, float], State]] = {
    ("closed", "ask"): _stay,
    ("closed", "success"): _forgive,
    ("closed", "slow"): _note_slow,
    ("closed", "failure"): _count,
    ("closed", "fatal"): _open,
    ("closed", "abandoned"): _stay,
    ("open", "ask"): _probe,
    ("open", "success"): _stay,
    ("open", "slow"): _stay,
    ("open", "failure"): _stay,
    ("open", "fatal"): _stay,
    ("open", "abandoned"): _stay,
    ("half-open", "ask"): _probe,  # only once the probe that is out counts as lost
    ("half-open", "success"): _close,
    ("half-open", "slow"): _open,
    ("half-open", "failure"): _open,
    ("half-open", "fatal"): _open,
    ("half-open", "abandoned"): _hand_back,
}


def transition(state: State, event: Event, now: float, rules: Rules, jitter: float = 0.0) -> State:
    """Return the state after `event` at monotonic second `now`; jitter in 0..1 spreads later openings."""
    return TABLE[state.mode, event](state, now, rules, jitter)


class CircuitBreaker:
    """One breaker: ask for a permit, make the call without any lock held, tell what came of it.

    A probe whose result never comes counts as lost after the length of an opening; then another one may go.

    Args:
        name: what it protects, for log lines and repr.
        rules: None means those of `Rules()`.
        clock: None means the system's.

    Attributes:
        state: as it is now; replaced, never changed.
        permit: what every call is given while it is closed, None otherwise.
    """

    def __init__(self, name: str = "", *, rules: Rules | None = None, clock: Clock | None = None) -> None:
        self.name = name
        self._rules = rules if rules is not None else Rules()
        self._clock = clock if clock is not None else SYSTEM_CLOCK
        self._become(State())
        self._well: list[int] = []  # permits of calls that succeeded in this half of the window and are not counted yet
        self._lock = threading.Lock()  # guards changes of state, and taking from _well
        _process.bind(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        if self.state.mode == "half-open":  # the probe is the parent's
            self._become(transition(self.state, "abandoned", self._clock.now(), self.rules))

    def _become(self, state: State) -> None:
        """Be in `state` from now on."""
        calm, rules = state.mode == "closed" and not state.failures, self._rules
        self.state = state
        self.permit = state.epoch if state.mode == "closed" else None
        self._calm_until = (state.began + rules.window / 2 if rules.by_share else math.inf) if calm else 0.0

    @property
    def rules(self) -> Rules:
        """When it opens and for how long; may be replaced at any time."""
        return self._rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        with self._lock:
            self._rules = rules
            self._become(self.state)

    def ready(self, now: float) -> bool:
        """Whether `acquire` would grant a permit at monotonic second `now`; takes nothing."""
        return now >= self.state.until  # 0 while closed

    def acquire(self) -> int | None:
        """Return a permit for one call, or None: open, or another caller's probe is out."""
        permit = self.permit
        if permit is not None:
            return permit
        now, jitter = self._clock.now(), random.random()
        with self._lock:
            before = self.state
            after = transition(before, "ask", now, self.rules, jitter)
            self._become(after)
        return after.epoch if after.mode == "closed" or after is not before else None

    def record(self, permit: int, event: Event) -> None:
        """Tell what came of the call `permit` was given for.

        Args:
            permit: what `acquire` returned.
            event: "success", "slow" (a success that took too long), "failure", "fatal" (opens at once), or "abandoned"
                when the call says nothing.
        """
        if event == "success":
            self.succeeded(permit, self._clock.now())
        else:
            self._count(permit, event, self._clock.now())

    def succeeded(self, permit: int, now: float) -> None:
        """Tell that the call succeeded, as `record` does, when the clock has just been read."""
        if now < self._calm_until and len(self._well) < BUNCH:
            self._well.append(permit)
        else:
            self._count(permit, "success", now)

    def _count(self, permit: int, event: Event, now: float) -> None:
        jitter = random.random()
        with self._lock:
            before = self.state
            if permit != before.epoch:
                return
            after = transition(self._counted(before), event, now, self.rules, jitter)
            self._become(after)
        if after.mode == "closed" and before.mode != "closed":
            log.info("circuit of %s closed again", self.name)
        elif after.openings > before.openings:
            log.warning("circuit of %s opened for %.0f s after a %s", self.name, after.until - now, event)

    def _counted(self, state: State) -> State:
        """Return `state` with the successes that were noted, under the lock."""
        noted = self._well[:]
        del self._well[: len(noted)]  # others may have noted since
        number, recent = noted.count(state.epoch) if self._rules.by_share else 0, state.recent
        return state._replace(recent=recent._replace(calls=recent.calls + number)) if number else state

    def hold_open(self, seconds: float) -> None:
        """Open it for `seconds`, because somebody else has seen enough failures; a longer opening stays."""
        now = self._clock.now()
        with self._lock:
            state = self.state
            until = max(state.until, now + seconds) if state.mode == "open" else now + seconds
            epoch, openings = state.epoch + (state.mode != "open"), max(1, state.openings)
            self._become(State("open", epoch, 0, openings, until))

    def allow_probe(self) -> None:
        """Let the next caller be the probe: there is reason to think that it works again."""
        now = self._clock.now()
        with self._lock:
            if self.state.mode == "open":
                self._become(self.state._replace(until=min(self.state.until, now)))

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.describe()}>"

    def describe(self) -> str:
        """Return the state in words, for example "open, probe in 41.2 s"."""
        state = self.state
        left = max(0.0, state.until - self._clock.now())
        words = {
            "closed": f"closed, {state.failures} of {self.rules.failure_threshold} failures",
            "open": f"open, probe in {left:.1f} s",
            "half-open": f"half-open, probe out, lost in {left:.1f} s",
        }
        return words[state.mode]
