"""What real daemons have stored of what was recorded: their own counts and percentiles, not the lines sent."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from _daemons import Collectd, NodeStatsd
from _servers import polled

from perfkit.metrics import PerformanceTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeStatsd]:
    with NodeStatsd(tmp_path) as made:
        yield made


@pytest.fixture
def collectd(tmp_path: Path) -> Iterator[Collectd]:
    with Collectd(tmp_path) as made:
        yield made


def test_the_npm_daemon_understands_every_line(node: NodeStatsd) -> None:
    tracker = PerformanceTracker(statsd=node.address, flush_interval=3600)
    for seconds in (0.25, 0.5, 1.0):
        tracker.record_metric("provider_latency", seconds, {"provider": "openai", "model": "gpt-4.1"})
    tracker.record_metric("token_usage", 1500)
    tracker.record_metric("cost", 0.0000125)
    for n in range(300):
        tracker.increment("cache_hit", tags={"route": "a|b:c\n"})
        tracker.increment("many", tags={"n": n})
    tracker.gauge("queue", 5)
    tracker.gauge("balance", -3.5)
    tracker.close()
    assert polled(lambda: node.read("gauges").get("perfkit.balance") == -3.5)  # the last line
    counters, timers, gauges = map(node.read, ("counters", "timers", "gauges"))
    assert counters["statsd.bad_lines_seen"] == 0
    assert 309 <= counters["statsd.metrics_received"] <= 311  # the background thread may cut a sum in two
    assert sum(name.startswith("perfkit.many.n.") for name in counters) == 300
    assert counters["perfkit.cache_hit.route.a_b_c_"] == 300
    assert timers["perfkit.provider_latency.model.gpt-4_1.provider.openai"] == [250, 500, 1000]
    assert (timers["perfkit.token_usage"], timers["perfkit.cost"]) == ([1500], [0.0000125])
    assert (gauges["perfkit.queue"], gauges["perfkit.balance"]) == (5, -3.5)


def received(node: NodeStatsd) -> int:
    return int(node.read("counters")["statsd.metrics_received"])


def received_of_burst(node: NodeStatsd, values: int) -> int:
    before = received(node)
    tracker = PerformanceTracker(statsd=node.address)
    handle = tracker.handle("provider_latency")
    tracker.flush()
    for n in range(values):
        handle.record(n / 1000)
    tracker.close()
    with suppress(AssertionError):
        polled(lambda: received(node) >= before + values, 3)
    return received(node) - before


def test_the_npm_daemon_gets_a_burst_whole(node: NodeStatsd) -> None:
    """Sent at once, most of these 430 datagrams are lost in the daemon's socket buffer, whatever the machine does."""
    bursts = (received_of_burst(node, 20_000) for _ in range(4))
    assert 20_000 in bursts  # a daemon that gets no turn for a while loses some of any burst
    assert node.read("counters")["statsd.bad_lines_seen"] == 0


def begin_interval(node: NodeStatsd) -> None:
    """Wait for the beginning of an interval of the daemon, into which all falls that is sent now."""
    with closing(PerformanceTracker(statsd=node.address)) as first:
        first.record_metric("begun", 1.0)
    polled(lambda: node.flushed("perfkit.begun"))


def test_the_npm_daemon_makes_the_percentiles(tmp_path: Path) -> None:
    with NodeStatsd(tmp_path, flush=1000) as node:
        begin_interval(node)
        tracker = PerformanceTracker(statsd=node.address, flush_interval=3600)
        for n in range(1, 101):
            tracker.record_metric("provider_latency", n / 1000)
        stats = tracker.get_stats("provider_latency")
        tracker.close()
        stored = polled(lambda: node.flushed("perfkit.provider_latency"))
    assert (stored["count"], stored["sum"]) == (100, 5050)
    for percentile in (50, 95, 99):
        assert stored[f"upper_{percentile}"] == pytest.approx(stats[f"p{percentile}"] * 1000, rel=0.00542)


def test_the_npm_daemon_scales_what_was_sampled(tmp_path: Path) -> None:
    with NodeStatsd(tmp_path, flush=1000) as node:
        begin_interval(node)
        tracker = PerformanceTracker(statsd=node.address, statsd_options={"sample_rate": 0.5}, flush_interval=3600)
        for _ in range(4000):
            tracker.record_metric("provider_latency", 0.25)
        tracker.close()
        assert 3600 < polled(lambda: node.flushed("perfkit.provider_latency"))["count"] < 4400


def test_collectd_stores_counters_gauges_and_timers_as_such(collectd: Collectd) -> None:
    first = PerformanceTracker(statsd=collectd.address)
    first.increment("begun")
    first.close()
    polled(lambda: collectd.values("derive-perfkit.begun"))  # an interval of collectd's begins, which all falls into
    tracker = PerformanceTracker(statsd=collectd.address, flush_interval=3600)
    for n in range(1, 101):
        tracker.record_metric("provider_latency", n / 1000, {"provider": "openai"})
    tracker.increment("cache_hit", 300)
    tracker.gauge("queue", 5)
    tracker.gauge("balance", -3.5)
    tracker.close()
    name = "perfkit.provider_latency.provider.openai"
    assert polled(lambda: 300 in collectd.values("derive-perfkit.cache_hit"))
    assert polled(lambda: 5 in collectd.values("gauge-perfkit.queue"))
    assert polled(lambda: -3.5 in collectd.values("gauge-perfkit.balance"))
    assert polled(lambda: 100 in collectd.values(f"gauge-{name}-count"))
    assert max(collectd.values(f"latency-{name}-sum")) == pytest.approx(5.05)
    for percentile, seconds in ((50, 0.050), (99, 0.099)):
        stored = max(collectd.values(f"latency-{name}-percentile-{percentile}"))
        assert stored == pytest.approx(seconds, abs=0.0011)  # it keeps a histogram of milliseconds


@pytest.mark.parametrize("kind", [NodeStatsd, Collectd])
def test_a_daemon_that_is_stopped_killed_and_started_again_is_no_trouble(
    kind: type[NodeStatsd | Collectd], tmp_path: Path
) -> None:
    with kind(tmp_path) as daemon:
        tracker = PerformanceTracker(statsd=daemon.address)
        for change in (daemon.pause, daemon.kill, daemon.start):
            change()
            for n in range(500):
                tracker.increment("hits", tags={"n": n % 5})
                tracker.record_metric("latency", 0.01)
            tracker.flush()
        tracker.increment("after")
        tracker.close()
        if isinstance(daemon, NodeStatsd):
            assert polled(lambda: daemon.read("counters").get("perfkit.after") == 1)
        else:
            assert polled(lambda: 1 in daemon.values("derive-perfkit.after"))
