"""The tracker: what users and the rest of perfkit record to, and ask.

It puts together the record path (`handle`), the series (`series`), what is asked of them (`reading`), the sinks and
the other workers (`sharing`), and owns what is left: snapshots that other processes merge, and the background jobs.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import ConfigError
from perfkit.metrics.feedback import Answers, opinions
from perfkit.metrics.handle import Handle, Timer
from perfkit.metrics.reading import Readable
from perfkit.metrics.running import RunningTimers
from perfkit.metrics.series import SeriesTable
from perfkit.metrics.sharing.exchange import Exchange
from perfkit.metrics.sharing.stores import store_of
from perfkit.metrics.sharing.view import MergedView
from perfkit.metrics.sharing.worker import Worker
from perfkit.metrics.sinks import SINKS, Sink, configured_sinks
from perfkit.metrics.sinks.calls import CallSink, FinishedCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perfkit.metrics.sinks import Kind

    Tags = Mapping[str, str | int | float | bool]

__all__ = ["PerformanceTracker"]

log = logging.getLogger("perfkit.metrics")

_SLICES = 10  # parts of the series flushed one after the other: a daemon's socket loses most of one big burst
_SHARING = 1.0  # seconds after its end until other workers are told of a slot
_SNAPSHOT = 1  # version of the snapshot's form


class PerformanceTracker(Shared, Readable):
    """Records metrics, answers for the last day, and passes them on to sinks; the shared one is `perfkit.tracker`.

    Recording never raises and never blocks. A value that is not a finite number counts as "metrics_refused", and beyond
    `max_series` further tag sets share a series tagged `perfkit.overflow`. Tag values are kept as text, so a tag should
    have one type. After a fork the child starts with empty series and empty buffers, so that nothing is counted twice;
    the parent keeps what it has.

    Args:
        clock: None means the system's.
        **settings: keys of the `[metrics]` table: `max_series`, `max_bytes` (of all series together, where it is used
            up the oldest slots go first), `statsd` ("host:port" or "unix:///path"), `statsd_options` and `prefix` for
            StatsD, `otel` (whether OpenTelemetry gets all of it), `flush_interval` (seconds until sinks have got a
            value), `store` (where all workers of an application share their metrics: a directory, or "redis" for the
            one of `[state] url`) and `host` (this machine's name there), `detailed_logging` (a line for each call).

    Raises:
        ConfigError: a setting is unknown or cannot be used.
    """

    _table = "metrics"

    def __init__(self, *, clock: Clock | None = None, **settings: Any) -> None:
        super().__init__(settings)
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._series = SeriesTable(self._clock, self._start)
        self._cache = self._series.cache
        self._added: tuple[Sink, ...] = ()
        self._call_sinks: tuple[CallSink, ...] = ()
        self._configured_sinks: tuple[Sink, ...] = ()
        self._wanted: tuple[Any, ...] = ()  # the settings they were made by
        self._exchange: Exchange | None = None
        self._store: tuple[str | None, str | None] = (None, None)
        self._answers = Answers()
        self._begin()
        self._apply()

    def _begin(self) -> None:
        self._lock = threading.Lock()  # guards _added, _configured_sinks and _wanted
        self._running = RunningTimers()
        self._started = False
        self._turn = 0

    def _after_fork(self) -> None:
        self._begin()
        if self._exchange is not None:
            self._exchange.after_fork()
        self._series.renew()

    def _apply(self) -> None:
        asked, old = self.settings, tuple[Sink, ...]()
        wanted = (asked.statsd, asked.statsd_options, asked.otel, asked.prefix)
        if wanted != self._wanted:
            made = configured_sinks(asked, self._clock)
            with self._lock:
                old, self._configured_sinks, self._wanted = self._configured_sinks, made, wanted
        with self._lock:
            self._join_sinks()
        for sink in old:
            sink.close()
        self._series.limit, self._series.max_bytes = self.settings.max_series, self.settings.max_bytes
        if (self.settings.store, self.settings.host) != self._store:
            self._join(self.settings.store, self.settings.host)
        if self._started:
            self._schedule()

    def _join(self, store: str | None, host: str | None) -> None:
        """Share what is recorded from now on through another store, or with nobody."""
        self._stop_sharing()
        self._store = store, host
        self._exchange = (
            None
            if store is None
            else Exchange(
                store_of(store),
                self._clock,
                self._series.handles,
                lambda: self.increment("state_unavailable"),
                host=host,
            )
        )
        self._series.share_slots(sharing=store is not None)

    def configure(self, **settings: Any) -> None:
        """Change settings in place; those not given stay as they are.

        Raises:
            ConfigError: a name or value is wrong; nothing has changed then.
        """
        before = self.settings
        try:
            super().configure(**settings)
        except ConfigError:
            self.settings = before
            raise

    def _join_sinks(self) -> None:
        self._series.sinks = (*self._configured_sinks, *self._added)
        logs = (SINKS.get("calls")(),) if self.settings.detailed_logging else ()
        self._call_sinks = tuple(sink for sink in (*logs, *self._series.sinks) if isinstance(sink, CallSink))

    # --- recording

    def record_metric(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Record a value of a distribution: seconds when the name says a duration, latency or time."""
        try:
            handle = self._cache[(None, name, *tags, *tags.values()) if tags else (None, name)]
        except Exception:  # not cached, or arguments that find() refuses
            handle = self._series.find(None, name, tags)
        handle.record(value)

    def increment(self, name: str, n: float = 1.0, tags: Tags | None = None) -> None:
        """Count `n` events: the sum of the statistics is how many, their count how often this was called."""
        try:
            handle = self._cache[("counter", name, *tags, *tags.values()) if tags else ("counter", name)]
        except Exception:  # as above
            handle = self._series.find("counter", name, tags)
        handle.record(n)

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Record how much there is now; sinks get the newest value of each flush, statistics are of all values."""
        self._series.find_cached("gauge", name, tags).record(value)

    def timer(self, name: str, tags: Tags | None = None) -> Timer:
        """Return a context manager and decorator that records how many seconds a block or function takes."""
        return Timer(self._series.find_cached("timing", name, tags))

    def handle(self, name: str, tags: Tags | None = None, *, kind: Kind | None = None) -> Handle:
        """Return the series itself, for paths where finding it each time costs too much.

        Args:
            name: the metric.
            tags: its tags.
            kind: "timing", "value", "counter" or "gauge"; None for what the name suggests, a timing or a value.
        """
        return self._series.find_cached(kind, name, tags)

    def start_timer(self, operation: str) -> None:
        """Begin timing an operation; the same one may be begun again before it ends, here and in other threads."""
        self._running.begin(operation, self._clock.now())

    def end_timer(self, operation: str) -> float | None:
        """End the operation begun last in this thread, and record it as `<operation>_duration`.

        A thread that began none ends the one that has been running longest in the others.

        Returns:
            Its seconds, or None when none is running.
        """
        now = self._clock.now()
        began = self._running.end(operation)
        if began is None:
            return None
        self._series.find_cached("timing", f"{operation}_duration").record_at(now - began, now)
        return now - began

    def remember(self, response_id: str, tags: Mapping[str, str]) -> None:
        """Note the provider, model and agent of an answer, for `feedback`; the newest 10 000 are kept."""
        self._answers.remember(response_id, tags)

    def feedback(
        self,
        response_id: Any,
        score: float | None = None,
        satisfied: bool | None = None,
        completed: bool | None = None,
    ) -> bool:
        """Record what a user thought of an answer, for the summary of its provider and model.

        Args:
            response_id: `ChatResponse.id`, or the response itself, which also works in another worker.
            score: quality, by any scale of the application's; the summary shows the average.
            satisfied: whether the user was content.
            completed: whether the task was done.

        Returns:
            Whether it is known who gave the answer; if not, the metrics have no provider and model.
        """
        tags = self._answers.tags(response_id)
        for name, value in opinions(score, satisfied, completed):
            self.record_metric(name, value, tags)
        return tags is not None

    # --- asking

    @property
    def clock(self) -> Clock:
        """The clock it goes by, for those who have read it already when they record."""
        return self._clock

    def series(self) -> list[Handle]:
        """Return all series with values."""
        _process.check()
        return self._series.handles()

    def _wall(self) -> float:
        return self._clock.wall()

    def merged(self) -> MergedView:
        """Return the metrics of all workers that share a `store`, to the last slot each has closed; never raises.

        Without a store it is what this process has. While the store is away it is what was known before.
        """
        _process.check()
        if self._exchange is not None:
            return self._exchange.view()
        host = self.settings.host or os.uname().nodename
        here = Worker.here(f"{host}.{os.getpid()}", host, self._clock.wall())
        return MergedView(self._clock, self._series.handles(), [here], host=host)

    def snapshot(self) -> dict[str, Any]:
        """Return all series with their slots as JSON types, for `merge` in another process."""
        _process.check()
        series = [
            {"kind": handle.kind, "name": handle.name, "tags": dict(handle.tags), "slots": handle.dump()}
            for handle in self._series.handles()
        ]
        return {"version": _SNAPSHOT, "at": self._clock.wall(), "series": series}

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Add another tracker's snapshot, exactly: statistics become those of both together.

        Neither sinks nor other workers are told: they hear from the process the snapshot is of.

        Raises:
            ValueError: it is of a version this perfkit does not know.
        """
        if snapshot.get("version") != _SNAPSHOT:
            raise ValueError(f"snapshot of version {snapshot.get('version')!r}; this perfkit merges {_SNAPSHOT}")
        for row in snapshot["series"]:
            self._series.find(row["kind"], row["name"], row["tags"]).load(row["slots"])

    # --- sinks and life

    def add_sink(self, sink: Sink | str, **options: Any) -> Sink:
        """Send everything recorded from now on to a sink too; to the same one once.

        Args:
            sink: one that is ready, or a name of `SINKS`.
            **options: for the constructor, when it is a name.

        Returns:
            The sink.

        Raises:
            UnknownNameError: no sink is called so.
        """
        made: Sink = SINKS.get(sink)(**options) if isinstance(sink, str) else sink
        with self._lock:
            if made not in self._added:
                self._added = (*self._added, made)
                self._join_sinks()
        return made

    @property
    def follows_calls(self) -> bool:
        """Whether a sink wants to be told of chat calls."""
        return bool(self._call_sinks)

    def finished(self, **call: Any) -> None:
        """Tell the sinks that follow calls of one that has just ended: the fields of FinishedCall but `ended`."""
        finished = FinishedCall(**call, ended=self._clock.wall())
        for sink in self._call_sinks:
            try:
                sink.finished(finished)
            except Exception:
                self._series.complain(sink)

    def _start(self) -> None:
        """See that the background jobs run, now that something is recorded in this process."""
        if not self._series.sinks and self._exchange is None:
            return
        try:
            if self._started:
                _process.background.ensure()
                return
            self._started = self._schedule()  # twice does no harm: asking again for a job changes it
        except RuntimeError:  # no more threads, or the interpreter is ending: close() will flush
            log.debug("no background thread for metrics", exc_info=True)
        self._flush_sinks()  # nothing is waiting; they may get ready

    def _schedule(self) -> bool:
        started = _process.background.every(self.settings.flush_interval / _SLICES, self._tick, wait=False)
        if self._exchange is not None:
            started &= _process.background.every(_SHARING, self._share, wait=False)
        return started

    def _share(self) -> None:
        if self._exchange is not None:
            self._exchange.tick(self.settings.max_series)

    def _tick(self) -> None:
        self._turn = (self._turn + 1) % _SLICES
        for handle in self._series.handles()[self._turn :: _SLICES]:
            handle.flush()
            self._series.deliver()
        self._flush_sinks()

    def _flush_sinks(self) -> None:
        self._series.deliver()
        for sink in self._series.sinks:
            try:
                sink.flush()
            except Exception:
                self._series.complain(sink)

    def flush(self) -> None:
        """Send to the sinks, and share with other workers, all that is recorded, now."""
        self._flush_all()
        if self._exchange is not None:
            self._exchange.tell(everything=True)

    def _flush_all(self) -> None:
        _process.check()
        for handle in self._series.handles():
            handle.flush()
            self._series.deliver()
        self._flush_sinks()

    def _stop_sharing(self) -> None:
        _process.background.cancel(self._share)
        if self._exchange is not None:
            self._exchange.tell(everything=True, ended=True)

    def close(self) -> None:
        """Flush, end the background jobs and close the sinks; recording again starts them again."""
        _process.background.cancel(self._tick)
        self._started = False
        self._flush_all()
        self._stop_sharing()
        for sink in self._series.sinks:
            try:
                sink.close()
            except Exception:
                self._series.complain(sink)

    def reset(self) -> None:
        """Close, and forget all values, running timers and added sinks; handles stay good."""
        self.close()
        with self._lock:
            self._added = ()
            self._join_sinks()
        self._running = RunningTimers()
        self._answers.clear()
        self._series.forget()

    def __repr__(self) -> str:
        return f"PerformanceTracker({len(self._series.handles())} series, {len(self._series.sinks)} sinks)"
