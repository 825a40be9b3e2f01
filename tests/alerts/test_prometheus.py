"""A real Prometheus that scrapes the page and evaluates the exported rules: what it stores, and what fires in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from _daemons import Prometheus
from _servers import polled

from perfkit.alerts import Alerts
from perfkit.alerts.defaults import default_rules
from perfkit.alerts.promql import to_prometheus
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sinks.prometheus import MetricsApp
from perfkit.tokens import TokenOptimizer

if TYPE_CHECKING:
    from perfkit.alerts import Rule

LIMIT = 1.0  # US dollars a day


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None: ...


class Scraped(NamedTuple):
    """A tracker, and the Prometheus that watches it."""

    tracker: PerformanceTracker
    prometheus: Prometheus


def quick_rules() -> dict[str, Rule]:
    """Return the four rules as they are, with durations cut to seconds."""
    return {name: replace(rule, duration=1.0, window=5.0) for name, rule in default_rules().items()}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """One for all tests here: it takes Prometheus five seconds to begin."""
    tracker = PerformanceTracker()
    rules = to_prometheus(quick_rules().values(), daily_limit=LIMIT)
    with make_server("127.0.0.1", 0, MetricsApp(tracker), handler_class=Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with Prometheus(tmp_path_factory.mktemp("prometheus"), server.server_port, rules) as prometheus:
            yield Scraped(tracker, prometheus)
        server.shutdown()
    tracker.close()


def test_prometheus_stores_counts_and_percentiles(scraped: Scraped) -> None:
    tracker, prometheus = scraped
    for n in range(1, 1001):
        tracker.record_metric("render_duration", n / 1000, {"page": 'a"b\\c\n'})
    tracker.gauge("queue", 5)
    tracker.increment("hits", 42)
    assert polled(lambda: prometheus.value("perfkit_hits_total") == 42)
    assert prometheus.value("perfkit_queue") == 5
    ((labels, count),) = prometheus.query("perfkit_render_duration_seconds_count")
    assert (count, labels["page"]) == (1000, 'a"b\\c\n')
    assert prometheus.value("perfkit_render_duration_seconds_sum") == pytest.approx(500.5)
    for quantile in (0.5, 0.95, 0.99):
        stored = prometheus.value(f"histogram_quantile({quantile}, perfkit_render_duration_seconds_bucket)")
        assert stored == pytest.approx(quantile, rel=0.05)


def test_the_four_rules_fire_here_and_in_prometheus_at_the_same_time(scraped: Scraped) -> None:
    alerts = Alerts(
        tracker=scraped.tracker, optimizer=TokenOptimizer(tracker=scraped.tracker), daily_limit=LIMIT, defaults=False
    )
    alerts._added = dict(quick_rules())  # add_rule() would start the background thread
    assert polled(lambda: both_fire(scraped, alerts), 25) == {
        ("high_error_rate", "flaky"),
        ("high_error_rate", "down"),
        ("provider_down", "down"),
        ("high_latency", "slow"),
        ("cost_limit_exceeded", ""),
    }
    alerts.close()


def both_fire(scraped: Scraped, alerts: Alerts) -> set[tuple[str, str]] | None:
    """Let more traffic come, and return what fires in both, once it is the same and all that should."""
    traffic(scraped.tracker)
    alerts.evaluate()
    ours = {(alert.rule, alert.labels.get("provider", "")) for alert in alerts.alerts() if alert.state == "firing"}
    theirs = {key for key, state in scraped.prometheus.alerts().items() if state == "firing"}
    return ours if ours == theirs and len(ours) >= 5 else None


def traffic(tracker: PerformanceTracker) -> None:
    for provider, latency in (("good", 0.1), ("slow", 12.0), ("flaky", 0.1)):
        for _ in range(50):
            tracker.record_metric("provider_latency", latency, {"provider": provider})
    for provider in ("flaky", "down"):
        tracker.increment("provider_failure", 20, {"provider": provider})
    tracker.increment("cost", 0.9)
