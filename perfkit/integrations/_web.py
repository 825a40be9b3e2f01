"""Around each request of a web app: it is measured, its calls get a user, a deadline and a budget, garbage waits.

Where slow runs are caught, requests are watched too; elsewhere that costs nothing.

The frameworks' modules say when a request begins and ends and what it is called; what is done then is here, once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from perfkit import _process
from perfkit._shared import current_config
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.integrations._idle import UnderWay
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.operations import Running, operations
from perfkit.pipeline.scoping import Scope, entered, left
from perfkit.profiling import Profiler
from perfkit.tokens.wallet import Wallet

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token

    from perfkit.memory import GCOptimizer

__all__ = ["METRIC", "Visit", "Visits"]

_FAILED = ("5xx", "FAILURE")  # of HTTP, of Celery
METRIC = "http_server_request_duration"  # seconds; OpenTelemetry's http.server.request.duration


class Visits:
    """The requests of one application.

    Args:
        tracker: gets `http_server_request_duration` (seconds; tags method, route, status); None means the shared one.
        collector: collects garbage between them; None means the shared one.
        clock: None means the system's.
        metric: the name, for what is not HTTP.
    """

    def __init__(
        self,
        *,
        tracker: PerformanceTracker | None = None,
        collector: GCOptimizer | None = None,
        clock: Clock | None = None,
        metric: str = METRIC,
    ) -> None:
        self.clock = clock if clock is not None else SYSTEM_CLOCK
        self._tracker, self._metric = tracker, metric
        self._under_way = UnderWay(collector)
        self._after_fork()
        _process.bind(self)

    def _after_fork(self) -> None:
        self._watched: dict[int, Running] = {}  # by thread; each step on it is atomic

    def begin(
        self, user: Callable[[], str | None] | None = None, name: Callable[[], str | None] | None = None
    ) -> Visit:
        """Begin a request: calls made from now on, in this thread, are its own.

        Args:
            user: returns whose it is.
            name: returns its id, for the error that says its budget is spent.
        """
        settings, now = current_config().table("web"), self.clock.now()
        timeout, budget = settings.request_timeout, settings.request_budget
        self._under_way.begin()
        # A scope of its own, not one inside the present: that may be left over from a request that was never closed.
        wallets = () if budget is None else (Wallet(budget, name),)
        scope = Scope(user, None if timeout is None else now + timeout, None, wallets)
        return Visit(self, entered(scope), now, self._watch() if operations.watched else None)

    def _watch(self) -> Running | None:
        """Enter a request among the runs that may be slow, where these are caught."""
        profiler = Profiler.instance()
        if not profiler.watches():
            return None
        run = profiler.operation(self._metric.removesuffix("_duration")).begin()
        lost = self._watched.get(run.thread)
        if lost is not None:  # a request that was never closed: what its thread does now is not its own
            operations.running.pop(lost, None)
        self._watched[run.thread] = run
        return run

    def unwatch(self, run: Running, status: str) -> None:
        """Take it out again."""
        if self._watched.get(run.thread) is run:
            del self._watched[run.thread]
        if run.thread != threading.get_ident():
            run.cpu = None
        run.operation.end(run, status if status in _FAILED else None)

    def ended(self, started: float, tags: dict[str, str]) -> None:
        """Record a request that has ended, and collect garbage if that is asked for and due."""
        idle = self._under_way.end()
        if self._tracker is None:
            self._tracker = PerformanceTracker.instance()
        self._tracker.record_metric(self._metric, self.clock.now() - started, tags)
        self._under_way.collect(idle=idle)


class Visit:
    """One request under way."""

    __slots__ = ("_run", "_scope", "_started", "_visits")

    def __init__(self, visits: Visits, scope: Token[Scope | None], started: float, run: Running | None) -> None:
        self._visits, self._scope, self._started, self._run = visits, scope, started, run

    def named(self, *name: str) -> None:
        """Tell what is asked for, as soon as it is known: what is usual is learned apart for each."""
        if self._run is not None:
            self._run.operation = Profiler.instance().operation(" ".join(name))

    def end(self, **tags: str) -> None:
        """End it, once its reply has been sent; `tags` name it in the metrics."""
        left(self._scope)
        if self._run is not None:
            self._visits.unwatch(self._run, tags.get("status") or tags.get("state", ""))
        self._visits.ended(self._started, tags)
