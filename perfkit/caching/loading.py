"""What happens on a miss: one computation per key, in this process and among all, and a stale answer rather than none.

The steps, from cheap to dear: an error known to come again, a stale copy in memory (one thread refreshes it behind the
callers' backs), another thread's computation, the backend, another process's computation, and at last one's own.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.caching.entry import Cached, Entry, Kept, Life, is_answer, keep
from perfkit.caching.leading import Lead
from perfkit.caching.negative import KnownErrors, is_definite
from perfkit.caching.refresh import Refresher
from perfkit.errors import BudgetExceededError, DeadlineExceeded, PoolTimeout
from perfkit.resilience.singleflight import SingleFlight
from perfkit.values import ChatResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from perfkit.caching.backends import Turn, Turns
    from perfkit.caching.shelf import Shelf
    from perfkit.clock import Clock

__all__ = ["Job", "Loader"]

log = logging.getLogger("perfkit.caching")

LIMITS = (DeadlineExceeded, PoolTimeout, BudgetExceededError)  # of one caller: those waiting for him may have more left
NOTHING = Life(0.0)


class Job(NamedTuple):
    """A key, how to compute its value, and how to keep it."""

    key: str
    compute: Callable[[], Any]
    refresh: Callable[[], Any]  # the same behind the caller's back
    life: Life
    tags: frozenset[str]
    error_ttl: float = 0.0  # seconds to remember a definite error
    strict: bool = False  # raise where the value cannot be kept


class _Landing(NamedTuple):
    """What one computation brought: to the thread that made it, and to those who waited for it."""

    own: Cached | Entry
    others: Entry  # nobody gets what somebody else may change
    stale: bool = False  # to be refreshed, but not within this flight: nobody is to wait for that


class Loader:
    """Answers misses.

    Args:
        shelf: where entries are kept.
        clock: of the cache.
        count: called with the name of each event, for the metrics.
    """

    def __init__(self, shelf: Shelf, clock: Clock, count: Callable[[str], None]) -> None:
        self._shelf, self._clock, self._count = shelf, clock, count
        self.flights: SingleFlight[_Landing] = SingleFlight(personal=LIMITS)
        self.refresher = Refresher(clock, lambda: count("cache_refresh_failed"))
        self.errors = KnownErrors(clock)
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new; flights and refreshes see to themselves."""
        self._lock = threading.Lock()  # guards _told
        self._told: set[type[Exception]] = set()  # why something could not be kept: logged once each
        self.errors.after_fork()

    def forget(self) -> None:
        """Forget errors, and what has been logged."""
        self.errors.forget()
        with self._lock:
            self._told.clear()

    def load(self, job: Job, timeout: float | None) -> Cached | Entry:
        """Return the value of a key that has no fresh entry in memory.

        Raises:
            DeadlineExceeded: another thread or process computes and is not done within `timeout`.
            RecursiveCallError: `compute` asks for the key itself.
            Exception: what `compute` raised, here or where it ran.
        """
        self.errors.check(job.key)
        now = self._clock.now()
        held = self._shelf.near.peek(job.key, now)
        if held is not None and held.expires <= now < held.stale_until:
            return self.serve_stale(job, held)
        until = None if timeout is None else now + timeout
        landing, shared = self.flights.run(job.key, lambda: self._land(job, until), timeout=timeout)
        if landing.stale:
            return self.serve_stale(job, landing.others)
        if not shared:
            return landing.own
        return self._hit(landing.others).others

    def _land(self, job: Job, until: float | None) -> _Landing:
        now = self._clock.now()
        held = self._shelf.find(job.key)  # another thread may have landed between the look-up and the take-off
        if held is not None and held.expires > now:
            return self._hit(held)
        if held is not None and held.stale_until > now:
            return _Landing(held, held, stale=True)
        turns = self._shelf.turns
        return self._compute(job, held) if turns is None else self._in_turn(job, turns, until, held)

    def _hit(self, entry: Entry) -> _Landing:
        self._shelf.near.count(hits=1)
        self._count("cache_hit")
        return _Landing(entry, entry)

    def _in_turn(self, job: Job, turns: Turns, until: float | None, held: Entry | None) -> _Landing:
        """Compute unless another process does; wait for it then."""
        turn = self._turn(job.key, turns, until)
        if turn is None:
            return self._compute(job, held)
        return self._hit(turn) if isinstance(turn, Entry) else self._compute_in_turn(job, turn, held)

    def _turn(self, key: str, turns: Turns, until: float | None) -> Turn | Entry | None:
        """Return the turn of this process, or what another one has kept; None: compute without."""
        while True:
            turn = turns.take(key, None if until is None else max(0.0, until - self._clock.now()))
            if turn.error is not None:
                raise turn.error
            if turn.mine:
                return turn
            if not turn.landed:
                return None
            found = self._fresh(key)
            if found is not None:
                return found

    def _fresh(self, key: str) -> Entry | None:
        found = self._shelf.find(key)
        return found if found is not None and found.expires > self._clock.now() else None

    def lead(
        self, key: str, drive: Callable[[float | None], object], heard: list[str], timeout: float, error_ttl: float
    ) -> Lead | Entry:
        """Return the lead of a key that is streamed, or what another thread or process has kept meanwhile.

        Args:
            key: it has no fresh entry.
            drive: helps the stream along, from a thread that wants its answer.
            heard: gets the text.
            timeout: seconds to wait for another thread or process.
            error_ttl: seconds to remember a definite error.

        Raises:
            DeadlineExceeded, RecursiveCallError, Exception: as for `load`.
        """
        self.errors.check(key)
        until = self._clock.now() + timeout
        flight, mine = self.flights.lead(key, drive, timeout=timeout)
        if not mine:
            return self._hit(flight.value.others).others

        def end(entry: Entry | None, error: Exception | None) -> None:
            self.flights.end(key, flight, None if entry is None else _Landing(entry, entry), error)

        lead = Lead(heard, end, None, LIMITS)
        try:
            turns = self._shelf.turns
            turn = None if turns is None else self._turn(key, turns, until)
            if isinstance(turn, Entry):
                landed: Entry | None = turn
            else:
                lead = Lead(heard, end, turn, LIMITS, lambda e: self._instead(key, e, error_ttl, self._shelf.find(key)))
                landed = self._fresh(key)  # between the look-up and the lead
        except BaseException as error:
            lead.__exit__(type(error), error, None)
            raise
        if landed is None:
            return lead
        with lead:
            lead.land(landed, kept=True)
        return self._hit(landed).others

    def _compute_in_turn(self, job: Job, turn: Turn, held: Entry | None) -> _Landing:
        kept, error = False, None
        try:
            found = self._fresh(job.key)  # landed between the look-up and the turn
            if found is not None:
                kept = True
                return self._hit(found)
            landing = self._compute(job, held)
            kept = landing.others.life is not NOTHING
        except Exception as raised:
            error = raised
            raise
        finally:
            own_limit = isinstance(error, LIMITS)  # who waits may have more left: his turn
            turn.finish(kept=kept or own_limit, error=None if own_limit else error)
        return landing

    def _compute(self, job: Job, held: Entry | None) -> _Landing:
        self._shelf.near.count(misses=1)
        self._count("cache_miss")
        try:
            return self._keep_computed(job, job.compute)
        except Exception as error:
            old = self._instead(job.key, error, job.error_ttl, held)
            if old is None:
                raise
            return _Landing(old, old)

    def _instead(self, key: str, error: Exception, error_ttl: float, held: Entry | None) -> Entry | None:
        """Take in why there is no new value, and return the old one if it may serve in its place."""
        self.errors.remember(key, error, error_ttl)
        if held is None or is_definite(error) or held.expires + held.life.error <= self._clock.now():
            return None
        return self._stale_hit(held)

    def _stale_hit(self, held: Entry) -> Entry:
        self._shelf.near.count(stale_hits=1)
        self._count("cache_stale")
        return held

    def _keep_computed(self, job: Job, compute: Callable[[], Any]) -> _Landing:
        since, began = self._shelf.departures.count, self._clock.now()
        value = compute()
        seconds = self._clock.now() - began
        keeper = self.keep if job.strict else self.keep_if_possible
        entry = keeper(job.key, value, job.life, job.tags, since=since, seconds=seconds)
        if entry is None:
            entry = Entry(job.key, Kept(None, value, 0), NOTHING, now=began, stored_at=self._clock.wall())
        return _Landing(Cached(value), entry)

    def serve_stale(self, job: Job, held: Entry) -> Entry:
        """Return a stale entry, counted, and have it made fresh."""
        self.refresh(job, held)
        return self._stale_hit(held)

    def refresh(self, job: Job, held: Entry) -> None:
        """Have an entry made fresh behind the caller's back, unless that is under way here or elsewhere."""
        self.refresher.start(job.key, lambda: self.flights.run(job.key, lambda: self._land_refresh(job, held)))

    def _land_refresh(self, job: Job, held: Entry) -> _Landing:
        found = self._shelf.find(job.key)
        if found is not None and found.stored_at > held.stored_at:
            return _Landing(found, found)
        turns = self._shelf.turns
        if turns is None:
            return self._keep_computed(job, job.refresh)
        try:
            turn = turns.take(job.key, 0)
        except DeadlineExceeded:  # another process is at it, and will tell
            return _Landing(held, held)
        kept = False
        try:
            landing = self._keep_computed(job, job.refresh)
            kept = True
        finally:
            if turn.mine:
                turn.finish(kept=kept)
        return landing

    def keep(
        self,
        key: str,
        value: Any,
        life: Life,
        tags: frozenset[str],
        *,
        since: int | None = None,
        seconds: float = 0.0,
    ) -> Entry:
        """Keep a value.

        Raises:
            TypeError, ValueError: it cannot be kept.
        """
        clock = self._clock
        entry = Entry(key, keep(value), life, now=clock.now(), stored_at=clock.wall(), tags=tags, seconds=seconds)
        self._shelf.put(entry, self._shelf.begin() if since is None else since)
        return entry

    def keep_if_possible(self, key: str, value: Any, life: Life, tags: frozenset[str], **how: Any) -> Entry | None:
        """Keep a value if there is something to keep; an answer that is paid for is not lost over its storage."""
        if isinstance(value, ChatResponse) and not is_answer(value):
            return None
        try:
            return self.keep(key, value, life, tags, **how)
        except Exception as error:
            kind = type(error)
            with self._lock:
                known = kind in self._told
                self._told.add(kind)
            self._count("cache_unstorable")
            if not known:
                log.warning("an answer cannot be kept and will be asked for again: %s: %s", kind.__name__, error)
            return None
