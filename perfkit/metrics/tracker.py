"""The tracker: what users and the rest of perfkit record to, and ask.

It puts together the record path (`handle`), the series (`series`) and the sinks, and owns what is left: nested timers,
queries over tags and time, snapshots that other processes merge, and the background job that feeds the sinks.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from perfkit import _process
from perfkit._shared import Shared
from perfkit.clock import SYSTEM_CLOCK, Clock
from perfkit.errors import ConfigError
from perfkit.metrics.handle import Handle, Timer
from perfkit.metrics.series import SeriesTable
from perfkit.metrics.sinks import SINKS, Sink
from perfkit.metrics.sketch import Sketch
from perfkit.metrics.window import DAY

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PerformanceTracker"]

Tags = Mapping[str, "str | int | float | bool"]
Moment = float | datetime | timedelta

log = logging.getLogger("perfkit.metrics")

_HOUR = 3600.0
_NESTED = 64  # timers of one operation running in one thread; of more, which were never ended, the oldest are forgotten
_SLICES = 10  # parts of the series flushed one after the other: a daemon's socket loses most of one big burst
_SNAPSHOT = 1  # version of the snapshot's form


class PerformanceTracker(Shared):
    """Records metrics, answers for the last day, and passes them on to sinks; the shared one is `perfkit.tracker`.

    Recording never raises and never blocks. A value that is not a finite number counts as "metrics_refused", and beyond
    `max_series` further tag sets share a series tagged `perfkit.overflow`. Tag values are kept as text, so a tag should
    have one type. After a fork the child starts with empty series and empty buffers, so that nothing is counted twice;
    the parent keeps what it has.

    Args:
        clock: None means the system's.
        **settings: keys of the `[metrics]` table: `max_series`, `max_bytes` (of all series together, where it is used
            up the oldest slots go first), `statsd` ("host:port" or "unix:///path"), `statsd_options` and `prefix` for
            StatsD, `flush_interval` (seconds until sinks have got a value).

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
        self._statsd: Sink | None = None
        self._statsd_settings: tuple[str | None, dict[str, Any]] = (None, {})
        self._begin()
        self._apply()

    def _begin(self) -> None:
        self._lock = threading.Lock()  # guards _added and _statsd
        self._running = threading.local()
        self._started = False
        self._turn = 0

    def _after_fork(self) -> None:
        self._begin()
        self._series.renew()

    def _apply(self) -> None:
        wanted = (self.settings.statsd, {"prefix": self.settings.prefix, **self.settings.statsd_options})
        if wanted != self._statsd_settings:
            address, options = wanted
            made = _statsd(address, clock=self._clock, **options) if address is not None else None
            with self._lock:
                old, self._statsd, self._statsd_settings = self._statsd, made, wanted
                self._join_sinks()
            if old is not None:
                old.close()
        self._series.limit, self._series.max_bytes = self.settings.max_series, self.settings.max_bytes
        if self._started:
            self._schedule()

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
        self._series.sinks = self._added if self._statsd is None else (self._statsd, *self._added)

    # --- recording

    def record_metric(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Record a value of a distribution: seconds when the name says a duration, latency or time."""
        try:
            handle = self._cache[(None, name, *tags.items()) if tags else (None, name)]
        except Exception:  # not cached, or arguments that find() refuses
            handle = self._series.find(None, name, tags)
        handle.record(value)

    def increment(self, name: str, n: float = 1.0, tags: Tags | None = None) -> None:
        """Count `n` events: the sum of the statistics is how many, their count how often this was called."""
        try:
            handle = self._cache[("counter", name, *tags.items()) if tags else ("counter", name)]
        except Exception:  # as above
            handle = self._series.find("counter", name, tags)
        handle.record(n)

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Record how much there is now; sinks get the newest value of each flush, statistics are of all values."""
        self._series.find_cached("gauge", name, tags).record(value)

    def timer(self, name: str, tags: Tags | None = None) -> Timer:
        """Return a context manager and decorator that records how many seconds a block or function takes."""
        return Timer(self._series.find_cached("timing", name, tags))

    def handle(self, name: str, tags: Tags | None = None) -> Handle:
        """Return the series itself, for paths where finding it each time costs too much."""
        return self._series.find_cached(None, name, tags)

    def start_timer(self, operation: str) -> None:
        """Begin timing an operation in this thread; the same operation may be begun again before it ends."""
        self._stacks()[operation].append(self._clock.now())

    def end_timer(self, operation: str) -> float | None:
        """End the operation begun last in this thread, and record it as `<operation>_duration`.

        Returns:
            Its seconds, or None when none is running.
        """
        stacks = self._stacks()
        if operation not in stacks:
            return None
        now = self._clock.now()
        duration = now - stacks[operation].pop()
        if not stacks[operation]:
            del stacks[operation]
        self._series.find_cached("timing", f"{operation}_duration").record_at(duration, now)
        return duration

    def _stacks(self) -> dict[str, deque[float]]:
        local = self._running
        try:
            stacks: dict[str, deque[float]] = local.stacks
        except AttributeError:
            stacks = local.stacks = defaultdict(lambda: deque(maxlen=_NESTED))
        return stacks

    # --- asking

    def get_stats(
        self, name: str, since: Moment | None = None, until: Moment | None = None, tags: Tags | None = None
    ) -> dict[str, float]:
        """Return count, sum, avg, min, max, p50, p90, p95, p99 and p99_9 of a metric, empty when there are no values.

        Percentiles are nearest rank: exact up to 64 values, beyond within 0.542 %. The range is widened to whole slots:
        10 s during the last 10 minutes, 60 s during the last 2 hours, then 15 minutes.

        Args:
            name: the metric.
            since: epoch seconds, a datetime, or a timedelta before now; None means an hour before `until`.
            until: the same; None means now.
            tags: only series that have at least these; None merges all.
        """
        return self._collect(self._series.select(name, tags), since, until).stats()

    def get_performance_summary(
        self, since: Moment | None = None, until: Moment | None = None
    ) -> dict[str, dict[str, float]]:
        """Return for each "provider/model" its requests, success rate (0..1), latencies (ms) and tokens.

        Made of provider_latency (one a success), provider_failure and token_usage, by their tags provider and model.
        """
        groups: dict[str, dict[str, list[Handle]]] = defaultdict(lambda: defaultdict(list))
        for handle in self._series.handles():
            if handle.name in ("provider_latency", "provider_failure", "token_usage") and "provider" in handle.tags:
                label = "/".join(handle.tags[tag] for tag in ("provider", "model") if tag in handle.tags)
                groups[label][handle.name].append(handle)
        rows = {
            label: _summary(
                *(
                    self._collect(series[name], since, until)
                    for name in ("provider_latency", "provider_failure", "token_usage")
                )
            )
            for label, series in sorted(groups.items())
        }
        return {label: row for label, row in rows.items() if row["requests"]}

    def _collect(self, handles: Iterable[Handle], since: Moment | None, until: Moment | None) -> Sketch:
        _process.check()
        now = self._clock.wall()
        end = _epoch(until, now) if until is not None else float("inf")
        begin = _epoch(since, now) if since is not None else min(now, end) - _HOUR
        result = Sketch()
        for handle in handles:
            handle.collect(result, begin, end)
        return result

    def names(self) -> list[str]:
        """Return the names of all metrics with values of the last day."""
        day_ago = self._clock.wall() - DAY
        return sorted({handle.name for handle in self._series.handles() if handle.last_used >= day_ago})

    def snapshot(self) -> dict[str, Any]:
        """Return all series with their slots as JSON types, for `merge` in another process."""
        _process.check()
        series = [
            {"kind": handle.kind, "name": handle.name, "tags": dict(handle.tags), "slots": handle.dump()}
            for handle in self._series.handles()
        ]
        return {"version": _SNAPSHOT, "at": self._clock.wall(), "series": series}

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Add another tracker's snapshot, exactly: statistics become those of both together. Sinks are not told.

        Raises:
            ValueError: it is of a version this perfkit does not know.
        """
        if snapshot.get("version") != _SNAPSHOT:
            raise ValueError(f"snapshot of version {snapshot.get('version')!r}; this perfkit merges {_SNAPSHOT}")
        for row in snapshot["series"]:
            self._series.find(row["kind"], row["name"], row["tags"]).load(row["slots"])

    # --- sinks and life

    def add_sink(self, sink: Sink | str, **options: Any) -> Sink:
        """Send everything recorded from now on to a sink too.

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
            self._added = (*self._added, made)
            self._join_sinks()
        return made

    def _start(self) -> None:
        """See that the background job runs, now that something is recorded in this process."""
        if not self._series.sinks:
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
        return _process.background.every(self.settings.flush_interval / _SLICES, self._tick, wait=False)

    def _tick(self) -> None:
        self._turn = (self._turn + 1) % _SLICES
        for handle in self._series.handles()[self._turn :: _SLICES]:
            handle.flush()
        self._flush_sinks()

    def _flush_sinks(self) -> None:
        for sink in self._series.sinks:
            try:
                sink.flush()
            except Exception:
                self._series.complain(sink)

    def flush(self) -> None:
        """Send to the sinks all that is recorded, now."""
        _process.check()
        for handle in self._series.handles():
            handle.flush()
        self._flush_sinks()

    def close(self) -> None:
        """Flush, end the background job and close the sinks; recording again starts them again."""
        _process.background.cancel(self._tick)
        self._started = False
        self.flush()
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
        self._running = threading.local()
        self._series.forget()

    def __repr__(self) -> str:
        return f"PerformanceTracker({len(self._series.handles())} series, {len(self._series.sinks)} sinks)"


def _statsd(address: str, **options: Any) -> Sink:
    try:
        made: Sink = SINKS.get("statsd")(address, **options)
    except (TypeError, KeyError) as error:
        raise ConfigError(f"metrics.statsd_options: {error}", key="metrics.statsd_options") from error
    return made


def _epoch(moment: Moment, now: float) -> float:
    if isinstance(moment, timedelta):
        return now - moment.total_seconds()
    return moment.timestamp() if isinstance(moment, datetime) else float(moment)


def _summary(latency: Sketch, failures: Sketch, tokens: Sketch) -> dict[str, float]:
    requests = latency.count + round(failures.total)
    seconds = latency.stats()
    return {
        "requests": requests,
        "success_rate": latency.count / requests if requests else 0.0,
        "avg_latency_ms": seconds.get("avg", 0.0) * 1000,
        "p50_latency_ms": seconds.get("p50", 0.0) * 1000,
        "p95_latency_ms": seconds.get("p95", 0.0) * 1000,
        "total_tokens": round(tokens.total),
        "tokens_per_request": tokens.total / requests if requests else 0.0,
    }
