from __future__ import annotations

import ast
import errno
import re
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from _parts import needs_module, needs_statsd_daemon
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.metrics import PerformanceTracker
from perfkit.metrics.sinks.statsd import StatsdSink, split_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from perfkit.clock import FakeClock
    from perfkit.metrics.sinks import Kind

    InChild = Callable[[Callable[[], Any]], Any]

LINE = re.compile(rb"perfkit\.[A-Za-z0-9_.-]+:-?[0-9.e+-]+\|(ms|c|g)")


@pytest.fixture
def sink(udp: Any, clock: FakeClock) -> Iterator[StatsdSink]:
    made = StatsdSink(udp.address, clock=clock)
    yield made
    made.close()


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Poll another process until it is so far."""
    deadline = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return result


# --- lines


@pytest.mark.parametrize(
    ("kind", "value", "line"),
    [
        ("timing", 0.25, b"perfkit.x:250.000000|ms"),
        ("timing", 1.5e-6, b"perfkit.x:0.001500|ms"),
        ("value", 1500.0, b"perfkit.x:1500|ms"),
        ("value", 0.000_002_5, b"perfkit.x:2.5e-06|ms"),
        ("counter", 1.0, b"perfkit.x:1|c"),
        ("counter", -2, b"perfkit.x:-2|c"),
        ("counter", 2.5, b"perfkit.x:2.5|c"),
        ("gauge", 7.0, b"perfkit.x:7|g"),
        ("gauge", 0.1, b"perfkit.x:0.1|g"),
        ("gauge", -3.0, b"perfkit.x:0|g\nperfkit.x:-3|g"),
        ("gauge", 1e22, b"perfkit.x:1e+22|g"),
    ],
)
def test_lines(sink: StatsdSink, udp: Any, kind: Kind, value: float, line: bytes) -> None:
    sink.emit(kind, "x", value, {})
    sink.flush()
    assert udp.datagrams() == [line]


@pytest.mark.parametrize(("kind", "value"), [("timing", -1.0), ("value", -0.5), ("timing", 1e308), ("gauge", 1e400)])
def test_what_the_protocol_cannot_say_is_dropped_and_counted(
    sink: StatsdSink, udp: Any, kind: Kind, value: float
) -> None:
    sink.emit(kind, "x", value, {})
    sink.emit("counter", "y", 1, {})
    sink.flush()
    assert udp.lines() == [b"perfkit.y:1|c"]
    assert sink.dropped == 1


def test_tags_become_part_of_the_name_in_sorted_order(sink: StatsdSink, udp: Any) -> None:
    sink.emit("counter", "calls", 1, {"provider": "openai", "model": "gpt-4.1", "agent": ""})
    sink.flush()
    assert udp.lines() == [b"perfkit.calls.agent._.model.gpt-4_1.provider.openai:1|c"]


@pytest.mark.parametrize("bad", ["a:b", "a|b", "a#b", "a\nb", "a\r\nb", "a@b", "a b", "añb", "a\0b", "a\ud800b"])
def test_names_and_tags_cannot_inject(sink: StatsdSink, udp: Any, bad: str) -> None:
    sink.emit("counter", f"{bad}:1|c\nevil", 1, {bad: bad, "t": f"x:1|c\nperfkit.evil:1|c|#{bad}"})
    sink.flush()
    (line,) = udp.lines()
    assert LINE.fullmatch(line)
    assert line.count(b":") == line.count(b"|") == 1


@settings(deadline=None)
@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=3), st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_makes_one_well_formed_line(name: str, tags: dict[str, str], value: float) -> None:
    line = StatsdSink()._line("counter", name, value, tags)
    assert LINE.fullmatch(line)
    assert len(line) < 1432


def test_the_prefix_is_free(udp: Any, clock: FakeClock) -> None:
    for prefix in ("", "shop.web", "shop.", "a:b"):
        sink = StatsdSink(udp.address, prefix=prefix, clock=clock)
        sink.emit("counter", "x", 1, {})
        sink.close()
    assert udp.lines() == [b"x:1|c", b"shop.web.x:1|c", b"shop.x:1|c", b"a_b.x:1|c"]


def test_lines_are_those_of_the_statsd_package(sink: StatsdSink, udp: Any) -> None:
    needs_module("statsd")
    import statsd

    client = statsd.StatsClient("127.0.0.1", udp.port, prefix="perfkit")
    client.incr("cache_hit")
    client.incr("cache_hit", 3)
    client.timing("http_request_duration", 0.123456 * 1000)
    client.gauge("queue", 12)
    client.gauge("queue", 2.5)
    client.gauge("queue", -4)
    client.close()
    theirs = udp.datagrams()
    emitted: list[tuple[Kind, str, float]] = [
        ("counter", "cache_hit", 1.0),
        ("counter", "cache_hit", 3.0),
        ("timing", "http_request_duration", 0.123456),
        ("gauge", "queue", 12.0),
        ("gauge", "queue", 2.5),
        ("gauge", "queue", -4.0),
    ]
    for kind, name, value in emitted:
        sink.emit(kind, name, value, {})
        sink.flush()
    assert udp.datagrams() == theirs


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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    sink = StatsdSink(f"127.0.0.1:{port}", clock=clock)
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


def test_a_full_send_buffer_drops_and_does_not_wait(sink: StatsdSink, udp: Any) -> None:
    class Full:
        def sendto(self, data: bytes, address: Any) -> int:
            raise BlockingIOError(errno.EAGAIN, "would block")

        def close(self) -> None: ...

    sink.flush()
    sink._socket = Full()  # type: ignore[assignment]
    sink.emit("counter", "x", 1, {})
    sink.emit("counter", "x", 1, {})
    sink.flush()
    assert sink.dropped == 2


def test_the_socket_does_not_block(sink: StatsdSink) -> None:
    sink.emit("counter", "x", 1, {})
    sink.flush()
    assert sink._socket is not None
    assert sink._socket.getblocking() is False


def test_a_lock_that_is_taken_delays_a_line_but_not_its_emitter(sink: StatsdSink, udp: Any) -> None:
    with sink._lock:
        for _ in range(100):
            sink.emit("counter", "x", 1, {})
    assert udp.lines() == []
    sink.flush()
    assert udp.lines() == [b"perfkit.x:1|c"] * 100


# --- the host's address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("localhost", "localhost", 8125),
        ("statsd.example:9125", "statsd.example", 9125),
        ("10.0.0.1:1", "10.0.0.1", 1),
        ("[::1]:8126", "::1", 8126),
        ("[fe80::1%eth0]", "fe80::1%eth0", 8125),
    ],
)
def test_addresses(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)


class Resolver:
    """Stands in for the network's name service: answers when told, with what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.may_answer = threading.Event()
        self.answer: list[tuple[int, int]] = []  # family and port on loopback
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, **options: Any) -> list[Any]:
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        self.calls += 1
        self.may_answer.wait(10)
        if not self.answer:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        hosts: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
        return [(family, socket.SOCK_DGRAM, 17, "", (hosts[family], port)) for family, port in self.answer]

    def finish(self, sink: StatsdSink) -> None:
        """Let the look-up that is running end."""
        running = sink._resolver
        self.may_answer.set()
        if running is not None:
            running.join(10)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver(monkeypatch)
    yield made
    made.may_answer.set()


def test_a_slow_name_service_delays_lines_but_nobody(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    resolver.answer = [(socket.AF_INET, udp.port)]
    sink = StatsdSink("statsd.example", clock=clock)
    sink.flush()
    for n in range(100):
        sink.emit("counter", f"x{n}", 1, {})
        sink.flush()
    assert resolver.calls == 1
    assert udp.lines() == []
    resolver.finish(sink)
    assert len(udp.lines()) == 64  # each flush ended a datagram: the newest 64 were kept
    assert sink.dropped == 36
    sink.close()


def test_without_an_address_memory_stays_bounded_and_losses_are_counted(resolver: Resolver, clock: FakeClock) -> None:
    resolver.may_answer.set()
    sink = StatsdSink("nowhere.invalid", clock=clock)
    for n in range(20_000):
        sink.emit("counter", f"some_rather_long_name_{n}", 1, {})
    waiting = sum(len(b"\n".join(lines)) for lines in sink._full) + sink._size
    assert waiting <= 65 * 1432
    sink.close()
    assert sink.dropped == 20_000
    assert sink._full == []


def test_a_failed_look_up_is_tried_again_after_a_while(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    sink = StatsdSink("statsd.example", clock=clock)
    sink.flush()
    resolver.finish(sink)
    sink.emit("counter", "x", 1, {})
    sink.flush()
    assert resolver.calls == 1
    resolver.answer = [(socket.AF_INET, udp.port)]
    clock.advance(10)
    sink.flush()
    resolver.finish(sink)
    assert udp.lines() == [b"perfkit.x:1|c"]
    sink.close()


def test_the_address_is_looked_up_again_every_five_minutes(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    resolver.may_answer.set()
    resolver.answer = [(socket.AF_INET, 1)]
    sink = StatsdSink("statsd.example", clock=clock)
    sink.flush()
    resolver.finish(sink)
    clock.advance(299)
    sink.flush()
    assert resolver.calls == 1
    resolver.answer = [(socket.AF_INET, udp.port)]
    clock.advance(1)
    sink.flush()
    resolver.finish(sink)
    assert resolver.calls == 2
    sink.emit("counter", "x", 1, {})
    sink.flush()
    assert udp.lines() == [b"perfkit.x:1|c"]
    resolver.answer = []  # the name service fails: the old address stays in use
    clock.advance(300)
    sink.flush()
    resolver.finish(sink)
    sink.emit("counter", "y", 1, {})
    sink.flush()
    assert udp.lines() == [b"perfkit.y:1|c"]
    sink.close()


def test_ipv4_is_preferred_as_daemons_do(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    resolver.answer = [(socket.AF_INET6, udp.port), (socket.AF_INET, udp.port)]
    sink = StatsdSink("localhost", clock=clock)
    sink.emit("counter", "x", 1, {})
    sink.flush()
    resolver.finish(sink)
    assert udp.lines() == [b"perfkit.x:1|c"]
    sink.close()


def test_a_daemon_may_move_from_ipv6_to_ipv4(resolver: Resolver, udp: Any, clock: FakeClock) -> None:
    resolver.answer = [(socket.AF_INET6, 1)]
    sink = StatsdSink("statsd.example", clock=clock)
    sink.emit("counter", "lost", 1, {})
    sink.flush()
    resolver.finish(sink)
    resolver.answer = [(socket.AF_INET, udp.port)]
    clock.advance(300)
    sink.flush()
    resolver.finish(sink)
    sink.emit("counter", "x", 1, {})
    sink.close()
    assert udp.lines() == [b"perfkit.x:1|c"]


def test_ipv6_works(clock: FakeClock) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        try:
            peer.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback on this machine")
        sink = StatsdSink(f"[::1]:{peer.getsockname()[1]}", clock=clock)
        sink.emit("counter", "x", 1, {})
        sink.close()
        peer.settimeout(5)
        assert peer.recv(1500) == b"perfkit.x:1|c"


def test_closing_waits_for_a_look_up_that_is_about_to_end(udp: Any, clock: FakeClock) -> None:
    """The real name service; the hosts file answers."""
    sink = StatsdSink(f"localhost:{udp.port}", clock=clock)
    sink.emit("counter", "x", 1, {})
    sink.close()
    assert udp.lines(wait=5) == [b"perfkit.x:1|c"]
    assert sink._socket is None


def test_a_closed_sink_can_be_used_again(sink: StatsdSink, udp: Any) -> None:
    for _ in range(3):
        sink.emit("counter", "x", 1, {})
        sink.close()
    assert udp.lines() == [b"perfkit.x:1|c"] * 3


# --- fork


def test_a_child_sends_only_its_own_over_its_own_socket(sink: StatsdSink, udp: Any, in_child: InChild) -> None:
    sink.emit("counter", "before", 1, {})
    sink.flush()
    sink.emit("counter", "parent", 1, {})

    def work() -> Any:
        fresh = sink._socket is None
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


def test_the_background_thread_runs_again_in_a_child(udp: Any, in_child: InChild) -> None:
    tracker = PerformanceTracker(statsd=udp.address, flush_interval=0.1)
    tracker.increment("parent")

    def work() -> Any:
        tracker.increment("child")
        wait_for(lambda: tracker._statsd.sent)  # type: ignore[union-attr]
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


# --- the daemon most others are compared with

CONFIG = """{{
  port: {udp}, address: "127.0.0.1", mgmt_address: "127.0.0.1", mgmt_port: {tcp},
  flushInterval: 3600000, backends: ["./backends/console"],
  servers: [{{server: "./servers/udp", address: "127.0.0.1", port: {udp}}}],
}}"""


class Daemon:
    """The npm statsd daemon, asked over its management port."""

    def __init__(self, directory: Path) -> None:
        node, package = needs_statsd_daemon()
        self.port, self._management = _free_port(socket.SOCK_DGRAM), _free_port(socket.SOCK_STREAM)
        config = directory / "statsd.js"
        config.write_text(CONFIG.format(udp=self.port, tcp=self._management))
        self._process = subprocess.Popen(
            [node, str(package / "stats.js"), str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert wait_for(lambda: self._ask("health"), 30), "the daemon does not answer"

    def _ask(self, command: str) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self._management), timeout=5) as connection:
                connection.sendall(command.encode() + b"\n")
                reply = b""
                while not reply.endswith((b"END\n\n", b"health: up\n")):
                    reply += connection.recv(65536)
                return reply.decode()
        except OSError:
            return ""

    def read(self, what: str) -> dict[str, Any]:
        """Return the daemon's "counters", "timers" or "gauges"."""
        text = self._ask(what).removesuffix("END\n\n")
        found = ast.literal_eval(re.sub(r"(?m)^(\W*)(\w[\w.]*):", r"\1'\2':", text))
        assert isinstance(found, dict)
        return found

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)  # it flushes for nobody at exit
        self._process.wait(10)


def _free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.stop()


def test_the_real_daemon_understands_every_line(daemon: Daemon) -> None:
    tracker = PerformanceTracker(statsd=f"127.0.0.1:{daemon.port}")
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
    assert wait_for(lambda: daemon.read("gauges").get("perfkit.balance") == -3.5)  # the last line
    counters, timers, gauges = map(daemon.read, ("counters", "timers", "gauges"))
    assert (counters["statsd.bad_lines_seen"], counters["statsd.metrics_received"]) == (0, 310)
    assert sum(name.startswith("perfkit.many.n.") for name in counters) == 300
    assert counters["perfkit.cache_hit.route.a_b_c_"] == 300
    assert timers["perfkit.provider_latency.model.gpt-4_1.provider.openai"] == [250, 500, 1000]
    assert (timers["perfkit.token_usage"], timers["perfkit.cost"]) == ([1500], [0.0000125])
    assert (gauges["perfkit.queue"], gauges["perfkit.balance"]) == (5, -3.5)
