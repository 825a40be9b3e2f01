from __future__ import annotations

import errno
import re
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from _daemons import free_port
from _forks import in_child
from _servers import polled
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.errors import ConfigError, UnknownNameError
from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sinks.statsd import StatsdSink

if TYPE_CHECKING:
    from pathlib import Path

    from perfkit.clock import FakeClock


# --- datagrams


def test_lines_share_datagrams_of_at_most_1432_bytes(sink: StatsdSink, udp: Any) -> None:
    sink.flush()
    for n in range(500):
        sink.emit("timing", "call_duration", n / 1000, {"n": str(n)})
    sent_when_full = udp.datagrams()
    sink.flush()
    datagrams = sent_when_full + udp.datagrams()
    lines = b"\n".join(datagrams).splitlines()
    assert lines == [b"perfkit.call_duration.n.%d:%.6f|ms" % (n, n) for n in range(500)]
    assert len(datagrams) == len(sent_when_full) + 1 == sink.sent
    assert all(1432 - 45 < len(datagram) <= 1432 for datagram in sent_when_full)


@pytest.mark.parametrize(("third", "lengths"), [(430, [1432, 13]), (431, [1001, 445])])
def test_a_datagram_may_be_full_to_the_last_byte(sink: StatsdSink, udp: Any, third: int, lengths: list[int]) -> None:
    for name, size in (("a", 500), ("b", 500), ("c", third), ("d", 13)):
        sink.emit("counter", name * (size - len(b"perfkit.:1|c")), 1, {})
    sink.flush()
    assert [len(datagram) for datagram in udp.datagrams()] == lengths


def test_the_longest_name_still_fits(sink: StatsdSink, udp: Any) -> None:
    sink.emit("gauge", "x" * 10_000, -1e300, {})
    sink.flush()
    assert [len(datagram) <= 1432 for datagram in udp.datagrams()] == [True]


def test_an_absent_daemon_is_no_trouble(clock: FakeClock) -> None:
    sink = StatsdSink(f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}", clock=clock)
    for _ in range(200):
        sink.emit("counter", "x", 1, {})
        sink.flush()
    sink.close()
    assert (sink.sent, sink.dropped) == (200, 0)


def test_what_the_system_refuses_to_send_is_dropped_and_counted(clock: FakeClock) -> None:
    """Without SO_BROADCAST the kernel refuses a broadcast."""
    sink = StatsdSink("255.255.255.255:8125", clock=clock)
    for _ in range(3):
        sink.emit("counter", "x", 1, {})
    sink.flush()
    assert (sink.sent, sink.dropped) == (0, 3)
    sink.close()


def test_a_full_send_buffer_keeps_lines_for_later_and_does_not_wait(sink: StatsdSink, udp: Any) -> None:
    class Full:
        def sendto(self, data: bytes, address: Any) -> int:
            raise BlockingIOError(errno.EAGAIN, "would block")

        def close(self) -> None: ...

    sink.flush()
    sink._wire._socket = Full()  # type: ignore[assignment]
    sink.emit("counter", "x", 1, {})
    sink.emit("counter", "x", 1, {})
    sink.flush()
    assert sink.dropped == 0  # kept for later
    sink._wire._socket = None
    sink.flush()
    assert udp.lines() == [b"perfkit.x:1|c"] * 2


def test_the_socket_does_not_block(sink: StatsdSink) -> None:
    sink.emit("counter", "x", 1, {})
    sink.flush()
    assert sink._wire._socket is not None
    assert sink._wire._socket.getblocking() is False


def test_a_lock_that_is_taken_delays_a_line_but_not_its_emitter(sink: StatsdSink, udp: Any) -> None:
    with sink._lock:
        for _ in range(100):
            sink.emit("counter", "x", 1, {})
    assert udp.lines() == []
    sink.flush()
    assert udp.lines() == [b"perfkit.x:1|c"] * 100


# --- pace, packing, sampling, self-metrics


def test_a_burst_is_paced_and_what_waits_is_sent_when_it_may(sink: StatsdSink, udp: Any, clock: FakeClock) -> None:
    """A daemon's socket buffer holds some 90 datagrams; of 400 at once it would lose most."""
    sink.flush()
    for n in range(8000):
        sink.emit("counter", f"some_longer_name_{n}", 1, {})
    assert sink.sent == len(udp.datagrams()) == 64
    clock.advance(0.0105)
    sink.flush()
    assert sink.sent == 74
    clock.advance(60)
    sink.flush()
    assert sink.sent == 138
    seen = len(udp.datagrams())
    sink.close()
    assert seen + len(udp.datagrams()) == sink.sent - 64
    assert sink.dropped == 0


def test_values_of_a_series_are_packed_into_one_line(udp: Any, clock: FakeClock) -> None:
    sink = StatsdSink(udp.address, flavor="dogstatsd", pack=True, clock=clock)
    for value in (1, 2.5, 3):
        sink.emit("value", "x", value, {"a": "b"})
    sink.emit("value", "x", 4, {"a": "c"})
    sink.emit("counter", "n", 1, {})
    sink.emit("counter", "n", 1, {})
    sink.emit("gauge", "g", 1, {})
    sink.emit("gauge", "g", 2, {})
    sink.flush()
    assert udp.lines() == [
        b"perfkit.x:1:2.5:3|d|#a:b", b"perfkit.x:4|d|#a:c",
        b"perfkit.n:1|c", b"perfkit.n:1|c", b"perfkit.g:1|g", b"perfkit.g:2|g",
    ]  # fmt: skip
    sink.close()


def test_packed_datagrams_keep_their_size_and_every_value(udp: Any, clock: FakeClock) -> None:
    sink = StatsdSink(udp.address, flavor="dogstatsd", pack=True, clock=clock)
    sink.flush()
    for n in range(2000):
        sink.emit("value", "x" if n % 100 else "y", n, {"a": "b"})
    sink.close()
    datagrams = udp.datagrams()
    assert max(map(len, datagrams)) <= 1432
    packed = b"\n".join(datagrams).splitlines()
    assert sorted(int(v) for line in packed for v in line.partition(b"|")[0].split(b":")[1:]) == list(range(2000))
    assert len(datagrams) < 10


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10**12)), max_size=300), st.integers(20, 200))
def test_packing_loses_and_mixes_nothing(values: list[tuple[str, int]], room: int) -> None:
    sink = StatsdSink(flavor="dogstatsd", pack=True, max_datagram=room, prefix="")
    for name, value in values:
        sink._lines.append(sink._dialect.line("value", name, value, {}))
    sink._gather()
    sink._complete()
    found = []
    for datagram in sink._full:
        assert len(datagram.data) <= room
        for line in datagram.data.splitlines():
            name, *numbers = line.removesuffix(b"|d").decode().split(":")
            found += [(name, int(number)) for number in numbers]
    assert found == values
    assert sum(datagram.values for datagram in sink._full) == len(values)


def test_a_part_of_the_values_is_sent_with_its_rate(udp: Any, clock: FakeClock) -> None:
    sink = StatsdSink(udp.address, sample_rate=0.25, clock=clock)
    sink.flush()
    for _ in range(1000):
        sink.emit("timing", "t", 0.001, {})
    sink.emit("counter", "n", 1, {})
    sink.emit("gauge", "g", 1, {})
    sink.close()
    lines = udp.lines()
    assert set(lines) == {b"perfkit.t:1.000000|ms|@0.25", b"perfkit.n:1|c", b"perfkit.g:1|g"}
    assert 150 < len(lines) < 350
    assert sink.dropped == 0


def test_what_was_lost_is_told_once_the_daemon_can_be_reached(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "s"
    sink = StatsdSink(f"unix://{path}", flavor="dogstatsd", clock=clock)
    for _ in range(3):
        sink.emit("counter", "x", 1, {})
        sink.flush()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        daemon.settimeout(5)
        sink.emit("counter", "y", 1, {})
        sink.flush()
        assert daemon.recv(9000) == b"perfkit.y:1|c"
        sink.flush()
        dropped = sink.dropped
        assert daemon.recv(9000) == b"perfkit.metrics_dropped:%d|c|#sink:statsd" % dropped
        sink.flush()
        daemon.setblocking(False)
        with pytest.raises(BlockingIOError):
            daemon.recv(9000)
    sink.close()
    assert 3 <= dropped <= 4  # the first telling may have been lost itself


@pytest.mark.parametrize(
    "wrong",
    [
        {"pack": True},
        {"distribution": "ms"},
        {"sample_rate": 0},
        {"sample_rate": 1.5},
        {"max_datagram": 0},
        {"address": "nowhere in particular"},
    ],
)
def test_arguments_that_cannot_be_used_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "address" not in wrong else "statsd"):
        StatsdSink(**wrong)


def test_an_unknown_flavor_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="dogstatsd, statsd"):
        StatsdSink(flavor="dog")


# --- fork


def test_a_child_sends_only_its_own_over_its_own_socket(sink: StatsdSink, udp: Any) -> None:
    sink.emit("counter", "before", 1, {})
    sink.flush()
    sink.emit("counter", "parent", 1, {})

    def work() -> Any:
        fresh = sink._wire._socket is None
        sink.emit("counter", "child", 1, {})
        sink.close()
        return fresh

    with sink._lock:
        assert in_child(work) is True
    sink.flush()
    assert sorted(udp.lines()) == [b"perfkit.before:1|c", b"perfkit.child:1|c", b"perfkit.parent:1|c"]


# --- behind a tracker


def test_the_setting_sends_everything_there(udp: Any) -> None:
    tracker = PerformanceTracker(statsd=udp.address, prefix="shop")
    with tracker.timer("render"):
        pass
    tracker.record_metric("token_usage", 1500, {"provider": "openai", "model": "gpt"})
    tracker.record_metric("provider_latency", 0.25)
    tracker.increment("cache_hit", 2)
    tracker.increment("cache_hit")
    tracker.gauge("queue", 5)
    tracker.start_timer("op")
    tracker.end_timer("op")
    tracker.close()
    lines = sorted(udp.lines())
    assert lines[0] == b"shop.cache_hit:3|c"
    assert re.fullmatch(rb"shop.op_duration:0\.\d{6}\|ms", lines[1])
    assert lines[2:4] == [b"shop.provider_latency:250.000000|ms", b"shop.queue:5|g"]
    assert re.fullmatch(rb"shop.render:0\.\d{6}\|ms", lines[4])
    assert lines[5:] == [b"shop.token_usage.model.gpt.provider.openai:1500|ms"]


def test_the_background_thread_sends_what_is_recorded(udp: Any) -> None:
    tracker = PerformanceTracker(statsd=udp.address, flush_interval=0.2)
    for n in range(25):
        tracker.increment(f"x{n}")
    lines: list[bytes] = []
    while len(lines) < 25 and (more := udp.lines(wait=10)):
        lines += more
    assert sorted(lines) == sorted(b"perfkit.x%d:1|c" % n for n in range(25))
    tracker.close()


def test_after_close_recording_starts_everything_again(udp: Any) -> None:
    tracker = PerformanceTracker(statsd=udp.address, flush_interval=0.2)
    tracker.increment("x")
    tracker.close()
    tracker.increment("y")
    assert udp.lines() + udp.lines(wait=10) == [b"perfkit.x:1|c", b"perfkit.y:1|c"]
    tracker.close()


def test_the_series_are_flushed_in_turns(udp: Any, clock: FakeClock) -> None:
    """A big burst at once overflows a daemon's socket."""
    tracker = PerformanceTracker(statsd=udp.address, clock=clock)
    for n in range(100):
        tracker.increment(f"x{n}")
    sent = []
    for _ in range(10):
        tracker._tick()
        sent.append(len(udp.lines()))
    assert sent == [10] * 10
    tracker.close()


def test_the_background_thread_runs_again_in_a_child(udp: Any) -> None:
    tracker = PerformanceTracker(statsd=udp.address, flush_interval=0.1)
    tracker.increment("parent")

    def work() -> Any:
        tracker.increment("child")
        polled(lambda: tracker._configured_sinks[0].sent)  # type: ignore[attr-defined]
        return [thread.name for thread in threading.enumerate() if thread.name == "perfkit-background"]

    assert in_child(work) == ["perfkit-background"]
    tracker.close()
    assert sorted(udp.lines()) == [b"perfkit.child:1|c", b"perfkit.parent:1|c"]


def test_another_address_takes_over_at_once(udp: Any, clock: FakeClock) -> None:
    tracker = PerformanceTracker(clock=clock)
    tracker.increment("nowhere")
    tracker.configure(statsd="127.0.0.1:9")
    tracker.configure(statsd=udp.address)
    tracker.increment("here")
    tracker.configure(statsd=udp.address, max_series=5)
    tracker.flush()
    tracker.configure(statsd=None)
    tracker.increment("gone")
    tracker.close()
    assert udp.lines() == [b"perfkit.nowhere:1|c", b"perfkit.here:1|c"]


def test_what_is_recorded_is_sent_at_exit(udp: Any) -> None:
    import os
    import sys

    script = f"""
from perfkit.metrics import PerformanceTracker
tracker = PerformanceTracker(statsd="localhost:{udp.port}")
tracker.increment("x")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=environment, timeout=60, check=True)
    assert udp.lines(wait=5) == [b"perfkit.x:1|c"]


def test_the_settings_reach_the_sink(udp: Any, clock: FakeClock) -> None:
    options = {"flavor": "dogstatsd", "distribution": "h"}
    tracker = PerformanceTracker(statsd=udp.address, statsd_options=options, clock=clock)
    tracker.record_metric("provider_latency", 0.25, {"provider": "openai"})
    tracker.close()
    assert udp.lines() == [b"perfkit.provider_latency:0.25|h|#provider:openai"]


@pytest.mark.parametrize("options", [{"flavour": "statsd"}, {"flavor": "dog"}, {"pack": True}])
def test_settings_the_sink_does_not_know_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PerformanceTracker(statsd="127.0.0.1:1", statsd_options=options)
