"""Hedging: a second provider is asked when the first takes longer than usual, and the first answer wins.

So "The tail at scale" (Dean and Barroso, 2013) has it, with a cap on how many second requests there may be. Attempts
run in threads of their own, so that the caller can return as soon as one is done; the other one's connection is dropped
at once, which ends the work at the provider, and what it cost is counted. Of streams the first text is raced for: the
caller reads the rest of the winner's in his own thread.
"""

from __future__ import annotations

import contextvars
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from perfkit.metrics.operations import operations
from perfkit.resilience.cancel import Scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from perfkit.resilience.allowance import Allowance
    from perfkit.routing.attempts import Call
    from perfkit.routing.health import Candidate
    from perfkit.routing.trial import Trial
    from perfkit.values import ChatResponse

__all__ = ["Kind", "Racer"]

THREADS = 1000  # more hedged calls at a time wait for a thread


class Result(NamedTuple):
    """How an attempt ended: with an answer or a stream that has begun, or an error."""

    trial: Trial
    value: Any
    error: BaseException | None


class Kind(NamedTuple):
    """What is raced for.

    Attributes:
        ask: makes one attempt.
        usual: what 95 % of a provider's calls stay under, None while that is not known.
        unused: closes what came second; returns the answer that has to be paid, None if it is not known.
    """

    ask: Callable[[Trial], Any]
    usual: Callable[[Candidate], float | None]
    unused: Callable[[Any], ChatResponse | None]


class Racer:
    """Runs attempts beside one another."""

    def __init__(self) -> None:
        self._after_fork()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the making of _pool
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Let the threads end."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(THREADS, "perfkit-hedge")
            return self._pool

    def run(self, call: Call, kind: Kind, delay: float | None, allowance: Allowance) -> tuple[Trial, Any]:
        """Return the attempt that came first, and what it gave.

        Args:
            call: whose attempts they are; it has been told of the others.
            kind: what is asked for.
            delay: seconds after which a second provider is asked; None: the usual 95 % of the first one's.
            allowance: how many second requests there may be.

        Raises:
            Exception: as `Call.begin`, or what an attempt raised after which nobody else is asked.
        """
        race = _Race(kind, self._threads(), call)
        try:
            first = call.begin()
            with operations.step("provider", first.candidate.name):  # the attempt's own is told of another thread
                race.start(first)
                allowance.earn()
                return race.finish(delay, allowance)
        except BaseException:
            race.cancel()
            raise


class _Race:
    """The attempts of one call that run now; used by the caller's thread, which alone tells the call."""

    def __init__(self, kind: Kind, pool: ThreadPoolExecutor, call: Call) -> None:
        self._kind, self._pool, self._call = kind, pool, call
        self._ended: SimpleQueue[Result] = SimpleQueue()
        self._running: dict[Trial, Scope] = {}

    def start(self, trial: Trial) -> None:
        scope = self._running[trial] = Scope()
        self._pool.submit(contextvars.copy_context().run, self._work, trial, scope)

    def _work(self, trial: Trial, scope: Scope) -> None:
        value = error = None
        try:
            with scope:
                value = self._kind.ask(trial)
        except BaseException as caught:  # told to the thread that waits
            error = caught
        self._ended.put(Result(trial, value, error))

    def finish(self, delay: float | None, allowance: Allowance) -> tuple[Trial, Any]:
        (first,) = self._running
        patience = delay if delay is not None else self._kind.usual(first.candidate)
        leaving = 0.0 if delay is not None else allowance.most / 2
        while True:
            try:
                trial, value, error = self._ended.get(timeout=patience)
            except Empty:
                if self._hedge(patience, allowance, leaving):
                    patience = None  # there is no third
                leaving = 0.0
                continue
            del self._running[trial]
            if error is None:
                self.cancel()
                return trial, value
            if not self._call.fail(trial, error):
                raise error
            if not self._running:
                self.start(self._call.begin())

    def _hedge(self, patience: float | None, allowance: Allowance, leaving: float) -> bool:
        """Ask a second provider, if there is one; return False when the allowance has to be waited for.

        More calls pass the 95th percentile than may be hedged, and most of them end soon after: so they leave half of
        what may be saved up to those that still run after the same time again.
        """
        if not allowance.spend(leaving=leaving):
            return False
        second = self._call.beside(f"beside the first after {patience or 0.0:.2f} s")
        if second is not None:
            self._call.tracker.increment("provider_hedge", tags={"provider": second.candidate.name})
            self.start(second)
        return True

    def cancel(self) -> None:
        """Give up what still runs."""
        running, self._running = self._running, {}
        for scope in running.values():
            scope.cancel()
        ended: dict[Trial, ChatResponse | None] = {}
        while not self._ended.empty():
            result = self._ended.get_nowait()
            ended[result.trial] = None if result.error is not None else self._kind.unused(result.value)
        for trial in running:
            self._call.outrun(trial, ended.get(trial))
