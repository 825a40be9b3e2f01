from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from _parts import needs_module
from hypothesis import given
from hypothesis import strategies as st

from perfkit.metrics.sinks.lines import DogLines, PlainLines
from perfkit.metrics.sinks.statsd import StatsdSink

if TYPE_CHECKING:
    from perfkit.clock import FakeClock
    from perfkit.metrics.sinks import Kind

LINE = re.compile(rb"perfkit\.[A-Za-z0-9_.-]+:-?[0-9.e+-]+\|(ms|c|g)")


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


@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=3), st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_makes_one_well_formed_line(name: str, tags: dict[str, str], value: float) -> None:
    line = PlainLines("perfkit").line("counter", name, value, tags)
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


# --- DogStatsD

DOG_LINE = re.compile(
    rb"perfkit\.[A-Za-z0-9_.-]+:-?[0-9.e+-]+\|[cgd](\|#[A-Za-z0-9_./-]+:[A-Za-z0-9_./:-]*(,[A-Za-z0-9_./-]+:[A-Za-z0-9_./:-]*)*)?"
)


@pytest.mark.parametrize(
    ("kind", "value", "line"),
    [
        ("timing", 0.25, b"perfkit.x:0.25|d|#a:b"),
        ("timing", -1.0, b"perfkit.x:-1|d|#a:b"),
        ("value", 1500.0, b"perfkit.x:1500|d|#a:b"),
        ("counter", 2, b"perfkit.x:2|c|#a:b"),
        ("gauge", -3.5, b"perfkit.x:-3.5|g|#a:b"),
    ],
)
def test_dogstatsd_lines_have_tags_seconds_and_distributions(kind: Kind, value: float, line: bytes) -> None:
    assert DogLines("perfkit").line(kind, "x", value, {"a": "b"}) == line


def test_dogstatsd_distributions_may_be_histograms() -> None:
    assert DogLines("", "h").line("timing", "x", 0.5, {}, b"|@0.1") == b"x:0.5|h|@0.1"


def test_dogstatsd_tags_are_sorted_and_cleaned() -> None:
    tags = {"model": "org/gpt-4.1:beta", "agent": "", "eins,zwei|#": "a,b|c\nd"}
    assert DogLines("").line("counter", "x", 1, tags) == b"x:1|c|#agent:,eins_zwei__:a_b_c_d,model:org/gpt-4.1:beta"


@given(
    st.sampled_from(["timing", "value", "counter", "gauge"]),
    st.text(),
    st.dictionaries(st.text(), st.text(), max_size=3),
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_any_text_and_number_makes_one_well_formed_dogstatsd_line_or_none(
    kind: Kind, name: str, tags: dict[str, str], value: float
) -> None:
    line = DogLines("perfkit").line(kind, name, value, tags)
    assert not line or DOG_LINE.fullmatch(line)
    assert len(line) < 1432


def test_many_long_tags_still_fit_a_datagram() -> None:
    tags = {f"tag{n}" + "k" * 300: "v" * 300 for n in range(50)}
    assert 800 < len(DogLines("p").line("gauge", "x" * 999, -1.5e-300, tags)) < 1100
